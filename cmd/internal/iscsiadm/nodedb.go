package iscsiadm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/nodedb"
)

// nodedbMode is -m nodedb, which open-iscsi does not have: it takes records
// over from open-iscsi's files in a directory (-o import), or writes them there
// (-o export). The directory is the one word that is no option.
func (c *command) nodedbMode() error {
	if err := c.noJSON(); err != nil {
		return err
	}
	if len(c.words) != 1 || c.words[0] == "" {
		return c.usageError("nodedb mode needs one directory, such as /etc/iscsi.")
	}
	dir := c.words[0]
	switch c.req.op {
	case opImport:
		return c.importTree(dir, false)
	case opImport | opUpdate:
		return c.importTree(dir, true)
	case opExport:
		return c.exportTree(dir)
	}
	return c.usageError("nodedb mode needs one of the operations import and export.")
}

// importTree stores what the files in dir say. Records that there are stay as
// they are unless overwrite is set. Files and values that are not understood
// are reported one by one; the rest is stored, and the code is 6.
func (c *command) importTree(dir string, overwrite bool) error {
	if c.isMirror(dir) {
		return c.fail(errcode.Inval, "%s is the mirror of the records (nodedb.mirror); there is nothing in it to import.", oneLine(dir))
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return c.fail(errcode.IDBM, "Could not read %s: %s", oneLine(dir), oneLine(reason(err, "not a directory")))
	}
	tree, problems := nodedb.ReadTree(dir)
	if problems != nil {
		for _, line := range nodedb.Lines(problems) {
			c.errorf("%s", oneLine(line))
		}
	}
	if len(tree.Nodes)+len(tree.Discoveries)+len(tree.Ifaces) == 0 {
		if problems != nil {
			return exit(errcode.IDBM)
		}
		return c.fail(errcode.NoObjsFound, "No records found in %s", oneLine(dir))
	}
	var done nodedb.ImportResult
	err := c.update(func(tx *nodedb.Tx) error {
		var err error
		done, err = tx.Import(tree, overwrite)
		return err
	})
	if err != nil {
		return err
	}
	c.printf("Imported %s from %s.\n", amounts(done.Nodes, done.Discoveries, done.Ifaces), oneLine(dir))
	if done.Kept > 0 {
		c.printf("Kept %d record%s that existed already.\n", done.Kept, plural(done.Kept))
	}
	if problems != nil {
		return exit(errcode.IDBM)
	}
	return nil
}

// exportTree writes all records as files below dir, which is made if it is
// missing. Other files there stay.
func (c *command) exportTree(dir string) error {
	if c.isMirror(dir) {
		return c.fail(errcode.Inval, "%s is the mirror of the records (nodedb.mirror) and has them already.", oneLine(dir))
	}
	var tree *nodedb.Tree
	err := c.view(func(tx *nodedb.Tx) error {
		tree = tx.Tree()
		return nil
	})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return c.fail(errcode.IDBM, "Could not make %s: %s", oneLine(dir), oneLine(reason(err, "")))
	}
	if err := tree.Write(dir); err != nil {
		return c.fail(errcode.IDBM, "Could not write the records to %s: %s", oneLine(dir), oneLine(reason(err, "")))
	}
	c.printf("Exported %s to %s.\n", amounts(len(tree.Nodes), len(tree.Discoveries), len(tree.Ifaces)), oneLine(dir))
	return nil
}

// amounts counts records in words.
func amounts(nodes, discoveries, ifaces int) string {
	return fmt.Sprintf("%d node%s, %d discovery record%s and %d iface%s",
		nodes, plural(nodes), discoveries, plural(discoveries), ifaces, plural(ifaces))
}

// isMirror reports whether dir is where the mirror is kept.
func (c *command) isMirror(dir string) bool {
	conf, err := c.config()
	if err != nil || conf.Mirror() == "" {
		return false
	}
	a, err := os.Stat(dir)
	if err != nil {
		return filepath.Clean(dir) == filepath.Clean(conf.Mirror())
	}
	b, err := os.Stat(conf.Mirror())
	return err == nil && os.SameFile(a, b)
}

// reason is the last part of an error, for messages that name the rest; def
// without an error.
func reason(err error, def string) string {
	if err == nil {
		return def
	}
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Path + ": " + pe.Err.Error()
	}
	return err.Error()
}
