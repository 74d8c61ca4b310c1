package daemon

import (
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/internal/errcode"
)

func settingsOf(t *testing.T, set ...string) (*settings, string, error) {
	t.Helper()
	var log strings.Builder
	s, err := readSettings(testRecord(set...), identity{name: "iqn.2024-01.com.example:host", alias: "host"}, slog.New(newLineHandler(&log, slog.LevelDebug)))
	return s, log.String(), err
}

func TestRecordWithDefaults(t *testing.T) {
	s, log, err := settingsOf(t)
	if err != nil || log != "" {
		t.Fatal(err, log)
	}
	s.config.Logger, s.config.OnEvent = nil, nil
	want := initiator.Config{
		InitiatorName: "iqn.2024-01.com.example:host", InitiatorAlias: "host", Target: testTarget,
		Portal: initiator.Portal{Host: "192.0.2.1", Port: 3260, TPGT: 1},
		Params: initiator.Params{
			FirstBurstLength: 262144, MaxBurstLength: 16776192, MaxRecvDataSegmentLength: 262144,
			MaxOutstandingR2T: 1, MaxConnections: 1, DefaultTime2Wait: 2 * time.Second,
		},
		Timeouts: initiator.Timeouts{
			Login: 30 * time.Second, Auth: 45 * time.Second, Logout: 15 * time.Second, NoopInterval: 5 * time.Second, NoopTimeout: 5 * time.Second,
			Replacement: 120 * time.Second, Abort: 15 * time.Second, LUReset: 30 * time.Second, TargetReset: 30 * time.Second,
		},
		LoginRetryWindow: 120 * time.Second, CmdsMax: 128, QueueDepth: 32, TCP: initiator.TCP{WindowSize: 524288},
	}
	want.Params.DefaultTime2Retain = s.config.Params.DefaultTime2Retain
	if d := cmp.Diff(want, s.config, cmp.Comparer(func(a, b initiator.TCP) bool { return a == b })); d != "" {
		t.Error(d)
	}
	if !s.scan || s.attach != attachAuto || s.key != (sessionKey{testTarget, "192.0.2.1", 3260, "default"}) {
		t.Errorf("%+v", s)
	}
}

func TestRecordFields(t *testing.T) {
	const timeo, session, conn = "node.conn[0].timeo.", "node.session.iscsi.", "node.conn[0].iscsi."
	for _, tc := range []struct {
		name string
		set  []string
		log  string
		ok   func(*settings) bool
	}{
		{
			"first burst above max burst",
			[]string{session + "FirstBurstLength", "131972", session + "MaxBurstLength", "4096"},
			"FirstBurstLength is above",
			func(s *settings) bool {
				return s.config.Params.FirstBurstLength == 4096 && s.config.Params.MaxBurstLength == 4096
			},
		},
		{
			"length out of range",
			[]string{conn + "MaxRecvDataSegmentLength", "100"},
			"Invalid iscsi.MaxRecvDataSegmentLength of 100. Must be within 512 and 16777215. Setting to 262144",
			func(s *settings) bool { return s.config.Params.MaxRecvDataSegmentLength == 262144 },
		},
		{"length is rounded down", []string{session + "FirstBurstLength", "131974"}, "", func(s *settings) bool { return s.config.Params.FirstBurstLength == 131972 }},
		{"xmit length 0 is the target's", []string{conn + "MaxXmitDataSegmentLength", "0"}, "", func(s *settings) bool { return s.config.Params.MaxXmitDataSegmentLength == 0 }},
		{
			"only noop interval is 0",
			[]string{timeo + "noop_out_interval", "0", timeo + "noop_out_timeout", "7"},
			"only one of noop_out",
			func(s *settings) bool {
				return s.config.Timeouts.NoopInterval == 5*time.Second && s.config.Timeouts.NoopTimeout == 7*time.Second
			},
		},
		{
			"both noop times are 0",
			[]string{timeo + "noop_out_interval", "0", timeo + "noop_out_timeout", "0"},
			"",
			func(s *settings) bool { return s.config.Timeouts.NoopInterval < 0 && s.config.Timeouts.NoopTimeout < 0 },
		},
		{
			"replacement 0 fails at once",
			[]string{"node.session.timeo.replacement_timeout", "0"},
			"",
			func(s *settings) bool { return s.config.Timeouts.Replacement == initiator.Immediately },
		},
		{
			"replacement below 0 never fails",
			[]string{"node.session.timeo.replacement_timeout", "-1"},
			"",
			func(s *settings) bool { return s.config.Timeouts.Replacement < 0 && s.recoveryTimeout == -1 },
		},
		{"time2wait 0", []string{session + "DefaultTime2Wait", "0"}, "", func(s *settings) bool { return s.config.Params.DefaultTime2Wait == initiator.Immediately }},
		{
			"login budget",
			[]string{timeo + "login_timeout", "15", "node.session.initial_login_retry_max", "8"},
			"",
			func(s *settings) bool { return s.config.LoginRetryWindow == 120*time.Second },
		},
		{
			"login budget beyond reason",
			[]string{timeo + "login_timeout", "2147483647", "node.session.initial_login_retry_max", "2147483647"},
			"nearest",
			func(s *settings) bool { return s.config.LoginRetryWindow == maxRetryWindow },
		},
		{"login timeout 0 is the default", []string{timeo + "login_timeout", "0"}, "", func(s *settings) bool { return s.config.Timeouts.Login == 30*time.Second }},
		{
			"password decides about CHAP",
			[]string{"node.session.auth.authmethod", "None", "node.session.auth.username", "u", "node.session.auth.password", "p"},
			"CHAP is used",
			func(s *settings) bool { return s.config.CHAP.Username == "u" && s.config.CHAP.Password == "p" },
		},
		{
			"user names alone are no CHAP",
			[]string{"node.session.auth.authmethod", "CHAP", "node.session.auth.username_in", "u"},
			"no authentication takes place",
			func(s *settings) bool { return s.config.CHAP.Password == "" && s.config.CHAP.UsernameIn == "" },
		},
		{
			"CHAP algorithms",
			[]string{"node.session.auth.password", "p", "node.session.auth.chap_algs", "SHA3-256,BOGUS,MD5,MD5"},
			"Ignoring unknown value 'BOGUS' for 'node.session.auth.chap_algs'",
			func(s *settings) bool {
				return slices.Equal(s.config.CHAP.Algorithms, []initiator.CHAPAlgorithm{initiator.CHAPSHA3256, initiator.CHAPMD5})
			},
		},
		{
			"digests in order",
			[]string{conn + "HeaderDigest", "CRC32C,None"},
			"",
			func(s *settings) bool {
				return slices.Equal(s.config.Params.HeaderDigest, []initiator.Digest{initiator.DigestCRC32C, initiator.DigestNone})
			},
		},
		{"number that is none", []string{"node.session.cmds_max", "many"}, "the default is used", func(s *settings) bool { return s.config.CmdsMax == 128 }},
		{"boolean that is none", []string{session + "ImmediateData", "yes"}, "the default is used", func(s *settings) bool { return !s.config.Params.NoImmediateData }},
		{"initiator name of the interface", []string{"iface.initiatorname", "iqn.2024-01.com.example:if0"}, "", func(s *settings) bool { return s.config.InitiatorName == "iqn.2024-01.com.example:if0" }},
		{"network interface", []string{"iface.net_ifacename", "eth7"}, "", func(s *settings) bool { return s.config.TCP.NetIface == "eth7" }},
		{"source address", []string{"iface.ipaddress", "192.0.2.9"}, "", func(s *settings) bool { return s.config.TCP.LocalAddr.String() == "192.0.2.9" }},
		{"IPv6 portal in brackets", []string{"node.conn[0].address", "[2001:db8::1]"}, "", func(s *settings) bool { return s.config.Portal.Host == "2001:db8::1" && s.key.Address == "2001:db8::1" }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, log, err := settingsOf(t, tc.set...)
			if err != nil {
				t.Fatal(err)
			}
			if !tc.ok(s) {
				t.Errorf("%+v", s.config)
			}
			if (tc.log == "") != (log == "") || !strings.Contains(log, tc.log) {
				t.Errorf("log %q, want %q", log, tc.log)
			}
		})
	}
}

func TestInterfaceByHardwareAddress(t *testing.T) {
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if len(i.HardwareAddr) == 0 {
			continue
		}
		s, _, err := settingsOf(t, "iface.hwaddress", strings.ToUpper(i.HardwareAddr.String()))
		if err != nil || s.config.TCP.NetIface == "" {
			t.Errorf("%s: %v", i.HardwareAddr, err)
		}
	}
}

func TestNoInitiatorName(t *testing.T) {
	_, err := readSettings(testRecord(), identity{}, slog.New(slog.DiscardHandler))
	wantCode(t, err, errcode.Login)
}

func TestLogLinesAreSingle(t *testing.T) {
	var b strings.Builder
	l := slog.New(newLineHandler(&b, slog.LevelInfo)).With("sid", 1).WithGroup("g")
	l.Info("target\nsays \x1b[31m", "text", "a \"b\"\n", slog.Group("x", "y", 1))
	l.Debug("not this")
	if want := "iscsid: target?says ?[31m sid=1 g.text=\"a \\\"b\\\"?\" g.x.y=1\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}
