package iscsiadm

import "github.com/goiscsi/goiscsi/cmd/internal/control"

// printStats prints the counters of a session.
func (c *command) printStats(s *control.Session, st *control.Stats) {
	c.printf("Stats for session %s\niSCSI SNMP:\n", sessionText(s))
	for _, n := range []struct {
		name string
		v    uint64
	}{
		{"txdata_octets", st.TxDataOctets},
		{"rxdata_octets", st.RxDataOctets},
		{"noptx_pdus", st.NOPTx},
		{"scsicmd_pdus", st.SCSICmd},
		{"tmfcmd_pdus", st.TMFCmd},
		{"login_pdus", st.Login},
		{"text_pdus", st.Text},
		{"dataout_pdus", st.DataOut},
		{"logout_pdus", st.Logout},
		{"snack_pdus", st.SNACK},
		{"noprx_pdus", st.NOPRx},
		{"scsirsp_pdus", st.SCSIRsp},
		{"tmfrsp_pdus", st.TMFRsp},
		{"textrsp_pdus", st.TextRsp},
		{"datain_pdus", st.DataIn},
		{"logoutrsp_pdus", st.LogoutRs},
		{"r2t_pdus", st.R2T},
		{"async_pdus", st.Async},
		{"rjt_pdus", st.Reject},
		{"digest_err", st.DigestErr},
		{"timeout_err", st.TimeoutErr},
	} {
		c.printf("\t%s: %d\n", n.name, n.v)
	}
	c.printf("iSCSI Extended:\n\ttx_sendpage_failures: %d\n\trx_discontiguous_hdr: %d\n\teh_abort_cnt: %d\n",
		st.TxSendpageFailures, st.RxDiscontiguousHdr, st.EHAbort)
}
