package daemon

import (
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/pdu"
)

// A sessionKey is what makes two logins the same: the portal group tag is no
// part of it.
type sessionKey struct {
	Target, Address string
	Port            int
	Iface           string
}

// An attachKind says how the disks of a session are offered.
type attachKind string

const (
	attachAuto   attachKind = "auto"   // the kernel where it has nbd, else a socket
	attachNBD    attachKind = "nbd"    // a kernel block device
	attachSocket attachKind = "socket" // an NBD export on a unix socket
	attachNone   attachKind = "none"   // not at all
)

// Settings are what a node record means to the daemon.
type settings struct {
	key       sessionKey
	tpgt      int
	transport string
	netIface  string // as in the record, "" unbound
	hwAddress string
	attach    attachKind
	scan      bool // look for logical units at login
	config    initiator.Config
	// timeouts of open-iscsi that the listing shows, in seconds
	recoveryTimeout, abortTimeout, lunResetTimeout, targetResetTimeout int
}

// identity is what the initiatorname file says.
type identity struct{ name, alias string }

// readSettings converts a node record. who is used where the record names
// no initiator. An error has the code of the login that it refuses.
func readSettings(rec map[string]string, who identity, log *slog.Logger) (*settings, error) {
	r := record{m: rec, log: log}
	s := &settings{
		key: sessionKey{
			Target:  r.str("node.name"),
			Address: strings.TrimSuffix(strings.TrimPrefix(r.str("node.conn[0].address"), "["), "]"),
			Port:    r.int("node.conn[0].port", initiator.DefaultPort),
			Iface:   r.str("iface.iscsi_ifacename"),
		},
		tpgt:      r.int("node.tpgt", initiator.UnknownTPGT),
		transport: r.str("iface.transport_name"),
		netIface:  r.str("iface.net_ifacename"),
		hwAddress: r.str("iface.hwaddress"),
	}
	if err := pdu.ValidateName(s.key.Target); err != nil {
		return nil, refuse(errcode.Inval, "target name %q: %w", s.key.Target, err)
	}
	if err := validHost(s.key.Address); err != nil {
		return nil, refuse(errcode.Inval, "portal address: %w", err)
	}
	if s.key.Port < 1 || s.key.Port > 65535 {
		return nil, refuse(errcode.Inval, "port %d is not within 1 and 65535", s.key.Port)
	}
	if s.key.Iface == "" {
		s.key.Iface = "default"
	}
	if s.transport == "" {
		s.transport = "tcp"
	}
	if s.transport != "tcp" {
		return nil, refuse(errcode.TransNotFound, "transport %q: only tcp is there in user space", s.transport)
	}
	switch v := r.str("node.session.scan"); v {
	case "manual":
	case "auto", "":
		s.scan = true
	default:
		log.Warn("Invalid value in record, the default is used", "name", "node.session.scan", "value", v, "default", "auto")
		s.scan = true
	}
	switch v := attachKind(r.str("node.session.attach")); v {
	case attachAuto, attachNBD, attachSocket, attachNone:
		s.attach = v
	case "":
		s.attach = attachAuto
	default:
		return nil, refuse(errcode.Inval, "node.session.attach %q: want auto, nbd, socket or none", string(v))
	}

	c := &s.config
	c.Target = s.key.Target
	c.Portal = initiator.Portal{Host: s.key.Address, Port: uint16(s.key.Port), TPGT: s.tpgt}
	c.InitiatorName, c.InitiatorAlias = who.name, who.alias
	if v := r.str("iface.initiatorname"); v != "" {
		c.InitiatorName = v
	}
	if c.InitiatorName == "" {
		log.Error("No initiator name set. Cannot create session.")
		return nil, refuse(errcode.Login, "no initiator name: the initiatorname file has none and the record's interface neither")
	}
	readCHAP(r, c)
	readParams(r, c)
	readTimeouts(r, s)
	if err := readBinding(r, s); err != nil {
		return nil, err
	}
	return s, nil
}

// chapAlgorithms are the names that node.session.auth.chap_algs may have.
var chapAlgorithms = map[string]initiator.CHAPAlgorithm{
	"MD5": initiator.CHAPMD5, "SHA1": initiator.CHAPSHA1, "SHA256": initiator.CHAPSHA256, "SHA3-256": initiator.CHAPSHA3256,
}

// readCHAP: a password makes CHAP happen, whatever authmethod says.
func readCHAP(r record, c *initiator.Config) {
	const auth = "node.session.auth."
	password := r.str(auth + "password")
	in := r.str(auth + "password_in")
	if password == "" {
		if in != "" || r.str(auth+"username_in") != "" {
			r.log.Warn("the target's user name or password is set, but none of our own: no authentication takes place")
		}
		return
	}
	if r.str(auth+"authmethod") == "None" {
		r.log.Warn("node.session.auth.authmethod is None, but a password is set: CHAP is used")
	}
	c.CHAP.Username = r.str(auth + "username")
	c.CHAP.Password = initiator.Secret(password)
	c.CHAP.UsernameIn = r.str(auth + "username_in")
	c.CHAP.PasswordIn = initiator.Secret(in)
	for _, name := range r.list(auth+"chap_algs", func(v string) bool { _, ok := chapAlgorithms[v]; return ok }) {
		c.CHAP.Algorithms = append(c.CHAP.Algorithms, chapAlgorithms[name])
	}
}

func readParams(r record, c *initiator.Config) {
	const session, conn = "node.session.iscsi.", "node.conn[0].iscsi."
	p := &c.Params
	p.InitialR2T = r.bool(session+"InitialR2T", false)
	p.NoImmediateData = !r.bool(session+"ImmediateData", true)
	p.MaxBurstLength = r.length(session+"MaxBurstLength", "MaxBurstLength", 16776192)
	p.FirstBurstLength = r.length(session+"FirstBurstLength", "FirstBurstLength", 262144)
	if p.FirstBurstLength > p.MaxBurstLength {
		r.log.Warn("FirstBurstLength is above MaxBurstLength, which it must not exceed", "was", p.FirstBurstLength, "used", p.MaxBurstLength)
		p.FirstBurstLength = p.MaxBurstLength
	}
	p.MaxRecvDataSegmentLength = r.length(conn+"MaxRecvDataSegmentLength", "MaxRecvDataSegmentLength", 262144)
	if r.int(conn+"MaxXmitDataSegmentLength", 0) != 0 {
		p.MaxXmitDataSegmentLength = r.length(conn+"MaxXmitDataSegmentLength", "MaxXmitDataSegmentLength", 262144)
	}
	p.MaxOutstandingR2T = r.clamp(session+"MaxOutstandingR2T", 1, 1, 65535)
	p.DefaultTime2Wait = orNow(time.Duration(r.clamp(session+"DefaultTime2Wait", 2, 0, 3600)) * time.Second)
	p.DefaultTime2Retain = time.Duration(r.clamp(session+"DefaultTime2Retain", 0, 0, 3600)) * time.Second
	p.MaxConnections = r.clamp(session+"MaxConnections", 1, 1, 32)
	p.ErrorRecoveryLevel = r.clamp(session+"ERL", 0, 0, 2)
	p.HeaderDigest = readDigest(r, conn+"HeaderDigest")
	p.DataDigest = readDigest(r, conn+"DataDigest")
	c.CmdsMax = r.clamp("node.session.cmds_max", 128, 2, 2048)
	c.QueueDepth = r.clamp("node.session.queue_depth", 32, 1, 1024)
	c.InitialCmdSN = uint32(r.clamp("node.session.initial_cmdsn", 0, 0, 1<<31-1))
	c.ReopenMax = max(r.int("node.session.reopen_max", 0), 0)
	c.TCP.WindowSize = r.clamp("node.conn[0].tcp.window_size", 524288, 0, 1<<30)
}

func readDigest(r record, name string) []initiator.Digest {
	digests := map[string]initiator.Digest{"None": initiator.DigestNone, "CRC32C": initiator.DigestCRC32C}
	var out []initiator.Digest
	for _, v := range r.list(name, func(v string) bool { _, ok := digests[v]; return ok }) {
		out = append(out, digests[v])
	}
	return out
}

func readTimeouts(r record, s *settings) {
	const errTimeo, conn = "node.session.err_timeo.", "node.conn[0].timeo."
	s.recoveryTimeout = r.int("node.session.timeo.replacement_timeout", 120)
	s.abortTimeout = r.clamp(errTimeo+"abort_timeout", 15, 0, 86400)
	s.lunResetTimeout = r.clamp(errTimeo+"lu_reset_timeout", 30, 0, 86400)
	s.targetResetTimeout = r.clamp(errTimeo+"tgt_reset_timeout", 30, 0, 86400)

	t := &s.config.Timeouts
	t.Login = orDefault(r.seconds(conn+"login_timeout", 30), 30*time.Second)
	t.Auth = orDefault(r.seconds(conn+"auth_timeout", 45), 45*time.Second)
	t.Logout = orDefault(r.seconds(conn+"logout_timeout", 15), 15*time.Second)
	t.Replacement = orNow(time.Duration(s.recoveryTimeout) * time.Second)
	t.Abort = orNow(time.Duration(s.abortTimeout) * time.Second)
	t.LUReset = orNow(time.Duration(s.lunResetTimeout) * time.Second)
	t.TargetReset = orNow(time.Duration(s.targetResetTimeout) * time.Second)

	// NOPs are sent with both times or not at all.
	interval, timeout := r.seconds(conn+"noop_out_interval", 5), r.seconds(conn+"noop_out_timeout", 5)
	switch {
	case interval <= 0 && timeout <= 0:
		interval, timeout = -1, -1
	case interval <= 0 || timeout <= 0:
		r.log.Warn("only one of noop_out_interval and noop_out_timeout is 0, which means 5 seconds then")
		interval, timeout = orDefault(interval, 5*time.Second), orDefault(timeout, 5*time.Second)
	}
	t.NoopInterval, t.NoopTimeout = interval, timeout

	// The time that the first login may take in all, not a number of tries.
	retries := time.Duration(r.clamp("node.session.initial_login_retry_max", 4, 0, 1<<20))
	if s.config.LoginRetryWindow = retries * t.Login; retries > maxRetryWindow/t.Login {
		s.config.LoginRetryWindow = maxRetryWindow
	}
}

// maxRetryWindow stands for "for ever".
const maxRetryWindow = 100 * 365 * 24 * time.Hour

// orDefault returns def for what is not positive.
func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

// orNow makes an explicit zero what the initiator takes for one.
func orNow(d time.Duration) time.Duration {
	if d == 0 {
		return initiator.Immediately
	}
	return d
}

// readBinding finds the network interface and the source address.
func readBinding(r record, s *settings) error {
	dev := s.netIface
	if dev == "" && s.hwAddress != "" && s.hwAddress != "default" {
		var err error
		if dev, err = ifaceByHWAddress(s.hwAddress); err != nil {
			return err
		}
	}
	if dev != "default" {
		s.config.TCP.NetIface = dev
	}
	if v := r.str("iface.ipaddress"); v != "" {
		a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(v, "["), "]"))
		if err != nil {
			return refuse(errcode.Inval, "iface.ipaddress: %w", err)
		}
		if !a.IsUnspecified() {
			s.config.TCP.LocalAddr = a
		}
	}
	return nil
}

// ifaceByHWAddress returns the name of the network interface with the
// hardware address.
func ifaceByHWAddress(addr string) (string, error) {
	want, err := net.ParseMAC(addr)
	if err != nil {
		return "", refuse(errcode.Inval, "iface.hwaddress: %w", err)
	}
	all, err := net.Interfaces()
	if err != nil {
		return "", refuse(errcode.Internal, "network interfaces: %w", err)
	}
	for _, i := range all {
		if i.HardwareAddr.String() == want.String() {
			return i.Name, nil
		}
	}
	return "", refuse(errcode.Inval, "no network interface has the hardware address %s", addr)
}
