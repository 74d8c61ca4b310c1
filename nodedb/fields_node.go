package nodedb

// Names of the fields of a node record.
const (
	FieldName         = "node.name"
	FieldTPGT         = "node.tpgt"
	FieldStartup      = "node.startup"
	FieldLeadingLogin = "node.leading_login"

	FieldDiscoveryAddress = "node.discovery_address"
	FieldDiscoveryPort    = "node.discovery_port"
	FieldDiscoveryType    = "node.discovery_type"

	FieldInitialCmdSN         = "node.session.initial_cmdsn"
	FieldInitialLoginRetryMax = "node.session.initial_login_retry_max"
	FieldXmitThreadPriority   = "node.session.xmit_thread_priority"
	FieldCmdsMax              = "node.session.cmds_max"
	FieldQueueDepth           = "node.session.queue_depth"
	FieldNrSessions           = "node.session.nr_sessions"
	FieldAuthMethod           = "node.session.auth.authmethod"
	FieldUsername             = "node.session.auth.username"
	FieldPassword             = "node.session.auth.password"
	FieldUsernameIn           = "node.session.auth.username_in"
	FieldPasswordIn           = "node.session.auth.password_in"
	FieldCHAPAlgs             = "node.session.auth.chap_algs"
	FieldReplacementTimeout   = "node.session.timeo.replacement_timeout"
	FieldAbortTimeout         = "node.session.err_timeo.abort_timeout"
	FieldLUResetTimeout       = "node.session.err_timeo.lu_reset_timeout"
	FieldTgtResetTimeout      = "node.session.err_timeo.tgt_reset_timeout"
	FieldHostResetTimeout     = "node.session.err_timeo.host_reset_timeout"
	FieldFastAbort            = "node.session.iscsi.FastAbort"
	FieldInitialR2T           = "node.session.iscsi.InitialR2T"
	FieldImmediateData        = "node.session.iscsi.ImmediateData"
	FieldFirstBurstLength     = "node.session.iscsi.FirstBurstLength"
	FieldMaxBurstLength       = "node.session.iscsi.MaxBurstLength"
	FieldDefaultTime2Retain   = "node.session.iscsi.DefaultTime2Retain"
	FieldDefaultTime2Wait     = "node.session.iscsi.DefaultTime2Wait"
	FieldMaxConnections       = "node.session.iscsi.MaxConnections"
	FieldMaxOutstandingR2T    = "node.session.iscsi.MaxOutstandingR2T"
	FieldERL                  = "node.session.iscsi.ERL"
	FieldScan                 = "node.session.scan"
	FieldReopenMax            = "node.session.reopen_max"
	FieldReopenLogFreq        = "node.session.sess_reopen_log_freq"
	FieldAttach               = "node.session.attach"

	FieldAddress                  = "node.conn[0].address"
	FieldPort                     = "node.conn[0].port"
	FieldConnStartup              = "node.conn[0].startup"
	FieldTCPWindowSize            = "node.conn[0].tcp.window_size"
	FieldTCPTypeOfService         = "node.conn[0].tcp.type_of_service"
	FieldTCPCongestion            = "node.conn[0].tcp.congestion_control"
	FieldLogoutTimeout            = "node.conn[0].timeo.logout_timeout"
	FieldLoginTimeout             = "node.conn[0].timeo.login_timeout"
	FieldAuthTimeout              = "node.conn[0].timeo.auth_timeout"
	FieldNoopOutInterval          = "node.conn[0].timeo.noop_out_interval"
	FieldNoopOutTimeout           = "node.conn[0].timeo.noop_out_timeout"
	FieldMaxXmitDataSegmentLength = "node.conn[0].iscsi.MaxXmitDataSegmentLength"
	FieldMaxRecvDataSegmentLength = "node.conn[0].iscsi.MaxRecvDataSegmentLength"
	FieldHeaderDigest             = "node.conn[0].iscsi.HeaderDigest"
	FieldDataDigest               = "node.conn[0].iscsi.DataDigest"
	FieldIFMarker                 = "node.conn[0].iscsi.IFMarker"
	FieldOFMarker                 = "node.conn[0].iscsi.OFMarker"
)

var nodeTable = newTable(nodeHead(), ifaceFields(), nodeSession(), nodeConn())

func startupWords() []string { return []string{"manual", "automatic", "onboot"} }

func authWords() []string { return []string{"None", "CHAP"} }

func chapWords() []string { return []string{"MD5", "SHA1", "SHA256", "SHA3-256"} }

func digestWords() []string { return []string{"None", "CRC32C", "CRC32C,None", "None,CRC32C"} }

// nodeHead holds what stands before the interface in a node record.
func nodeHead() []Field {
	return []Field{
		{Name: FieldName, ReadOnly: true, Doc: "name of the target"},
		{Name: FieldTPGT, Kind: KindInt, Default: "-1", ReadOnly: true, Doc: "target portal group tag; -1 when not known"},
		{Name: FieldStartup, Kind: KindEnum, Values: startupWords(), Default: "manual", Doc: "who logs in: a person, the daemon when it starts, or the boot loader"},
		{Name: FieldLeadingLogin, Kind: KindBool, Default: "No", Doc: "one login per target is enough: --loginall stops at the first interface that works"},
	}
}

func nodeSession() []Field {
	return []Field{
		{Name: FieldDiscoveryAddress, ReadOnly: true, Doc: "address of the discovery that found the node"},
		{Name: FieldDiscoveryPort, Kind: KindInt, ReadOnly: true, Doc: "port of the discovery that found the node"},
		{Name: FieldDiscoveryType, Kind: KindEnum, Values: []string{"send_targets", "isns", "offload_send_targets", "static", "fw"}, Default: "static", ReadOnly: true, Doc: "how the node was found"},

		{Name: FieldInitialCmdSN, Kind: KindInt, Doc: "first command sequence number"},
		{Name: FieldInitialLoginRetryMax, Kind: KindInt, Default: "4", Doc: "how often the first login is tried; times login_timeout it is how long"},
		{Name: FieldXmitThreadPriority, Kind: KindInt, Default: "-20", Doc: "nice value of the kernel's send thread; kept, not used"},
		{Name: FieldCmdsMax, Kind: KindInt, Default: "128", Doc: "commands in flight per session, 2 to 2048"},
		{Name: FieldQueueDepth, Kind: KindInt, Default: "32", Doc: "commands in flight per logical unit, 1 to 1024"},
		{Name: FieldNrSessions, Kind: KindInt, Default: "1", Doc: "sessions that one login makes"},
		{Name: FieldAuthMethod, Kind: KindEnum, Values: authWords(), Default: "None", Doc: "kept for show: CHAP is used when a password is set"},
		{Name: FieldUsername, Doc: "name by which the initiator authenticates itself"},
		{Name: FieldPassword, Kind: KindSecret, Doc: "secret by which the initiator authenticates itself"},
		{Name: FieldUsernameIn, Doc: "name that the target must authenticate itself by"},
		{Name: FieldPasswordIn, Kind: KindSecret, Doc: "secret that the target must authenticate itself by"},
		{Name: FieldCHAPAlgs, Kind: KindList, Values: chapWords(), Default: "MD5", Doc: "CHAP digests to offer, best first"},
		{Name: FieldReplacementTimeout, Kind: KindInt, Default: "120", Doc: "seconds that I/O waits for a lost session to come back; 0 fails at once, less than 0 waits for ever"},
		{Name: FieldAbortTimeout, Kind: KindInt, Default: "15", Doc: "seconds to wait for ABORT TASK"},
		{Name: FieldLUResetTimeout, Kind: KindInt, Default: "30", Doc: "seconds to wait for LOGICAL UNIT RESET"},
		{Name: FieldTgtResetTimeout, Kind: KindInt, Default: "30", Doc: "seconds to wait for TARGET RESET"},
		{Name: FieldHostResetTimeout, Kind: KindInt, Default: "60", Doc: "seconds to wait for a dropped session to come back after errors"},
		{Name: FieldFastAbort, Kind: KindBool, Default: "Yes", Doc: "send no more Data-Out for a task that is being aborted"},
		{Name: FieldInitialR2T, Kind: KindBool, Default: "No", Doc: "key InitialR2T (RFC 7143 section 13.10)"},
		{Name: FieldImmediateData, Kind: KindBool, Default: "Yes", Doc: "key ImmediateData (RFC 7143 section 13.11)"},
		{Name: FieldFirstBurstLength, Kind: KindInt, Default: "262144", Doc: "key FirstBurstLength (RFC 7143 section 13.14), 512 to 16777215 bytes"},
		{Name: FieldMaxBurstLength, Kind: KindInt, Default: "16776192", Doc: "key MaxBurstLength (RFC 7143 section 13.13), 512 to 16777215 bytes"},
		{Name: FieldDefaultTime2Retain, Kind: KindInt, Doc: "key DefaultTime2Retain (RFC 7143 section 13.16), seconds; 0 is 20 with node.session.iscsi.ERL 2"},
		{Name: FieldDefaultTime2Wait, Kind: KindInt, Default: "2", Doc: "key DefaultTime2Wait (RFC 7143 section 13.15), seconds"},
		{Name: FieldMaxConnections, Kind: KindInt, Default: "1", Doc: "key MaxConnections (RFC 7143 section 13.2): how many connections the session shall have, 1 to 32; the session goes on when one is lost, and gets it back"},
		{Name: FieldMaxOutstandingR2T, Kind: KindInt, Default: "1", Doc: "key MaxOutstandingR2T (RFC 7143 section 13.17)"},
		{Name: FieldERL, Kind: KindInt, Doc: "key ErrorRecoveryLevel (RFC 7143 section 13.20): 0, 1 to have damaged PDUs sent again, or 2 to have commands go on after the loss of their connection (not with LIO, whose kernel may crash)"},
		{Name: FieldScan, Kind: KindEnum, Values: []string{"manual", "auto"}, Default: "auto", Doc: "whether a login attaches the logical units that it finds"},
		{Name: FieldReopenMax, Kind: KindInt, Doc: "attempts to bring a lost session back; 0 never gives up"},
		{Name: FieldReopenLogFreq, Kind: KindInt, Default: "1", Quiet: true, Doc: "log every n-th failed attempt to bring a session back (open-iscsi 2.1.11)"},
		{Name: FieldAttach, Kind: KindEnum, Values: []string{"auto", "nbd", "socket", "none"}, Default: "auto", Quiet: true, Own: true, Doc: "how disks are offered: kernel nbd device, NBD export on a unix socket, not at all; auto takes nbd where the kernel has it"},
	}
}

func nodeConn() []Field {
	return []Field{
		{Name: FieldAddress, ReadOnly: true, Doc: "host name or address of the portal, without brackets"},
		{Name: FieldPort, Kind: KindInt, Default: "3260", ReadOnly: true, Doc: "TCP port of the portal"},
		{Name: FieldConnStartup, Kind: KindEnum, Values: startupWords(), Default: "manual", Doc: "as node.startup; either of the two makes a node match --loginall"},
		{Name: FieldTCPWindowSize, Kind: KindInt, Default: "524288", Doc: "send buffer in bytes, and receive buffer where it cannot grow to more by itself; 0 leaves both to the system"},
		{Name: FieldTCPTypeOfService, Kind: KindInt, Doc: "kept, not used"},
		{Name: FieldTCPCongestion, Quiet: true, Doc: "TCP congestion control algorithm (open-iscsi 2.1.12)"},
		{Name: FieldLogoutTimeout, Kind: KindInt, Default: "15", Doc: "seconds to wait for a logout response"},
		{Name: FieldLoginTimeout, Kind: KindInt, Default: "30", Doc: "seconds to wait for one login"},
		{Name: FieldAuthTimeout, Kind: KindInt, Default: "45", Doc: "seconds to wait for a PDU of the security phase"},
		{Name: FieldNoopOutInterval, Kind: KindInt, Default: "5", Doc: "seconds of silence before the target is pinged; 0 never"},
		{Name: FieldNoopOutTimeout, Kind: KindInt, Default: "5", Doc: "seconds to wait for the answer to a ping before the connection counts as lost"},
		{Name: FieldMaxXmitDataSegmentLength, Kind: KindInt, Doc: "limit on what is sent in one PDU, in bytes; 0 takes the target's"},
		{Name: FieldMaxRecvDataSegmentLength, Kind: KindInt, Default: "262144", Doc: "key MaxRecvDataSegmentLength (RFC 7143 section 13.12), 512 to 16777215 bytes"},
		{Name: FieldHeaderDigest, Kind: KindEnum, Values: digestWords(), Default: "None", Doc: "key HeaderDigest (RFC 7143 section 13.1), best first"},
		{Name: FieldDataDigest, Kind: KindEnum, Values: digestWords(), Default: "None", Doc: "key DataDigest (RFC 7143 section 13.1), best first"},
		{Name: FieldIFMarker, Kind: KindBool, Default: "No", Doc: "kept; markers are obsolete (RFC 7143 section 13.25)"},
		{Name: FieldOFMarker, Kind: KindBool, Default: "No", Doc: "kept; markers are obsolete (RFC 7143 section 13.25)"},
	}
}
