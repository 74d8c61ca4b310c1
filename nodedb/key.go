package nodedb

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"strings"
)

// A NodeKey identifies a node record: a target at a portal through an
// interface. The target portal group tag is not part of it: the same portal
// with another tag is the same record.
type NodeKey struct {
	Target  string // name of the target
	Address string // without brackets
	Port    int    // 1 to 65535
	Iface   string // name of the interface record
}

// Validate returns a *NameError if the key must not be stored.
func (k NodeKey) Validate() error {
	if err := ValidateTarget(k.Target); err != nil {
		return err
	}
	if err := ValidateAddress(k.Address); err != nil {
		return err
	}
	if err := validatePort(k.Port); err != nil {
		return err
	}
	return ValidateIface(k.Iface)
}

// String returns the key as open-iscsi writes it in messages.
func (k NodeKey) String() string {
	return fmt.Sprintf("[iface: %s, target: %s, portal: %s,%d]", k.Iface, k.Target, k.Address, k.Port)
}

// A NodeRef is what lists show of a node record; it can be had without
// reading the record.
type NodeRef struct {
	NodeKey
	// TPGT is the target portal group tag, -1 when it is not known.
	TPGT int
}

// portalName is the name of the portal's directory in open-iscsi's tree, or of
// its file when the tag is not known.
func (r NodeRef) portalName() string {
	s := r.Address + "," + itoa(r.Port)
	if r.TPGT >= 0 {
		s += "," + itoa(r.TPGT)
	}
	return s
}

// compareRefs orders as open-iscsi's directories sort: by the bytes of the
// target, of the portal with its tag, of the interface.
func compareRefs(a, b NodeRef) int {
	return cmp.Or(
		cmp.Compare(a.Target, b.Target),
		cmp.Compare(a.portalName(), b.portalName()),
		cmp.Compare(a.Iface, b.Iface),
	)
}

// A DiscoveryType says how nodes are found.
type DiscoveryType string

// The types of discovery, by the words of discovery records. Only SendTargets
// and ISNS have records; nodes can have any of them.
const (
	SendTargets        DiscoveryType = "sendtargets"
	ISNS               DiscoveryType = "isns"
	OffloadSendTargets DiscoveryType = "offload_send_targets"
	Static             DiscoveryType = "static"
	Firmware           DiscoveryType = "fw"
)

// nodeWord is the word that node records have for the type.
func (t DiscoveryType) nodeWord() string {
	if t == SendTargets {
		return "send_targets"
	}
	return string(t)
}

// discoveryTypeOf returns the type that a node record's word stands for.
func discoveryTypeOf(word string) DiscoveryType {
	if word == "send_targets" {
		return SendTargets
	}
	return DiscoveryType(word)
}

// A DiscoveryKey identifies a discovery record.
type DiscoveryKey struct {
	Type    DiscoveryType
	Address string // without brackets
	Port    int    // 1 to 65535
}

// Validate returns a *NameError if the key must not be stored.
func (k DiscoveryKey) Validate() error {
	if discoveryTable(k.Type) == nil {
		return &NameError{What: "discovery type", Name: string(k.Type), Reason: "has no records"}
	}
	if err := ValidateAddress(k.Address); err != nil {
		return err
	}
	return validatePort(k.Port)
}

// String returns the key as the list of discovery records shows it.
func (k DiscoveryKey) String() string {
	return fmt.Sprintf("%s:%d via %s", k.Address, k.Port, k.Type)
}

// Keys in the database are their parts with a NUL after each but the last, so
// that keys sort as the parts do. No part contains a NUL: Validate sees to it.

func (k NodeKey) encode() []byte {
	return []byte(k.Target + "\x00" + k.Address + "," + itoa(k.Port) + "\x00" + k.Iface)
}

// decodeNodeKey is the reverse of encode; ok is false for what encode cannot
// have made.
func decodeNodeKey(b []byte) (k NodeKey, ok bool) {
	target, rest, ok1 := strings.Cut(string(b), "\x00")
	portal, iface, ok2 := strings.Cut(rest, "\x00")
	addr, port, ok3 := cutPort(portal)
	k = NodeKey{Target: target, Address: addr, Port: port, Iface: iface}
	return k, ok1 && ok2 && ok3 && k.Validate() == nil
}

func (k DiscoveryKey) encode() []byte {
	return []byte(string(k.Type) + "\x00" + k.Address + "," + itoa(k.Port))
}

func decodeDiscoveryKey(b []byte) (k DiscoveryKey, ok bool) {
	typ, portal, ok1 := strings.Cut(string(b), "\x00")
	addr, port, ok2 := cutPort(portal)
	k = DiscoveryKey{Type: DiscoveryType(typ), Address: addr, Port: port}
	return k, ok1 && ok2 && k.Validate() == nil
}

// cutPort splits "address,port" as keys and open-iscsi's file names have it.
func cutPort(s string) (addr string, port int, ok bool) {
	i := strings.LastIndexByte(s, ',')
	if i < 0 {
		return "", 0, false
	}
	port, ok = atoi(s[i+1:])
	return s[:i], port, ok
}

// atoi reads a number as itoa writes it, from 0 to 2147483647.
func atoi(s string) (int, bool) {
	if s == "" || len(s) > 10 || len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, n <= 1<<31-1
}

// linkPrefix is what the keys of a discovery's links begin with.
func (k DiscoveryKey) linkPrefix() []byte { return append(k.encode(), 0) }

// seqBytes and bytesSeq keep a sequence number in a value.
func seqBytes(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func bytesSeq(b []byte) uint64 {
	if len(b) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}
