package nodedb

import (
	"log/slog"
	"maps"
	"strings"
)

// A Node is the record of one target at one portal through one interface, with
// all settings of its sessions. The zero Node is not usable: records come from
// [NewNode], [NodeFromMap] or the database.
//
// Get, Text, Int, Bool, Seconds, Fields and Map read its fields; the names are
// the Field constants.
type Node struct{ record }

// NewNode returns a record for key with the settings that conf gives new
// records; nil means the shipped ones. The interface's fields are those of a
// plain TCP interface of that name; see SetIface. tpgt is 0 to 65535, or less
// when it is not known. The error is a *NameError.
func NewNode(conf *Config, key NodeKey, tpgt int) (*Node, error) {
	if err := key.Validate(); err != nil {
		return nil, err
	}
	n := &Node{newRecord(nodeTable)}
	conf.orShipped().fill(&n.record)
	n.put(FieldName, key.Target)
	n.put(FieldAddress, key.Address)
	n.put(FieldPort, itoa(key.Port))
	n.put(FieldIfaceName, key.Iface)
	n.SetTPGT(tpgt)
	n.SetDiscovery(DiscoveryKey{Type: Static})
	return n, nil
}

// NodeFromMap makes a record of the fields in m; those that are missing have
// their default. Names that are not known are kept, so that a message from
// another version loses nothing. The errors are *ValueError, *NameError and
// *UnknownFieldError (for a name that cannot be one).
func NodeFromMap(m map[string]string) (*Node, error) {
	n := &Node{newRecord(nodeTable)}
	if err := n.loadMap(m); err != nil {
		return nil, err
	}
	if err := n.check(); err != nil {
		return nil, err
	}
	return n, nil
}

// check is what holds for every record that may be stored.
func (n *Node) check() error {
	if err := n.Key().Validate(); err != nil {
		return err
	}
	if a := n.get(FieldDiscoveryAddress); a != "" {
		return ValidateAddress(a)
	}
	return nil
}

// Clone returns a copy.
func (n *Node) Clone() *Node { return &Node{n.clone()} }

// Key returns what identifies the record.
func (n *Node) Key() NodeKey {
	return NodeKey{Target: n.Target(), Address: n.Address(), Port: n.Port(), Iface: n.IfaceName()}
}

// Ref returns the key and the tag.
func (n *Node) Ref() NodeRef { return NodeRef{NodeKey: n.Key(), TPGT: n.TPGT()} }

// Target returns the target's name.
func (n *Node) Target() string { return n.get(FieldName) }

// Address returns the portal's host name or address, without brackets.
func (n *Node) Address() string { return n.get(FieldAddress) }

// Port returns the portal's TCP port.
func (n *Node) Port() int { return n.Int(FieldPort) }

// TPGT returns the target portal group tag, -1 when it is not known.
func (n *Node) TPGT() int { return max(-1, n.Int(FieldTPGT)) }

// SetTPGT sets the target portal group tag; less than 0 means not known.
func (n *Node) SetTPGT(tpgt int) {
	if tpgt < 0 || tpgt > 65535 {
		tpgt = -1
	}
	n.put(FieldTPGT, itoa(tpgt))
}

// IfaceName returns the name of the interface record that the node is bound
// to.
func (n *Node) IfaceName() string { return n.get(FieldIfaceName) }

// Transport returns the name of the transport, "tcp" for all that can be used.
func (n *Node) Transport() string { return n.get(FieldIfaceTransport) }

// Startup returns node.startup: manual, automatic or onboot.
func (n *Node) Startup() string { return n.get(FieldStartup) }

// MatchesStartup reports whether --loginall=word and --logoutall=word mean the
// node: either of its two startup fields has the word, or the word is "all".
func (n *Node) MatchesStartup(word string) bool {
	return word == "all" || n.get(FieldStartup) == word || n.get(FieldConnStartup) == word
}

// Attach returns node.session.attach: auto, nbd, socket or none.
func (n *Node) Attach() string { return n.get(FieldAttach) }

// Discovery returns how and where the node was found. For nodes that nobody
// discovered, Type is Static and the rest empty.
func (n *Node) Discovery() DiscoveryKey {
	return DiscoveryKey{
		Type:    discoveryTypeOf(n.get(FieldDiscoveryType)),
		Address: n.get(FieldDiscoveryAddress),
		Port:    n.Int(FieldDiscoveryPort),
	}
}

// SetDiscovery notes how and where the node was found.
func (n *Node) SetDiscovery(k DiscoveryKey) {
	n.put(FieldDiscoveryType, k.Type.nodeWord())
	n.put(FieldDiscoveryAddress, k.Address)
	n.put(FieldDiscoveryPort, itoa(k.Port))
}

// Iface returns a copy of the interface that the node is bound to, as the node
// remembers it.
func (n *Node) Iface() *Iface {
	i := &Iface{newRecord(ifaceTable)}
	for j := range ifaceTable.fields {
		i.vals[j] = n.get(ifaceTable.fields[j].Name)
	}
	return i
}

// SetIface binds the node to an interface: all fields of the interface are
// copied into the node, its name included, which changes the node's key.
func (n *Node) SetIface(i *Iface) {
	for j := range ifaceTable.fields {
		n.put(ifaceTable.fields[j].Name, i.vals[j])
	}
}

// Set changes one field; see Apply.
func (n *Node) Set(name, value string) error {
	_, err := n.Apply([]Param{{name, value}})
	return err
}

// Apply changes fields in order, all or none. Warnings are texts for the user
// about parts of values that were ignored. The errors are *UnknownFieldError,
// *ReadOnlyFieldError and *ValueError. "node.transport_name" is accepted for
// "iface.transport_name"; the other fields of the interface are changed in its
// own record.
func (n *Node) Apply(params []Param) (warnings []string, err error) {
	params = append([]Param(nil), params...)
	for i := range params {
		if params[i].Name == "node.transport_name" {
			params[i].Name = FieldIfaceTransport
		}
	}
	return n.apply(params, func(name string) error {
		if strings.HasPrefix(name, "iface.") && name != FieldIfaceTransport {
			return &ReadOnlyFieldError{Name: name, Text: "Cannot modify " + printable(name) + ". Use iface mode to update this value."}
		}
		return n.verify(name)
	})
}

// Equal reports whether both records have the same values.
func (n *Node) Equal(o *Node) bool { return maps.Equal(n.Map(), o.Map()) }

// String identifies the record; it shows no settings.
func (n Node) String() string { return n.Key().String() }

// GoString identifies the record; it keeps %#v from showing secrets.
func (n Node) GoString() string { return n.String() }

// LogValue implements slog.LogValuer; it shows no settings.
func (n Node) LogValue() slog.Value { return n.Key().LogValue() }

// LogValue implements slog.LogValuer.
func (k NodeKey) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("target", k.Target),
		slog.String("portal", k.Address+","+itoa(k.Port)),
		slog.String("iface", k.Iface),
	)
}
