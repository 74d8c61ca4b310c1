package manager

// Stats are the counters of a session since its login, with the names that
// open-iscsi prints. Octets count whole PDUs.
type Stats struct {
	TxDataOctets uint64 `json:"txdata_octets"`
	RxDataOctets uint64 `json:"rxdata_octets"`

	NOPTx    uint64 `json:"noptx_pdus"`
	SCSICmd  uint64 `json:"scsicmd_pdus"`
	TMFCmd   uint64 `json:"tmfcmd_pdus"`
	Login    uint64 `json:"login_pdus"`
	Text     uint64 `json:"text_pdus"`
	DataOut  uint64 `json:"dataout_pdus"`
	Logout   uint64 `json:"logout_pdus"`
	SNACK    uint64 `json:"snack_pdus"`
	NOPRx    uint64 `json:"noprx_pdus"`
	SCSIRsp  uint64 `json:"scsirsp_pdus"`
	TMFRsp   uint64 `json:"tmfrsp_pdus"`
	TextRsp  uint64 `json:"textrsp_pdus"`
	DataIn   uint64 `json:"datain_pdus"`
	LogoutRs uint64 `json:"logoutrsp_pdus"`
	R2T      uint64 `json:"r2t_pdus"`
	Async    uint64 `json:"async_pdus"`
	Reject   uint64 `json:"rjt_pdus"`

	DigestErr  uint64 `json:"digest_err"`
	TimeoutErr uint64 `json:"timeout_err"`

	// The kernel's extended counters. The first two belong to its TCP driver
	// and stay 0 in user space.
	TxSendpageFailures  uint64 `json:"tx_sendpage_failures"`
	RxDiscontiguousHdr  uint64 `json:"rx_discontiguous_hdr"`
	EHAbort             uint64 `json:"eh_abort_cnt"`
	Recoveries          uint64 `json:"recoveries"`
	OutstandingCommands uint64 `json:"outstanding_commands"`
}
