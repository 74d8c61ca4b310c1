package nodedb

import (
	"path"
	"slices"
	"strings"

	"github.com/goiscsi/goiscsi/internal/version"
)

// Open-iscsi keeps its records as files in a tree:
//
//	nodes/TARGET/ADDRESS,PORT,TAG/IFACE       node
//	nodes/TARGET/ADDRESS,PORT                 node whose tag is not known
//	send_targets/ADDRESS,PORT/st_config       discovery record
//	send_targets/ADDRESS,PORT/LINK            link to a node found there
//	isns/ADDRESS,PORT/isns_config, …/LINK     the same for iSNS
//	static/LINK, fw/LINK                      links to other nodes
//	ifaces/NAME                               interface
//
// where LINK is TARGET,ADDRESS,PORT,TAG,IFACE and points to the node's
// directory (or file). A file has the form that "-o show" prints, without the
// fields that are empty, and with passwords.

// A Tree is what open-iscsi's files hold.
type Tree struct {
	Nodes       []*Node
	Discoveries []*Discovery
	Ifaces      []*Iface
}

const (
	// ownPrefix begins comments that hold fields open-iscsi does not have.
	ownPrefix = "# goiscsi: "
	// mirrorMark is a line of the files that the mirror wrote. It deletes
	// only files that have it.
	mirrorMark = "# goiscsi keeps this file in step with its database; changes here have no effect"
)

// treeDir returns the directory of a discovery type's records or links.
func (t DiscoveryType) treeDir() string {
	if t == SendTargets || t == OffloadSendTargets {
		return "send_targets"
	}
	return string(t)
}

// treePath returns where in the tree the file of a record is.
func treePath(r *record) string {
	switch r.t {
	case nodeTable:
		return nodeTreePath((&Node{*r}).Ref())
	case ifaceTable:
		return path.Join("ifaces", r.get(FieldIfaceName))
	default:
		k := (&Discovery{*r}).Key()
		file := "st_config"
		if k.Type == ISNS {
			file = "isns_config"
		}
		return path.Join(k.Type.treeDir(), k.Address+","+itoa(k.Port), file)
	}
}

// treeRef returns ref with the tag that it has in the tree. A portal whose tag
// is not known has one file there, and so room for one interface: that is the
// default one. Records of others go where the tag 1 would, which is what nearly
// all targets have, and tell the truth in a comment.
func treeRef(ref NodeRef) NodeRef {
	if ref.TPGT < 0 && ref.Iface != DefaultIface {
		ref.TPGT = 1
	}
	return ref
}

// nodeTreePath returns the path of a node's file.
func nodeTreePath(ref NodeRef) string {
	ref = treeRef(ref)
	dir := path.Join("nodes", ref.Target, ref.portalName())
	if ref.TPGT < 0 {
		return dir
	}
	return path.Join(dir, ref.Iface)
}

// treeLink returns the path of the link from a node's discovery to the node
// and what the link says.
func treeLink(n *Node) (link, target string) {
	ref, disc := treeRef(n.Ref()), n.Discovery()
	name := strings.Join([]string{ref.Target, ref.Address, itoa(ref.Port), itoa(ref.TPGT), ref.Iface}, ",")
	target = nodeTreePath(ref)
	if ref.TPGT >= 0 {
		target = path.Dir(target)
	}
	dir := disc.Type.treeDir()
	if disc.Address == "" || dir == string(Static) || dir == string(Firmware) {
		return path.Join(dir, name), "../" + target
	}
	return path.Join(dir, disc.Address+","+itoa(disc.Port), name), "../../" + target
}

// cutLink splits the name of a link; the target may have commas in it.
func cutLink(name string) (NodeRef, bool) {
	parts := strings.Split(name, ",")
	if len(parts) < 5 {
		return NodeRef{}, false
	}
	tail := parts[len(parts)-4:]
	port, ok := atoi(tail[1])
	ref := NodeRef{
		NodeKey: NodeKey{Target: strings.Join(parts[:len(parts)-4], ","), Address: tail[0], Port: port, Iface: tail[3]},
		TPGT:    parseTag(tail[2]),
	}
	return ref, ok && ref.Validate() == nil
}

// parseTag reads a portal group tag; what is none is -1.
func parseTag(s string) int {
	if n, ok := atoi(s); ok && n <= 65535 {
		return n
	}
	return -1
}

// fileHead is the order in which open-iscsi writes the first fields of the
// interface into files; it is not the order in which it prints them.
var fileHead = []string{
	FieldIfaceHWAddress, FieldIfaceAddress, FieldIfaceName, FieldIfaceNet, "iface.gateway", "iface.subnet_mask",
	"iface.prefix_len", FieldIfaceTransport, FieldIfaceInitiator,
}

// fileText returns the text of a record's file.
func fileText(r *record, mark bool) []byte {
	var b, own strings.Builder
	b.WriteString("# BEGIN RECORD " + version.Version + "\n")
	if mark {
		b.WriteString(mirrorMark + "\n")
	}
	line := func(f *Field, v string) {
		if f.Name == FieldTPGT {
			if tag := itoa(treeRef((&Node{*r}).Ref()).TPGT); tag != v {
				b.WriteString(f.Name + " = " + tag + "\n")
				own.WriteString(ownPrefix + f.Name + " = " + v + "\n")
				return
			}
		}
		switch {
		case v == "":
		case f.Own:
			own.WriteString(ownPrefix + f.Name + " = " + v + "\n")
		default:
			b.WriteString(f.Name + " = " + v + "\n")
		}
	}
	headDone := false
	for f, v := range r.Fields() {
		if !strings.HasPrefix(f.Name, "iface.") {
			line(f, v)
			continue
		}
		if !headDone {
			headDone = true
			for _, name := range fileHead {
				line(r.t.lookup(name), r.get(name))
			}
		}
		if !slices.Contains(fileHead, f.Name) {
			line(f, v)
		}
	}
	for _, name := range sortedKeys(r.extra) {
		line(&Field{Name: name}, r.extra[name])
	}
	b.WriteString(own.String())
	b.WriteString("# END RECORD\n")
	return []byte(b.String())
}

// hasMark reports whether a file's text is the mirror's.
func hasMark(text []byte) bool {
	_, rest, _ := strings.Cut(string(text[:min(len(text), 512)]), "\n")
	return strings.HasPrefix(rest, mirrorMark+"\n")
}
