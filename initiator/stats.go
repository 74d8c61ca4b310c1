package initiator

// Stats are the counters of a session since it was made, over all of its
// connections: those of open-iscsi, with its names in the order in which it
// prints them.
type Stats struct {
	TxDataOctets uint64 // bytes sent, headers included
	RxDataOctets uint64 // bytes received, headers included

	// PDUs sent, by kind, those that were sent again included.
	NopTxPDUs   uint64
	SCSICmdPDUs uint64
	TMFCmdPDUs  uint64
	LoginPDUs   uint64
	TextPDUs    uint64
	DataOutPDUs uint64
	LogoutPDUs  uint64
	SNACKPDUs   uint64

	// PDUs received, by kind.
	NopRxPDUs     uint64
	SCSIRspPDUs   uint64
	TMFRspPDUs    uint64
	TextRspPDUs   uint64
	DataInPDUs    uint64
	LogoutRspPDUs uint64
	R2TPDUs       uint64
	AsyncPDUs     uint64
	RejectPDUs    uint64

	DigestErrors  uint64 // header and data digests that were wrong
	TimeoutErrors uint64 // pings and tasks that were not answered in time

	TxSendpageFailures uint64 // always 0: a counter of the kernel's initiator
	RxDiscontiguousHdr uint64 // always 0: a counter of the kernel's initiator
	EHAborts           uint64 // tasks aborted
}

// A Counter is a value of Stats with the name open-iscsi gives it.
type Counter struct {
	Name  string
	Value uint64
}

// SNMP returns the counters that open-iscsi prints under "iSCSI SNMP".
func (s *Stats) SNMP() []Counter {
	return []Counter{
		{"txdata_octets", s.TxDataOctets},
		{"rxdata_octets", s.RxDataOctets},
		{"noptx_pdus", s.NopTxPDUs},
		{"scsicmd_pdus", s.SCSICmdPDUs},
		{"tmfcmd_pdus", s.TMFCmdPDUs},
		{"login_pdus", s.LoginPDUs},
		{"text_pdus", s.TextPDUs},
		{"dataout_pdus", s.DataOutPDUs},
		{"logout_pdus", s.LogoutPDUs},
		{"snack_pdus", s.SNACKPDUs},
		{"noprx_pdus", s.NopRxPDUs},
		{"scsirsp_pdus", s.SCSIRspPDUs},
		{"tmfrsp_pdus", s.TMFRspPDUs},
		{"textrsp_pdus", s.TextRspPDUs},
		{"datain_pdus", s.DataInPDUs},
		{"logoutrsp_pdus", s.LogoutRspPDUs},
		{"r2t_pdus", s.R2TPDUs},
		{"async_pdus", s.AsyncPDUs},
		{"rjt_pdus", s.RejectPDUs},
		{"digest_err", s.DigestErrors},
		{"timeout_err", s.TimeoutErrors},
	}
}

// Extended returns the counters that open-iscsi prints under "iSCSI Extended".
func (s *Stats) Extended() []Counter {
	return []Counter{
		{"tx_sendpage_failures", s.TxSendpageFailures},
		{"rx_discontiguous_hdr", s.RxDiscontiguousHdr},
		{"eh_abort_cnt", s.EHAborts},
	}
}
