package manager

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
)

// A Record is a node record: open-iscsi's names of fields ("node.name",
// "node.session.timeo.replacement_timeout") and their values. Fields that are
// left out have their defaults. It hides its passwords wherever it is printed or
// logged; JSON has them, as that is how they reach the daemon.
type Record map[string]string

// String returns the fields in order of their names, without the passwords.
func (r Record) String() string {
	var b strings.Builder
	b.WriteByte('{')
	for i, k := range slices.Sorted(maps.Keys(r)) {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(k + ":" + r.shown(k))
	}
	b.WriteByte('}')
	return b.String()
}

// shown returns the value of a field, or what stands for a secret.
func (r Record) shown(name string) string {
	if strings.HasSuffix(name, "password") || strings.HasSuffix(name, "password_in") {
		return initiator.Secret(r[name]).String()
	}
	return r[name]
}

// Format implements fmt.Formatter for every verb.
func (r Record) Format(f fmt.State, _ rune) {
	io.WriteString(f, r.String()) //nolint:errcheck // fmt keeps no errors
}

// LogValue implements slog.LogValuer.
func (r Record) LogValue() slog.Value { return slog.StringValue(r.String()) }

// NewRecord returns the node record that says the same as t, for one of its
// portals. What a record has no field for is left out: functions, the Logger,
// the options of the volume, digest and length parameters left at their zero
// value.
func NewRecord(t initiator.Target, at initiator.Portal) Record {
	c := t.Config(at)
	r := Record{
		"node.name":             c.Target,
		"node.conn[0].address":  c.Portal.Host,
		"node.conn[0].port":     strconv.Itoa(portalOf(at).Port),
		"iface.iscsi_ifacename": ifaceName(t),
		"iface.transport_name":  "tcp",
	}
	set := func(name, value string) {
		if value != "" {
			r[name] = value
		}
	}
	number := func(name string, n int) {
		if n != 0 {
			r[name] = strconv.Itoa(n)
		}
	}
	seconds := func(name string, d time.Duration) {
		switch {
		case d == initiator.Immediately:
			r[name] = "0"
		case d < 0:
			r[name] = "-1"
		case d != 0:
			r[name] = strconv.Itoa(int((d + time.Second - 1) / time.Second))
		}
	}
	set("iface.initiatorname", c.InitiatorName)
	set("iface.net_ifacename", c.TCP.NetIface)
	if c.TCP.LocalAddr.IsValid() {
		set("iface.ipaddress", c.TCP.LocalAddr.String())
	}
	if c.CHAP.Password != "" {
		const auth = "node.session.auth."
		set(auth+"authmethod", "CHAP")
		set(auth+"username", c.CHAP.Username)
		set(auth+"password", c.CHAP.Password.Reveal())
		set(auth+"username_in", c.CHAP.UsernameIn)
		set(auth+"password_in", c.CHAP.PasswordIn.Reveal())
		set(auth+"chap_algs", join(c.CHAP.Algorithms))
	}
	const conn = "node.conn[0]."
	set(conn+"iscsi.HeaderDigest", join(c.Params.HeaderDigest))
	set(conn+"iscsi.DataDigest", join(c.Params.DataDigest))
	number(conn+"iscsi.MaxRecvDataSegmentLength", c.Params.MaxRecvDataSegmentLength)
	number("node.session.iscsi.MaxBurstLength", c.Params.MaxBurstLength)
	number("node.session.iscsi.FirstBurstLength", c.Params.FirstBurstLength)
	number(conn+"tcp.window_size", c.TCP.WindowSize)
	number("node.session.cmds_max", c.CmdsMax)
	number("node.session.queue_depth", c.QueueDepth)
	number("node.session.reopen_max", c.ReopenMax)
	seconds(conn+"timeo.login_timeout", c.Timeouts.Login)
	seconds(conn+"timeo.auth_timeout", c.Timeouts.Auth)
	seconds(conn+"timeo.logout_timeout", c.Timeouts.Logout)
	seconds(conn+"timeo.noop_out_interval", c.Timeouts.NoopInterval)
	seconds(conn+"timeo.noop_out_timeout", c.Timeouts.NoopTimeout)
	seconds("node.session.timeo.replacement_timeout", c.Timeouts.Replacement)
	seconds("node.session.err_timeo.abort_timeout", c.Timeouts.Abort)
	seconds("node.session.err_timeo.lu_reset_timeout", c.Timeouts.LUReset)
	seconds("node.session.err_timeo.tgt_reset_timeout", c.Timeouts.TargetReset)
	return r
}

func join[T fmt.Stringer](list []T) string {
	text := make([]string, len(list))
	for i, v := range list {
		text[i] = v.String()
	}
	return strings.Join(text, ",")
}

// ifaceName is the name of the interface record that t stands for.
func ifaceName(t initiator.Target) string {
	if t.NetIface != "" {
		return t.NetIface
	}
	return "default"
}

func portalOf(p initiator.Portal) Portal {
	port := int(p.Port)
	if port == 0 {
		port = initiator.DefaultPort
	}
	return Portal{Address: p.Host, Port: port}
}
