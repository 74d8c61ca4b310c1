package iscsiadm

import (
	"bytes"
	"encoding/json"
	"iter"

	"github.com/goiscsi/goiscsi/nodedb"
)

// printRefs prints the flat list of records.
func (c *command) printRefs(refs []nodedb.NodeRef) {
	for _, r := range refs {
		c.printf("%s %s\n", listPortal(r.Address, r.Port, r.TPGT), r.Target)
	}
}

// printRefTree prints records under their targets. Records of one target
// that follow each other share its line; the portal is repeated for each
// interface.
func (c *command) printRefTree(refs []nodedb.NodeRef) {
	last := ""
	for _, r := range refs {
		if r.Target != last {
			c.printf("Target: %s\n", r.Target)
			last = r.Target
		}
		c.printf("\tPortal: %s\n\t\tIface Name: %s\n", treePortal(r.Address, r.Port, r.TPGT), r.Iface)
	}
}

// printFoundTree prints records that a discovery found: here the interfaces of
// a portal share its line, and the first record of a portal says where.
func (c *command) printFoundTree(refs []nodedb.NodeRef) {
	type place struct {
		target, address string
		port            int
	}
	var places []place
	byPlace := make(map[place][]nodedb.NodeRef)
	for _, r := range refs {
		p := place{r.Target, r.Address, r.Port}
		if byPlace[p] == nil {
			places = append(places, p)
		}
		byPlace[p] = append(byPlace[p], r)
	}
	last := ""
	for _, p := range places {
		if p.target != last {
			c.printf("Target: %s\n", p.target)
			last = p.target
		}
		refs := byPlace[p]
		c.printf("\tPortal: %s\n", treePortal(p.address, p.port, refs[0].TPGT))
		for _, r := range refs {
			c.printf("\t\tIface Name: %s\n", r.Iface)
		}
	}
}

// printAdded says that a record has been made.
func (c *command) printAdded(n *nodedb.Node) {
	c.printf("New iSCSI node [%s:%s %s,%d,%d %s] added\n", n.Transport(), n.Iface().Summary(), n.Address(), n.Port(), n.TPGT(), n.Target())
}

// jsonRef is a node record in a JSON list.
type jsonRef struct {
	Target  string `json:"target"`
	Address string `json:"address"`
	Port    int    `json:"port"`
	TPGT    int    `json:"tpgt"` // -1 unknown
	Iface   string `json:"iface"`
}

func jsonRefs(refs []nodedb.NodeRef) []jsonRef {
	out := make([]jsonRef, len(refs))
	for i, r := range refs {
		out[i] = jsonRef{r.Target, r.Address, r.Port, r.TPGT, r.Iface}
	}
	return out
}

// fielder is a record of any kind.
type fielder interface {
	Fields() iter.Seq2[*nodedb.Field, string]
}

// jsonRecord is a record as a JSON object whose members are the fields, in
// the order in which they are printed and with the same text; values that are
// printed as <empty> are empty strings.
type jsonRecord struct {
	r       fielder
	secrets bool
}

// MarshalJSON implements json.Marshaler.
func (j jsonRecord) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for f, v := range j.r.Fields() {
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		if v != "" {
			v = f.Display(v, j.secrets)
		}
		name, err := json.Marshal(f.Name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func jsonRecords[R fielder](records []R, secrets bool) []jsonRecord {
	out := make([]jsonRecord, len(records))
	for i, r := range records {
		out[i] = jsonRecord{r, secrets}
	}
	return out
}
