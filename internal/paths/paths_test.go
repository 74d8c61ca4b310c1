package paths_test

import (
	"testing"

	"github.com/goiscsi/goiscsi/internal/paths"
)

func TestFromLookup(t *testing.T) {
	for _, tc := range []struct {
		name    string
		env     map[string]string
		db, run string
	}{
		{"defaults", nil, "/var/lib/iscsi/nodes.db", "/run/iscsid"},
		{"root moves all", map[string]string{"ISCSI_ROOT": "/t"}, "/t/var/lib/iscsi/nodes.db", "/t/run/iscsid"},
		{"single one wins over root", map[string]string{"ISCSI_ROOT": "/t", "ISCSI_DB": "/x/n.db"}, "/x/n.db", "/t/run/iscsid"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := paths.FromLookup(func(k string) string { return tc.env[k] })
			if p.DB != tc.db || p.Run != tc.run {
				t.Errorf("DB %q Run %q, want %q %q", p.DB, p.Run, tc.db, tc.run)
			}
			if p.Dev != "/dev" || p.Sys != "/sys" {
				t.Errorf("Dev %q Sys %q: the kernel's trees have moved", p.Dev, p.Sys)
			}
			if got, want := p.ControlSocket(), tc.run+"/control.sock"; got != want {
				t.Errorf("ControlSocket() = %q, want %q", got, want)
			}
		})
	}
}
