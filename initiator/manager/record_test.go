package manager_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/manager"
)

func TestNewRecordHasOpenISCSIsNames(t *testing.T) {
	got := manager.NewRecord(initiator.Target{
		Name: "iqn.a", InitiatorName: "iqn.me", NetIface: "eth1",
		CHAP: initiator.CHAP{Username: "u", Password: "p", Algorithms: []initiator.CHAPAlgorithm{initiator.CHAPSHA256, initiator.CHAPMD5}},
		Session: initiator.Config{
			CmdsMax:  64,
			Params:   initiator.Params{HeaderDigest: []initiator.Digest{initiator.DigestCRC32C, initiator.DigestNone}},
			Timeouts: initiator.Timeouts{Replacement: initiator.Immediately, Login: 1500 * time.Millisecond, Abort: -1},
		},
	}, initiator.Portal{Host: "2001:db8::1"})
	want := manager.Record{
		"node.name": "iqn.a", "node.conn[0].address": "2001:db8::1", "node.conn[0].port": "3260",
		"iface.iscsi_ifacename": "eth1", "iface.net_ifacename": "eth1", "iface.transport_name": "tcp", "iface.initiatorname": "iqn.me",
		"node.session.auth.authmethod": "CHAP", "node.session.auth.username": "u", "node.session.auth.password": "p",
		"node.session.auth.chap_algs": "SHA256,MD5", "node.session.cmds_max": "64", "node.conn[0].iscsi.HeaderDigest": "CRC32C,None",
		"node.session.timeo.replacement_timeout": "0", "node.conn[0].timeo.login_timeout": "2", "node.session.err_timeo.abort_timeout": "-1",
	}
	if diff := cmp.Diff(map[string]string(want), map[string]string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestSecretsAreHidden(t *testing.T) {
	r := manager.Record{"node.session.auth.password": "hush", "node.session.auth.password_in": "hush", "node.name": "iqn.a"}
	chap := manager.CHAP{Username: "u", Password: "hush"}
	for _, v := range []any{r, manager.LoginRequest{Record: r}, &manager.LoginRequest{Record: r}, chap, &chap, manager.Session{Record: r, CHAP: &chap}} {
		var log strings.Builder
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		for _, text := range []string{fmt.Sprint(v), fmt.Sprintf("%+v", v), fmt.Sprintf("%#v", v), fmt.Sprintf("%q", v), log.String()} {
			if strings.Contains(text, "hush") {
				t.Errorf("%T: %s", v, text)
			}
		}
	}
	b, err := json.Marshal(manager.LoginRequest{Record: r})
	if err != nil || !strings.Contains(string(b), `"hush"`) {
		t.Errorf("the daemon would not get the password: %s, %v", b, err)
	}
}
