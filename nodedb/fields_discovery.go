package nodedb

// Names of the fields of a discovery record. Records of an iSNS server use the
// sendtargets names for address and port, as open-iscsi's do, and the CHAP
// algorithms of a discovery have the name of a node's ([FieldCHAPAlgs]).
const (
	FieldDiscStartup           = "discovery.startup"
	FieldDiscType              = "discovery.type"
	FieldDiscAddress           = "discovery.sendtargets.address"
	FieldDiscPort              = "discovery.sendtargets.port"
	FieldDiscAuthMethod        = "discovery.sendtargets.auth.authmethod"
	FieldDiscUsername          = "discovery.sendtargets.auth.username"
	FieldDiscPassword          = "discovery.sendtargets.auth.password"
	FieldDiscUsernameIn        = "discovery.sendtargets.auth.username_in"
	FieldDiscPasswordIn        = "discovery.sendtargets.auth.password_in"
	FieldDiscLoginTimeout      = "discovery.sendtargets.timeo.login_timeout"
	FieldDiscUseDiscoveryd     = "discovery.sendtargets.use_discoveryd"
	FieldDiscPollInterval      = "discovery.sendtargets.discoveryd_poll_inval"
	FieldDiscReopenMax         = "discovery.sendtargets.reopen_max"
	FieldDiscAuthTimeout       = "discovery.sendtargets.timeo.auth_timeout"
	FieldDiscActiveTimeout     = "discovery.sendtargets.timeo.active_timeout"
	FieldDiscMaxRecvDataLength = "discovery.sendtargets.iscsi.MaxRecvDataSegmentLength"
	FieldISNSUseDiscoveryd     = "discovery.isns.use_discoveryd"
	FieldISNSPollInterval      = "discovery.isns.discoveryd_poll_inval"
)

var (
	sendTargetsTable = newTable(discoveryHead("sendtargets", "3260"), sendTargetsFields())
	isnsTable        = newTable(discoveryHead("isns", "3205"), isnsFields())
)

// discoveryTable returns the fields of a discovery type's records, or nil when
// the type has none.
func discoveryTable(t DiscoveryType) *table {
	switch t {
	case SendTargets:
		return sendTargetsTable
	case ISNS:
		return isnsTable
	}
	return nil
}

func discoveryHead(kind, port string) []Field {
	return []Field{
		{Name: FieldDiscStartup, Kind: KindEnum, Values: []string{"manual", "automatic"}, Default: "manual", Doc: "kept, not used"},
		{Name: FieldDiscType, Kind: KindEnum, Values: []string{"sendtargets", "isns", "offload_send_targets", "static", "fw"}, Default: kind, ReadOnly: true, Doc: "how targets are discovered"},
		{Name: FieldDiscAddress, ReadOnly: true, Doc: "host name or address that is asked, without brackets"},
		{Name: FieldDiscPort, Kind: KindInt, Default: port, ReadOnly: true, Doc: "TCP port that is asked"},
	}
}

func sendTargetsFields() []Field {
	return []Field{
		{Name: FieldDiscAuthMethod, Kind: KindEnum, Values: authWords(), Default: "None", Doc: "kept for show: CHAP is used when a password is set"},
		{Name: FieldDiscUsername, Doc: "name by which the initiator authenticates itself"},
		{Name: FieldDiscPassword, Kind: KindSecret, Doc: "secret by which the initiator authenticates itself"},
		{Name: FieldDiscUsernameIn, Doc: "name that the target must authenticate itself by"},
		{Name: FieldDiscPasswordIn, Kind: KindSecret, Doc: "secret that the target must authenticate itself by"},
		{Name: FieldCHAPAlgs, Kind: KindList, Values: chapWords(), Default: "MD5", Doc: "CHAP digests to offer, best first"},
		{Name: FieldDiscLoginTimeout, Kind: KindInt, Default: "15", Doc: "seconds to wait for one login"},
		{Name: FieldDiscUseDiscoveryd, Kind: KindBool, Default: "No", Doc: "the daemon repeats the discovery by itself"},
		{Name: FieldDiscPollInterval, Kind: KindInt, Default: "30", Doc: "seconds between two discoveries by the daemon"},
		{Name: FieldDiscReopenMax, Kind: KindInt, Default: "5", Doc: "how often a failed discovery is tried again"},
		{Name: FieldDiscAuthTimeout, Kind: KindInt, Default: "45", Doc: "seconds to wait for a PDU of the security phase"},
		{Name: FieldDiscActiveTimeout, Kind: KindInt, Default: "30", Doc: "seconds to wait for the list of targets"},
		{Name: FieldDiscMaxRecvDataLength, Kind: KindInt, Default: "32768", Doc: "key MaxRecvDataSegmentLength (RFC 7143 section 13.12), 512 to 16777215 bytes"},
	}
}

func isnsFields() []Field {
	return []Field{
		{Name: FieldISNSUseDiscoveryd, Kind: KindBool, Default: "No", Doc: "the daemon repeats the discovery by itself"},
		{Name: FieldISNSPollInterval, Kind: KindInt, Default: "-1", Doc: "seconds between two discoveries by the daemon; -1 waits for the server's notice"},
	}
}
