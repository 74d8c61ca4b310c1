package manager

// Stats are the counters of a session since its login, with the names that
// open-iscsi prints. Octets count whole PDUs.
type Stats struct {
	// Bytes sent and received.
	TxDataOctets uint64 `json:"txdata_octets"`
	RxDataOctets uint64 `json:"rxdata_octets"`

	// PDUs sent, and from NOPRx on received, by kind.
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

	// Digests that were wrong, and pings and tasks that were not answered in time.
	DigestErr  uint64 `json:"digest_err"`
	TimeoutErr uint64 `json:"timeout_err"`

	// The kernel's extended counters. The first two belong to its TCP driver
	// and stay 0 in user space.
	TxSendpageFailures  uint64 `json:"tx_sendpage_failures"`
	RxDiscontiguousHdr  uint64 `json:"rx_discontiguous_hdr"`
	EHAbort             uint64 `json:"eh_abort_cnt"`
	Recoveries          uint64 `json:"recoveries"`
	ConnRecoveries      uint64 `json:"connection_recoveries"` // of single connections, the session living on
	OutstandingCommands uint64 `json:"outstanding_commands"`

	// LUNs are the logical units that are offered as disks, by number. Theirs
	// count from when the disk was opened, which a restart of iscsid does anew.
	LUNs []LUNStats `json:"luns,omitempty"`
}

// LUNStats are the counters of one disk of a session.
type LUNStats struct {
	LUN  uint64 `json:"lun"`            // number of the logical unit
	Name string `json:"name,omitempty"` // as in Device
	Path string `json:"path,omitempty"` // as in Device
	// Pending is how many requests are submitted and not finished, InFlight, how
	// many commands for them are with the target, at most QueueDepth.
	Pending    int    `json:"pending"`
	InFlight   int    `json:"in_flight"`
	QueueDepth int    `json:"queue_depth"`
	Retries    uint64 `json:"retries"` // commands sent again
	// Ops are the counters by kind of request; one that has not been asked for
	// is left out.
	Ops map[string]OpStats `json:"ops"`
}

// OpNames returns the keys that LUNStats.Ops may have.
func OpNames() []string { return []string{"read", "write", "flush", "discard", "write_zeroes"} }

// OpStats are the counters of one kind of request.
type OpStats struct {
	Requests uint64 `json:"requests"` // finished
	Errors   uint64 `json:"errors"`   // of these, failed
	Bytes    uint64 `json:"bytes"`    // of those that did not fail
	Time     uint64 `json:"time_ns"`  // nanoseconds that all took together
	Latency  []Bin  `json:"latency"`  // how long they took; bins without requests are left out
}

// A Bin is a part of a histogram: requests that took longer than the bound of
// the bin before and not longer than Bound. The bounds are powers of two of a
// nanosecond.
type Bin struct {
	Bound uint64 `json:"le_ns"` // nanoseconds, 0 for the last bin, which has none
	Count uint64 `json:"count"` // requests
}
