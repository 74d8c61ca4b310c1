package nodedb

import (
	"log/slog"
	"net/netip"
	"strings"
)

// Names of the interfaces that exist without a record.
const (
	DefaultIface = "default" // TCP, bound to nothing
	IserIface    = "iser"    // listed because open-iscsi lists it; cannot log in
)

// An Iface is the record of an interface: what connections are bound to and by
// which initiator name they log in. The zero Iface is not usable: records come
// from [NewIface], [IfaceFromMap] or the database.
type Iface struct{ record }

// NewIface returns a TCP interface that is bound to nothing. The error is a
// *NameError.
func NewIface(name string) (*Iface, error) {
	if err := ValidateIface(name); err != nil {
		return nil, err
	}
	i := &Iface{newRecord(ifaceTable)}
	i.put(FieldIfaceName, name)
	if name == IserIface {
		i.put(FieldIfaceTransport, IserIface)
	}
	return i, nil
}

// IfaceFromMap makes a record of the fields in m, as NodeFromMap does.
func IfaceFromMap(m map[string]string) (*Iface, error) {
	i := &Iface{newRecord(ifaceTable)}
	if err := i.loadMap(m); err != nil {
		return nil, err
	}
	if err := ValidateIface(i.Name()); err != nil {
		return nil, err
	}
	return i, nil
}

// IsBuiltinIface reports whether name is an interface that exists without a
// record and cannot be changed.
func IsBuiltinIface(name string) bool { return name == DefaultIface || name == IserIface }

// builtinIface returns the record of a built-in interface.
func builtinIface(name string) *Iface {
	i, err := NewIface(name)
	if err != nil {
		panic("nodedb: built-in interface has a bad name: " + name)
	}
	return i
}

// Clone returns a copy.
func (i *Iface) Clone() *Iface { return &Iface{i.clone()} }

// Name returns the interface's name.
func (i *Iface) Name() string { return i.get(FieldIfaceName) }

// Transport returns the name of the transport, "tcp" for all that can be used.
func (i *Iface) Transport() string { return i.get(FieldIfaceTransport) }

// NetIface returns the network interface to bind to, or nothing.
func (i *Iface) NetIface() string { return i.get(FieldIfaceNet) }

// HWAddress returns the MAC address of the network interface to bind to, or
// nothing.
func (i *Iface) HWAddress() string { return i.get(FieldIfaceHWAddress) }

// IPAddress returns the local address to bind to, or nothing.
func (i *Iface) IPAddress() string { return i.get(FieldIfaceAddress) }

// InitiatorName returns the name to log in by, or nothing for the system's.
func (i *Iface) InitiatorName() string { return i.get(FieldIfaceInitiator) }

// Set changes one field; see Apply.
func (i *Iface) Set(name, value string) error {
	_, err := i.Apply([]Param{{name, value}})
	return err
}

// Apply changes fields in order, all or none, as interface mode does: the name
// cannot be changed, nor can a binding by MAC address become one by network
// interface or the reverse. Warnings and errors are as for [Node.Apply].
func (i *Iface) Apply(params []Param) (warnings []string, err error) {
	if IsBuiltinIface(i.Name()) {
		return nil, &BuiltinIfaceError{Name: i.Name(), Op: "modified"}
	}
	return i.apply(params, func(name string) error {
		const rebind = "You must delete the interface and create a new one"
		switch {
		case name == FieldIfaceName:
			return &ReadOnlyFieldError{Name: name, Text: "Can not update iface.iscsi_ifacename. Delete it, and then create a new one."}
		case name == FieldIfaceNet && bound(i.HWAddress()):
			return &ReadOnlyFieldError{Name: name, Text: "Can not update interface binding from hwaddress to net_ifacename. " + rebind}
		case name == FieldIfaceHWAddress && bound(i.NetIface()):
			return &ReadOnlyFieldError{Name: name, Text: "Can not update interface binding from net_ifacename to hwaddress. " + rebind}
		}
		return i.verify(name)
	})
}

// bound reports whether a binding field binds to something: "default" is what
// old records have for nothing.
func bound(value string) bool { return value != "" && value != DefaultIface }

// Summary returns the interface as open-iscsi shows it in messages about new
// nodes: "[hw=,ip=,net_if=,iscsi_if=default]".
func (i *Iface) Summary() string {
	return "[hw=" + i.HWAddress() + ",ip=" + i.IPAddress() + ",net_if=" + i.NetIface() + ",iscsi_if=" + i.Name() + "]"
}

// String returns the name.
func (i Iface) String() string { return i.Name() }

// GoString identifies the record; it keeps %#v from showing secrets.
func (i Iface) GoString() string { return i.String() }

// LogValue implements slog.LogValuer.
func (i Iface) LogValue() slog.Value { return slog.StringValue(i.Name()) }

// isIPv6 reports whether addr is written as an IPv6 address.
func isIPv6(addr string) bool {
	if !strings.Contains(addr, ":") {
		return false
	}
	a, err := netip.ParseAddr(addr)
	return err == nil && a.Is6() && !a.Is4In6()
}
