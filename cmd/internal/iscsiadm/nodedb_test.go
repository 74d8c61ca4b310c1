package iscsiadm_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// treeFile reads a file of an exported tree.
func treeFile(t *testing.T, parts ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestExportAndImport(t *testing.T) {
	from, to, dir := newLab(t), newLab(t), filepath.Join(t.TempDir(), "iscsi")
	from.mustRun(discovery...)
	from.mustRun("-m", "iface", "-I", "lan", "-o", "new")
	from.set(chap, "node.session.auth.password", "secret word")
	from.expect(result{"Exported 3 nodes, 1 discovery record and 1 iface to " + dir + ".\n", "", 0}, "-m", "nodedb", "-o", "export", dir)
	if text := treeFile(t, dir, "nodes", chap, "127.0.0.1,3260,1", "default"); !strings.Contains(text, "\nnode.session.auth.password = secret word\n") {
		t.Errorf("the file lacks the password:\n%s", text)
	}
	if st, err := os.Stat(filepath.Join(dir, "nodes", chap, "127.0.0.1,3260,1", "default")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("file mode %v, %v", st.Mode(), err)
	}

	to.expect(result{"Imported 3 nodes, 1 discovery record and 1 iface from " + dir + ".\n", "", 0}, "-m", "nodedb", "-o", "import", dir)
	for _, args := range [][]string{
		{"-m", "node", "-S", "-T", chap},
		{"-m", "node", "-P", "1"},
		{"-m", "discovery", "-P", "1"},
		{"-m", "iface", "-I", "lan"},
		{"-m", "discoverydb", "-t", "st", "-p", "127.0.0.1"},
	} {
		if a, b := from.mustRun(args...), to.mustRun(args...); a != b {
			t.Errorf("%v prints\n%s\nwhere the records were exported, and\n%s\nwhere they were imported", args, a, b)
		}
	}
}

func TestImportKeepsOrReplaces(t *testing.T) {
	l, dir := newLab(t), t.TempDir()
	l.mustRun(discovery...)
	l.mustRun("-m", "nodedb", "-o", "export", dir)
	l.set(tg1, "node.startup", "automatic")
	l.expect(result{"Imported 0 nodes, 0 discovery records and 0 ifaces from " + dir + ".\nKept 4 records that existed already.\n", "", 0},
		"-m", "nodedb", "-o", "import", dir)
	if !strings.Contains(l.mustRun("-m", "node", "-T", tg1), "node.startup = automatic\n") {
		t.Error("the import has replaced a record")
	}
	l.expect(result{"Imported 3 nodes, 1 discovery record and 0 ifaces from " + dir + ".\n", "", 0},
		"-m", "nodedb", "-o", "import", "-o", "update", dir)
	if !strings.Contains(l.mustRun("-m", "node", "-T", tg1), "node.startup = manual\n") {
		t.Error("the import has kept a record")
	}
}

func TestImportTellsWhatItLeavesOut(t *testing.T) {
	l, dir := newLab(t), t.TempDir()
	l.mustRun(discovery...)
	l.mustRun("-m", "nodedb", "-o", "export", dir)
	l.mustRun("-m", "node", "-o", "delete")
	write(t, filepath.Join(dir, "nodes", tg1, "127.0.0.1,3260,1", "default"), "no record\n")
	r := l.run("-m", "nodedb", "-o", "import", dir)
	if r.code != 6 || !strings.Contains(r.err, "iscsiadm: nodes/"+tg1+"/127.0.0.1,3260,1/default: ") || !strings.HasPrefix(r.out, "Imported ") {
		t.Errorf("%+v", r)
	}
	if out := l.mustRun("-m", "node"); !strings.Contains(out, chap) || !strings.Contains(out, mutual) {
		t.Errorf("the other records are not there:\n%s", out)
	}
}

func TestNodedbRefuses(t *testing.T) {
	l, empty := newLab(t), t.TempDir()
	try := "Try `iscsiadm --help' for more information.\n"
	mirror := filepath.Join(filepath.Dir(l.env.Paths.DB), "mirror")
	write(t, l.env.Paths.Config, "nodedb.mirror = "+mirror+"\n")
	l.mustRun(discovery...)
	for _, tc := range []struct {
		name string
		want result
		args []string
	}{
		{"no directory", result{"", "iscsiadm: nodedb mode needs one directory, such as /etc/iscsi.\n" + try, 7}, []string{"-o", "import"}},
		{"two directories", result{"", "iscsiadm: nodedb mode needs one directory, such as /etc/iscsi.\n" + try, 7}, []string{"-o", "export", "a", "b"}},
		{"no operation", result{"", "iscsiadm: nodedb mode needs one of the operations import and export.\n" + try, 7}, []string{empty}},
		{"another operation", result{"", "iscsiadm: nodedb mode needs one of the operations import and export.\n" + try, 7}, []string{"-o", "delete", empty}},
		{"nothing there", result{"", "iscsiadm: No records found in " + empty + "\n", 21}, []string{"-o", "import", empty}},
		{"no such directory", result{"", "iscsiadm: Could not read " + empty + "/x: " + empty + "/x: no such file or directory\n", 6}, []string{"-o", "import", empty + "/x"}},
		{"export to the mirror", result{"", "iscsiadm: " + mirror + " is the mirror of the records (nodedb.mirror) and has them already.\n", 7}, []string{"-o", "export", mirror}},
		{"import of the mirror", result{"", "iscsiadm: " + mirror + "/. is the mirror of the records (nodedb.mirror); there is nothing in it to import.\n", 7}, []string{"-o", "import", mirror + "/."}},
		{"JSON", result{"", "iscsiadm: --json is for lists, records, statistics and trees only\n", 7}, []string{"-o", "export", "--json", empty}},
		{"an option of another mode", result{"", "iscsiadm: nodedb mode: option '-T' is not allowed/supported\n", 7}, []string{"-o", "export", "-T", "x", empty}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l.t = t
			l.expect(tc.want, append([]string{"-m", "nodedb"}, tc.args...)...)
		})
	}
	// Modes of open-iscsi know nothing of these operations.
	l.t = t
	l.expect(result{"", "iscsiadm: can not recognize operation: 'import'\n", 7}, "-m", "node", "-o", "import")
}
