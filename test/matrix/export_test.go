//go:build integration

package matrix

import (
	"testing"

	"github.com/goiscsi/goiscsi/test/lab"
	"github.com/goiscsi/goiscsi/test/targets"
)

// TestExport goes the whole way, records, daemon and export, by the corners of
// the matrix, with fio as the judge.
func TestExport(t *testing.T) {
	for name, start := range map[string]func(t *testing.T, file string) targets.PortalAddr{
		"tgt": func(t *testing.T, file string) targets.PortalAddr {
			tgt := targets.StartTGT(t, 0, nil, targets.Target{Name: targetName, LUNs: []targets.LUN{{Number: 1, Path: file}}})
			allow(t, tgt)
			return tgt.Portal()
		},
		"istgt": func(t *testing.T, file string) targets.PortalAddr {
			return targets.StartISTGT(t, targets.Target{Name: targetName, LUNs: []targets.LUN{{Number: 0, Path: file}}}).Portal()
		},
	} {
		t.Run(name, func(t *testing.T) {
			portal := start(t, targets.SparseFile(t, diskSize)).String()
			h := lab.NewPrefix(t)
			h.StartDaemon()
			h.Must("-m", "discovery", "-t", "sendtargets", "-p", portal)
			for _, c := range []struct{ digest, immediate, r2t, first, most string }{
				{"None", "Yes", "No", "262144", "16776192"},
				{"CRC32C", "No", "Yes", "65536", "262144"},
				{"CRC32C", "Yes", "No", "262144", "65536"},
				{"None", "No", "No", "4096", "8192"},
			} {
				for key, value := range map[string]string{
					"node.conn[0].iscsi.HeaderDigest":     c.digest,
					"node.conn[0].iscsi.DataDigest":       c.digest,
					"node.session.iscsi.ImmediateData":    c.immediate,
					"node.session.iscsi.InitialR2T":       c.r2t,
					"node.session.iscsi.FirstBurstLength": c.first,
					"node.session.iscsi.MaxBurstLength":   c.most,
				} {
					h.Must("-m", "node", "-T", targetName, "-p", portal, "-o", "update", "-n", key, "-v", value)
				}
				h.Must("-m", "node", "-T", targetName, "-p", portal, "-l")
				h.Shell("fio --name=matrix --ioengine=nbd '--uri=nbd+unix:///?socket=" + h.Socket() + "' --rw=randwrite" +
					" --bsrange=512-512k --iodepth=16 --size=8m --verify=crc32c --do_verify=1 --verify_fatal=1 --output=" + h.Dir + "/fio.log" +
					" || { cat " + h.Dir + "/fio.log >&2; exit 1; }")
				h.Must("-m", "node", "-T", targetName, "-p", portal, "-u")
			}
		})
	}
}
