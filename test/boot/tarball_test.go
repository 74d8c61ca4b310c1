//go:build integration

package boot

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestTarball unpacks the archive for other systems where there is something
// already, and uses it from there: nothing of the machine's own is in its way.
func TestTarball(t *testing.T) {
	archive := shell(t, checkout, "internal/packaging/tarball '"+binDir(t)+"' '"+t.TempDir()+"'")
	root := t.TempDir()
	shell(t, root, `
		mkdir -p etc/iscsi usr/bin usr/sbin
		chmod 711 usr/sbin
		echo '# mine' >etc/iscsi/iscsid.conf
		ln -s usr/sbin sbin
		tar -C . --keep-directory-symlink --skip-old-files -xzf '`+archive+`'`)
	if conf := shell(t, root, "cat etc/iscsi/iscsid.conf"); conf != "# mine" {
		t.Errorf("the configuration was replaced: %q", conf)
	}
	if mode := shell(t, root, "stat -c %a usr/sbin"); mode != "711" {
		t.Errorf("the mode of a directory is %s now", mode)
	}
	for _, program := range []string{"sbin/iscsiadm", "usr/bin/iscsiadm"} {
		if out := shell(t, root, "ISCSI_ROOT='"+root+"' ./"+program+" -m node -o new -T "+target+" -p 10.0.0.1"); !strings.Contains(out, target) {
			t.Errorf("%s: %q", program, out)
		}
	}
	if out := shell(t, root, "ls var/lib/iscsi/nodes.db"); out == "" {
		t.Error("no records below the root")
	}
	for _, unit := range []string{"iscsid.socket", "iscsid.service", "iscsid-sysfs.service", "iscsi.service", "iscsi-init.service", "iscsi-shutdown.service"} {
		shell(t, root, "test -f "+filepath.Join("usr/lib/systemd/system", unit))
	}
	// What the units start is there.
	shell(t, root, `for f in $(sed -n 's/^Exec[A-Za-z]*=[-@]*\(\/usr[^ ]*\).*/\1/p' usr/lib/systemd/system/isc*); do test -x .$f; done`)
}
