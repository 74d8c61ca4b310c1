package nodedb

// Names of the interface fields that matter to a session over TCP.
const (
	FieldIfaceName      = "iface.iscsi_ifacename"
	FieldIfaceNet       = "iface.net_ifacename"
	FieldIfaceAddress   = "iface.ipaddress"
	FieldIfaceHWAddress = "iface.hwaddress"
	FieldIfaceTransport = "iface.transport_name"
	FieldIfaceInitiator = "iface.initiatorname"
)

// ifaceTable: all but the first few fields belong to cards that do iSCSI by
// themselves. They mean nothing here, but tools compare whole dumps and keep
// records of such cards in the same files.
var ifaceTable = newTable(ifaceFields())

func ifaceFields() []Field {
	return []Field{
		{Name: FieldIfaceName, ReadOnly: true, Doc: "name of the interface record"},
		{Name: FieldIfaceNet, Doc: "network interface that connections are bound to (SO_BINDTODEVICE)"},
		{Name: FieldIfaceAddress, Doc: "local address that connections are bound to"},
		{Name: "iface.prefix_len", Kind: KindUint8, Doc: "length of the address's prefix"},
		{Name: FieldIfaceHWAddress, Doc: "MAC address of the network interface to bind to"},
		{Name: FieldIfaceTransport, Default: "tcp", Doc: "transport; only tcp can log in"},
		{Name: FieldIfaceInitiator, Doc: "initiator name used instead of the system's"},
		{Name: "iface.state"},
		{Name: "iface.vlan_id", Kind: KindUint16},
		{Name: "iface.vlan_priority", Kind: KindUint8},
		{Name: "iface.vlan_state"},
		{Name: "iface.iface_num", Kind: KindUint32},
		{Name: "iface.mtu", Kind: KindUint16},
		{Name: "iface.port", Kind: KindUint16},

		{Name: "iface.bootproto", family: ipv4Only},
		{Name: "iface.subnet_mask", family: ipv4Only},
		{Name: "iface.gateway", family: ipv4Only},
		{Name: "iface.dhcp_alt_client_id_state", family: ipv4Only},
		{Name: "iface.dhcp_alt_client_id", family: ipv4Only},
		{Name: "iface.dhcp_dns", family: ipv4Only},
		{Name: "iface.dhcp_learn_iqn", family: ipv4Only},
		{Name: "iface.dhcp_req_vendor_id_state", family: ipv4Only},
		{Name: "iface.dhcp_vendor_id_state", family: ipv4Only},
		{Name: "iface.dhcp_vendor_id", family: ipv4Only},
		{Name: "iface.dhcp_slp_da", family: ipv4Only},
		{Name: "iface.fragmentation", family: ipv4Only},
		{Name: "iface.gratuitous_arp", family: ipv4Only},
		{Name: "iface.incoming_forwarding", family: ipv4Only},
		{Name: "iface.tos_state", family: ipv4Only},
		{Name: "iface.tos", Kind: KindUint8, family: ipv4Only},
		{Name: "iface.ttl", Kind: KindUint8, family: ipv4Only},

		{Name: "iface.ipv6_autocfg", family: ipv6Only},
		{Name: "iface.linklocal_autocfg", family: ipv6Only},
		{Name: "iface.router_autocfg", family: ipv6Only},
		{Name: "iface.ipv6_linklocal", family: ipv6Only},
		{Name: "iface.ipv6_router", family: ipv6Only},
		{Name: "iface.dup_addr_detect_cnt", Kind: KindUint8, family: ipv6Only},
		{Name: "iface.flow_label", Kind: KindUint32, family: ipv6Only},
		{Name: "iface.gratuitous_neighbor_adv", family: ipv6Only},
		{Name: "iface.hop_limit", Kind: KindUint8, family: ipv6Only},
		{Name: "iface.mld", family: ipv6Only},
		{Name: "iface.nd_reachable_tmo", Kind: KindUint32, family: ipv6Only},
		{Name: "iface.nd_rexmit_time", Kind: KindUint32, family: ipv6Only},
		{Name: "iface.nd_stale_tmo", Kind: KindUint32, family: ipv6Only},
		{Name: "iface.router_adv_link_mtu", Kind: KindUint32, family: ipv6Only},
		{Name: "iface.traffic_class", Kind: KindUint8, family: ipv6Only},

		{Name: "iface.delayed_ack"},
		{Name: "iface.tcp_nagle"},
		{Name: "iface.tcp_wsf_state"},
		{Name: "iface.tcp_wsf", Kind: KindUint8},
		{Name: "iface.tcp_timer_scale", Kind: KindUint8},
		{Name: "iface.tcp_timestamp"},
		{Name: "iface.redirect"},
		{Name: "iface.def_task_mgmt_timeout", Kind: KindUint16},
		{Name: "iface.header_digest"},
		{Name: "iface.data_digest"},
		{Name: "iface.immediate_data"},
		{Name: "iface.initial_r2t"},
		{Name: "iface.data_seq_inorder"},
		{Name: "iface.data_pdu_inorder"},
		{Name: "iface.erl", Kind: KindUint8},
		{Name: "iface.max_receive_data_len", Kind: KindUint32},
		{Name: "iface.first_burst_len", Kind: KindUint32},
		{Name: "iface.max_outstanding_r2t", Kind: KindUint16},
		{Name: "iface.max_burst_len", Kind: KindUint32},
		{Name: "iface.chap_auth"},
		{Name: "iface.bidi_chap"},
		{Name: "iface.strict_login_compliance"},
		{Name: "iface.discovery_auth"},
		{Name: "iface.discovery_logout"},
	}
}
