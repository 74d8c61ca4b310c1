package compatsysfs

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
)

// moduleVersion is what the module scsi_transport_iscsi of the kernel calls
// itself; it has not changed since 2011.
const moduleVersion = "2.0-870"

// build makes the tree of a snapshot, without I/O. Names in it are made of
// numbers only, so that nothing that a target sends becomes a path.
func build(sessions []control.Session) *tree {
	t := newTree()
	// There without a session, too: a program globs in them.
	for _, class := range []string{"iscsi_connection", "iscsi_host", "iscsi_session", "iscsi_transport", "scsi_device", "scsi_disk", "scsi_host"} {
		t.dir("class/" + class)
	}
	t.dir("bus/scsi/devices")
	t.dir("bus/scsi/drivers/sd")
	t.dir("devices/platform")
	t.module()
	for i := range sessions {
		if sessions[i].Host >= 0 {
			t.session(&sessions[i])
		}
	}
	return t
}

// module is what says that there is an iSCSI driver.
func (t *tree) module() {
	t.dir("module/iscsi_tcp")
	t.dir("module/scsi_transport_iscsi").file("version", moduleVersion)
	const tcp = "devices/virtual/iscsi_transport/tcp"
	d := t.dir(tcp)
	d.uevent()
	d.files("caps", "0x39", "handle", "0")
	t.member(tcp, "class/iscsi_transport")
}

// member makes the directory at p a member of a class or bus.
func (t *tree) member(p, of string) {
	t.link(p+"/subsystem", of)
	if strings.HasPrefix(of, "bus/") {
		of += "/devices"
	}
	t.link(of+"/"+path.Base(p), p)
}

// session shows one session: its SCSI host, the iSCSI objects and the units.
func (t *tree) session(s *control.Session) {
	hostName := "host" + strconv.Itoa(s.Host)
	host := "devices/platform/" + hostName
	sess := host + "/session" + strconv.Itoa(s.SID)
	target := fmt.Sprintf("%s/target%d:0:0", sess, s.Host)

	t.dir(host).uevent("DEVTYPE=scsi_host")
	t.member(host, "bus/scsi")
	t.scsiHost(host, hostName, s)
	t.iscsiHost(host, hostName, s)
	t.dir(sess).uevent()
	t.iscsiSession(sess, s)
	t.iscsiConnection(sess, s)
	t.dir(target).uevent("DEVTYPE=scsi_target")
	t.member(target, "bus/scsi")
	for i := range s.Devices {
		t.device(target, s, &s.Devices[i])
	}
}

// object makes the directory of a class below the device that it belongs to,
// with the links that the kernel gives it.
func (t *tree) object(device, class, name string) *node {
	p := device + "/" + class + "/" + name
	d := t.dir(p)
	d.uevent()
	t.link(p+"/device", device)
	t.member(p, "class/"+class)
	return d
}

func (t *tree) scsiHost(host, name string, s *control.Session) {
	d := t.object(host, "scsi_host", name)
	state := "running"
	if s.HostState != "" {
		state = s.HostState
	}
	d.files(
		"proc_name", "iscsi_tcp", "state", state, "unique_id", strconv.Itoa(s.Host),
		"active_mode", "Initiator", "supported_mode", "Initiator",
	)
	d.trigger("scan", action{verb: verbScan, sid: s.SID})
}

func (t *tree) iscsiHost(host, name string, s *control.Session) {
	t.object(host, "iscsi_host", name).files(
		"initiatorname", orNull(s.Iface.InitiatorName),
		"ipaddress", orNull(s.LocalAddress),
		"netdev", orNull(s.Iface.NetIface),
		"hwaddress", orNull(s.Iface.HWAddress),
	)
}

func (t *tree) iscsiSession(sess string, s *control.Session) {
	d := t.object(sess, "iscsi_session", path.Base(sess))
	d.files(
		"targetname", s.Target,
		"tpgt", strconv.Itoa(s.TPGT),
		"state", s.SessionState,
		"ifacename", orNull(s.Iface.Name),
		"initiatorname", orNull(s.Iface.InitiatorName),
		"recovery_tmo", recoveryTime(s.Timeouts.Recovery),
		"abort_tmo", strconv.Itoa(s.Timeouts.Abort),
		"lu_reset_tmo", strconv.Itoa(s.Timeouts.LUNReset),
		"tgt_reset_tmo", strconv.Itoa(s.Timeouts.TargetReset),
		"target_id", "0",
		"target_state", "SCANNED",
	)
	chap := control.CHAP{}
	if s.CHAP != nil {
		chap = *s.CHAP
	}
	for name, v := range map[string]string{"username": chap.Username, "username_in": chap.UsernameIn} {
		d.children[name] = &node{kind: kindFile, perm: 0o400, text: orNull(v) + "\n"}
	}
	d.password("password", secret{"password", s.SID})
	d.password("password_in", secret{"password_in", s.SID})
	if n := s.Negotiated; n != nil {
		d.files(
			"initial_r2t", bit(n.InitialR2T), "immediate_data", bit(n.ImmediateData),
			"first_burst_len", strconv.Itoa(n.FirstBurstLength), "max_burst_len", strconv.Itoa(n.MaxBurstLength),
			"max_outstanding_r2t", strconv.Itoa(n.MaxOutstandingR2T), "erl", strconv.Itoa(n.ErrorRecoveryLevel),
			"data_pdu_in_order", "1", "data_seq_in_order", "1",
		)
	}
}

func (t *tree) iscsiConnection(sess string, s *control.Session) {
	name := fmt.Sprintf("connection%d:0", s.SID)
	dev := sess + "/" + name
	t.dir(dev).uevent()
	d := t.object(dev, "iscsi_connection", name)
	state := "failed"
	if s.ConnState == control.ConnLoggedIn {
		state = "up"
	}
	d.files(
		"address", s.Portal.Address, "port", strconv.Itoa(s.Portal.Port),
		"persistent_address", s.Persistent.Address, "persistent_port", strconv.Itoa(s.Persistent.Port),
		"local_ipaddr", orNull(s.LocalAddress), "state", state,
	)
	if n := s.Negotiated; n != nil {
		d.files(
			"header_digest", bit(digest(n.HeaderDigest)), "data_digest", bit(digest(n.DataDigest)),
			"max_recv_dlength", strconv.Itoa(n.MaxRecvDataSegmentLength), "max_xmit_dlength", strconv.Itoa(n.MaxXmitDataSegmentLength),
			"ifmarker", "0", "ofmarker", "0",
		)
	}
}

// recoveryTime is the kernel's recovery_tmo: it has "off" for never.
func recoveryTime(seconds int) string {
	if seconds < 0 {
		return "off"
	}
	return strconv.Itoa(seconds)
}

func digest(name string) bool { return name != "" && name != "None" }

func bit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}
