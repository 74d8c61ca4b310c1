package nodedb

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"
)

// Limits on files that are read: real ones have 5 KiB.
const maxRecordFile = 64 << 10

// A FileError tells what is wrong with a file of a tree.
type FileError struct {
	Path string // within the tree
	Err  error
}

// Error implements error.
func (e *FileError) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *FileError) Unwrap() error { return e.Err }

// ReadTree reads the files of an open-iscsi installation below root, which is
// /etc/iscsi or /var/lib/iscsi; see ReadTreeFS.
func ReadTree(root string) (*Tree, error) { return ReadTreeFS(os.DirFS(root)) }

// ReadTreeFS reads the files of an open-iscsi installation, of the old form and
// the new. It reads what can be read: files that cannot, and values that are
// not understood, are left out and told of in the error, a *multierror.Error
// of *FileError. The tree is never nil. What a file says of its record's
// identity counts, what its path says fills in what is missing. Directories
// that are not there are empty.
func ReadTreeFS(fsys fs.FS) (*Tree, error) {
	r := &treeReader{fsys: fsys, tree: &Tree{}, nodes: make(map[NodeKey]int), links: make(map[NodeKey]DiscoveryKey)}
	r.readDiscoveries(SendTargets, "st_config")
	r.readDiscoveries(ISNS, "isns_config")
	r.readIfaces()
	r.readNodes()
	return r.tree, r.errs.ErrorOrNil()
}

type treeReader struct {
	fsys  fs.FS
	tree  *Tree
	nodes map[NodeKey]int          // index into tree.Nodes
	links map[NodeKey]DiscoveryKey // what the links say
	errs  *multierror.Error
}

func (r *treeReader) warn(name string, err error) {
	r.errs = multierror.Append(r.errs, &FileError{Path: name, Err: err})
}

// dir lists a directory by name, without what begins with a dot.
func (r *treeReader) dir(name string) []string {
	entries, err := fs.ReadDir(r.fsys, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.warn(name, err)
	}
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names
}

// isDir reports whether name, or what it links to, is a directory.
func (r *treeReader) isDir(name string) bool {
	info, err := fs.Stat(r.fsys, name)
	return err == nil && info.IsDir()
}

// read returns the fields that a file has.
func (r *treeReader) read(name string) (map[string]string, bool) {
	info, err := fs.Stat(r.fsys, name)
	if err != nil {
		r.warn(name, err)
		return nil, false
	}
	if !info.Mode().IsRegular() {
		r.warn(name, errors.New("not a regular file"))
		return nil, false
	}
	f, err := r.fsys.Open(name)
	if err != nil {
		r.warn(name, err)
		return nil, false
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRecordFile+1))
	if err == nil && len(text) > maxRecordFile {
		err = fmt.Errorf("larger than %d bytes", maxRecordFile)
	}
	if err != nil {
		r.warn(name, err)
		return nil, false
	}
	m, errs := parseRecord(string(text))
	for _, err := range errs {
		r.warn(name, err)
	}
	return m, true
}

// parseRecord reads the lines of a record file. Of fields that stand there
// more than once the last counts.
func parseRecord(text string) (map[string]string, []error) {
	m := make(map[string]string)
	var errs []error
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if own, ok := strings.CutPrefix(line, ownPrefix); ok {
			line = own
		}
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		switch {
		case !ok || name == "":
			errs = append(errs, fmt.Errorf("line %d is not \"key = value\"", n))
		case value == emptyValue:
			delete(m, name)
		case len(m) >= len(nodeTable.fields)+maxExtra:
			return m, append(errs, fmt.Errorf("line %d: too many keys", n))
		default:
			m[name] = value
		}
	}
	return m, errs
}

// fill loads fields into a record, leaving out what is not understood.
func (r *treeReader) fill(name string, rec *record, m map[string]string) {
	for _, key := range sortedKeys(m) {
		if isPasswordLength(key) {
			continue
		}
		f := rec.t.lookup(key)
		if f != nil && f.Secret() && m[key] == mask {
			r.warn(name, fmt.Errorf("%s is masked, leaving it out", key))
			continue
		}
		_, warnings, err := rec.load(key, m[key])
		if err != nil {
			r.warn(name, err)
		}
		for _, w := range warnings {
			r.warn(name, errors.New(w))
		}
	}
}

// identity takes what identifies a record from the path where the file does
// not have it and warns where the two differ.
func (r *treeReader) identity(name string, m map[string]string, key, fromPath string) {
	switch m[key] {
	case fromPath:
	case "":
		m[key] = fromPath
	default:
		r.warn(name, fmt.Errorf("%s is %q, not %q as the path says", key, printable(m[key]), printable(fromPath)))
	}
}

func (r *treeReader) readNodes() {
	for _, target := range r.dir("nodes") {
		for _, portal := range r.dir(path.Join("nodes", target)) {
			name := path.Join("nodes", target, portal)
			if !r.isDir(name) {
				r.readNode(name, target, portal, "")
				continue
			}
			for _, iface := range r.dir(name) {
				r.readNode(path.Join(name, iface), target, portal, iface)
			}
		}
	}
}

func (r *treeReader) readNode(name, target, portal, iface string) {
	m, ok := r.read(name)
	if !ok {
		return
	}
	r.identity(name, m, FieldName, target)
	parts := strings.Split(portal, ",")
	if len(parts) >= 2 {
		r.identity(name, m, FieldAddress, parts[0])
		r.identity(name, m, FieldPort, parts[1])
	}
	if len(parts) >= 3 && m[FieldTPGT] == "" {
		m[FieldTPGT] = itoa(parseTag(parts[2]))
	}
	switch {
	case iface != "":
		r.identity(name, m, FieldIfaceName, iface)
	case m[FieldIfaceName] == "":
		m[FieldIfaceName] = DefaultIface
	}
	n := &Node{newRecord(nodeTable)}
	r.fill(name, &n.record, m)
	n.SetTPGT(n.Int(FieldTPGT))
	if err := n.check(); err != nil {
		r.warn(name, err)
		return
	}
	if disc, ok := r.links[n.Key()]; ok && n.Discovery().Address == "" {
		n.SetDiscovery(disc)
	}
	at, dup := r.nodes[n.Key()]
	switch {
	case !dup:
		r.nodes[n.Key()] = len(r.tree.Nodes)
		r.tree.Nodes = append(r.tree.Nodes, n)
	default:
		r.warn(name, fmt.Errorf("another record of %s with another portal group tag", n.Key()))
		if n.TPGT() >= 0 {
			r.tree.Nodes[at] = n
		}
	}
}

func (r *treeReader) readDiscoveries(typ DiscoveryType, file string) {
	for _, portal := range r.dir(typ.treeDir()) {
		dir := path.Join(typ.treeDir(), portal)
		addr, port, ok := cutPort(portal)
		if !ok || !r.isDir(dir) {
			r.warn(dir, errors.New("not the directory of a discovery record"))
			continue
		}
		key := DiscoveryKey{Type: typ, Address: addr, Port: port}
		for _, entry := range r.dir(dir) {
			name := path.Join(dir, entry)
			if entry != file {
				if ref, ok := cutLink(entry); ok {
					r.links[ref.NodeKey] = key
				}
				continue
			}
			if m, ok := r.read(name); ok {
				r.identity(name, m, FieldDiscType, string(typ))
				r.identity(name, m, FieldDiscAddress, addr)
				r.identity(name, m, FieldDiscPort, itoa(port))
				d := &Discovery{newRecord(discoveryTable(typ))}
				r.fill(name, &d.record, m)
				d.put(FieldDiscType, string(typ))
				if err := d.Key().Validate(); err != nil {
					r.warn(name, err)
					continue
				}
				r.tree.Discoveries = append(r.tree.Discoveries, d)
			}
		}
	}
}

func (r *treeReader) readIfaces() {
	for _, iface := range r.dir("ifaces") {
		name := path.Join("ifaces", iface)
		if iface == "iface.example" {
			continue // comes with old packages and is none
		}
		m, ok := r.read(name)
		if !ok {
			continue
		}
		r.identity(name, m, FieldIfaceName, iface)
		i := &Iface{newRecord(ifaceTable)}
		r.fill(name, &i.record, m)
		err := ValidateIface(i.Name())
		if err == nil && IsBuiltinIface(i.Name()) {
			err = &BuiltinIfaceError{Name: i.Name(), Op: "modified"}
		}
		if err != nil {
			r.warn(name, err)
			continue
		}
		r.tree.Ifaces = append(r.tree.Ifaces, i)
	}
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
