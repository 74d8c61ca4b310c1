//go:build guest

package replay

import (
	"slices"
	"testing"

	"github.com/goiscsi/goiscsi/internal/transcript"
	"github.com/goiscsi/goiscsi/test/lab"
)

// oddConfig has what people write into iscsid.conf, right and wrong.
var oddConfig = []string{
	"# a comment",
	"   # another",
	"",
	"   ",
	"node.startup = automatic",
	"node.session.queue_depth=64",
	"node.session.cmds_max =",
	"node.session.cmds_max = ",
	"node.session.err_timeo.abort_timeout= 5",
	"node.session.err_timeo.lu_reset_timeout =5",
	"  node.session.nr_sessions   =   2  ",
	"\tnode.session.initial_login_retry_max\t=\t3",
	"node.session.timeo.replacement_timeout = 77 # since Tuesday",
	"node.session.scan = bogus",
	"node.leading_login = yes",
	"unknown.key = 1",
	"a line of words",
	"word",
	"= 5",
	"node.name = iqn.other",
	"node.tpgt = 5",
	"node.conn[0].port = 1",
	"node.discovery_type = fw",
	"node.session.auth.username = \"quoted\"",
	"node.session.auth.password = with blanks = and signs",
	"node.session.auth.chap_algs = SHA256,BOGUS,MD5,MD5",
	"node.conn[0].timeo.login_timeout = 7s",
	"node.conn[0].timeo.logout_timeout = -1",
	"node.session.iscsi.FirstBurstLength = 0x1000",
	"node.startup = onboot",
	"discovery.sendtargets.iscsi.MaxRecvDataSegmentLength = 65536",
	"discovery.sendtargets.address = 1.2.3.4",
	"discovery.sendtargets.auth.authmethod = CHAP",
	"discovery.isns.use_discoveryd = Yes",
}

// TestConfigBesideOpenISCSI has both programs read such a file and make records
// by it.
func TestConfigBesideOpenISCSI(t *testing.T) {
	h := lab.NewMachine(t, oddConfig...)
	// open-iscsi reads the file once for each kind of record, and says each time
	// what is wrong with it.
	once := func(c *transcript.Command) {
		slices.Sort(c.Err)
		c.Err = slices.Compact(c.Err)
	}
	besides(t, h, once, []string{
		"-m node -T iqn.x -p 10.0.0.1:3260,1 -o new",
		"-m node -T iqn.x",
		"-m node -T iqn.x -S | grep auth",
		"-m discoverydb -t st -p 10.0.0.1 -o new",
		"-m discoverydb -t st -p 10.0.0.1",
		"-m discoverydb -t isns -p 10.0.0.1 -o new",
		"-m discoverydb -t isns -p 10.0.0.1",
		"-m iface -I lan -o new",
		"-m iface -I lan",
	})
}
