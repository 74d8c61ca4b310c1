package daemon

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/nodedb"
)

func metricsConf(t *testing.T, text string) *nodedb.Config {
	t.Helper()
	c, err := nodedb.ParseConfig(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNothingListensOnANetworkUnasked(t *testing.T) {
	for _, conf := range []*nodedb.Config{metricsConf(t, ""), metricsConf(t, string(nodedb.ShippedConfig()))} {
		if l, err := listenMetrics(conf); l != nil || err != nil {
			t.Errorf("%v, %v", l, err)
		}
	}
}

func TestMetricsAddress(t *testing.T) {
	for _, tt := range []struct {
		conf string
		want string // part of the error, "" for none
	}{
		{"iscsid.metrics_address = 127.0.0.1:0", ""},
		{"iscsid.metrics_address = [::ffff:127.0.0.1]:0", ""},
		{"iscsid.metrics_address = 0.0.0.0:0", "metrics_remote"},
		{"iscsid.metrics_address = [::]:0", "metrics_remote"},
		{"iscsid.metrics_address = 192.0.2.1:9860", "metrics_remote"},
		{"iscsid.metrics_address = 0.0.0.0:0\niscsid.metrics_remote = yes", "metrics_remote"},
		{"iscsid.metrics_address = 0.0.0.0:0\niscsid.metrics_remote = Yes", ""},
		{"iscsid.metrics_address = :9860", "want an IP address"},
		{"iscsid.metrics_address = localhost:9860", "want an IP address"},
		{"iscsid.metrics_address = 127.0.0.1", "want an IP address"},
	} {
		l, err := listenMetrics(metricsConf(t, tt.conf))
		if l != nil {
			l.Close()
		}
		switch {
		case tt.want == "" && (err != nil || l == nil):
			t.Errorf("%q: %v", tt.conf, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%q: %v, want an error about %s", tt.conf, err, tt.want)
		}
	}
}

func TestMetricsServerHasMetricsOnlyAndEndsWithItsContext(t *testing.T) {
	l, err := listenMetrics(metricsConf(t, "iscsid.metrics_address = 127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "numbers") })
		serveMetrics(ctx, l, h, slog.New(slog.DiscardHandler))
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, tt := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/metrics", 200},
		{"POST", "/metrics", 405},
		{"GET", "/v1/sessions", 404},
		{"POST", "/v1/shutdown", 404},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, "http://"+l.Addr().String()+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tt.status {
			t.Errorf("%s %s: status %d, want %d", tt.method, tt.path, resp.StatusCode, tt.status)
		}
	}
	cancel()
	<-ended
	if c, err := l.Accept(); err == nil {
		c.Close()
		t.Error("it still listens")
	}
}
