package metrics_test

import (
	"context"
	"encoding/json"
	"io/fs"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/cmd/internal/control/controltest"
	"github.com/goiscsi/goiscsi/cmd/internal/metrics"
	"github.com/goiscsi/goiscsi/internal/packaging"
)

const target = "iqn.2016-01-com.example.tg1"

// daemon has one session with a disk and a controller.
func daemon(t *testing.T) *controltest.Daemon {
	t.Helper()
	d := &controltest.Daemon{
		Name: "iqn.2016-01-com.example:me",
		Connect: func(_ context.Context, s *control.Session, _ map[string]string) error {
			s.SessionState = control.SessionLoggedIn
			s.Negotiated = &control.Negotiated{HeaderDigest: "CRC32C", DataDigest: "None"}
			s.Devices = []control.Device{
				{LUN: 0, Type: "controller", Vendor: "\xff\"\n", Attach: control.AttachNone},
				{LUN: 1, Type: "disk", Name: "nbd0", Path: "/dev/nbd0", WWID: "naa.6001", Size: 1 << 20, Attach: control.AttachNBD},
			}
			return nil
		},
		Counters: func(*control.Session) control.Stats {
			return control.Stats{
				TxDataOctets: 3804, RxDataOctets: 17240, DigestErr: 2, TimeoutErr: 3, Recoveries: 4, ConnRecoveries: 9, EHAbort: 5, Reject: 6, OutstandingCommands: 7, R2T: 8,
				LUNs: []control.LUNStats{{
					LUN: 1, Name: "nbd0", Path: "/dev/nbd0", Pending: 3, InFlight: 2, QueueDepth: 32, Retries: 1,
					Ops: map[string]control.OpStats{
						"read": {Requests: 10, Errors: 1, Bytes: 36864, Time: 5e9, Latency: []control.Bin{{Bound: 1 << 14, Count: 4}, {Bound: 1 << 20, Count: 5}, {Count: 1}}},
					},
				}},
			}
		},
	}
	if _, err := d.Login(t.Context(), &control.LoginRequest{Record: map[string]string{
		"node.name": target, "node.conn[0].address": "2001:db8::1", "node.conn[0].port": "3260", "iface.iscsi_ifacename": "default",
	}}); err != nil {
		t.Fatal(err)
	}
	return d
}

func scrape(t *testing.T, d control.Service) string {
	t.Helper()
	w := httptest.NewRecorder()
	metrics.Handler(d, slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("status %d\n%s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestScrape(t *testing.T) {
	out := scrape(t, daemon(t))
	s := `{sid="1",target="` + target + `"`
	lun := strings.TrimPrefix(s, "{")
	for _, want := range []string{
		`iscsi_session_info{data_digest="None",header_digest="CRC32C",iface="default",initiator="iqn.2016-01-com.example:me",portal="[2001:db8::1]:3260",` + lun + `} 1`,
		`iscsi_session_up` + s + `} 1`,
		`iscsi_session_sent_bytes_total` + s + `} 3804`,
		`iscsi_session_received_bytes_total` + s + `} 17240`,
		`iscsi_session_digest_errors_total` + s + `} 2`,
		`iscsi_session_timeouts_total` + s + `} 3`,
		`iscsi_session_recoveries_total` + s + `} 4`,
		`iscsi_session_connection_recoveries_total` + s + `} 9`,
		`iscsi_session_aborts_total` + s + `} 5`,
		`iscsi_session_rejects_total` + s + `} 6`,
		`iscsi_session_outstanding_commands` + s + `} 7`,
		`iscsi_session_pdus_total{direction="received",pdu="r2t",` + lun + `} 8`,
		`iscsi_lun_info{attach="nbd",device="nbd0",lun="1",model="",path="/dev/nbd0",` + lun + `,vendor="",wwid="naa.6001"} 1`,
		`iscsi_lun_info{attach="none",device="",lun="0",model="",path="",` + lun + `,vendor="?\"\n",wwid=""} 1`,
		`iscsi_lun_size_bytes{lun="1",` + lun + `} 1.048576e+06`,
		`iscsi_lun_pending_requests{device="nbd0",lun="1",` + lun + `} 3`,
		`iscsi_lun_in_flight_commands{device="nbd0",lun="1",` + lun + `} 2`,
		`iscsi_lun_queue_depth{device="nbd0",lun="1",` + lun + `} 32`,
		`iscsi_lun_retries_total{device="nbd0",lun="1",` + lun + `} 1`,
		`iscsi_lun_request_errors_total{device="nbd0",lun="1",op="read",` + lun + `} 1`,
		`iscsi_lun_request_bytes_total{device="nbd0",lun="1",op="read",` + lun + `} 36864`,
		`iscsi_lun_request_bytes_total{device="nbd0",lun="1",op="write",` + lun + `} 0`,
		`iscsi_lun_request_duration_seconds_count{device="nbd0",lun="1",op="read",` + lun + `} 10`,
		`iscsi_lun_request_duration_seconds_sum{device="nbd0",lun="1",op="read",` + lun + `} 5`,
		// Buckets count what is up to them.
		`iscsi_lun_request_duration_seconds_bucket{device="nbd0",lun="1",op="read",` + lun + `,le="1.6384e-05"} 4`,
		`iscsi_lun_request_duration_seconds_bucket{device="nbd0",lun="1",op="read",` + lun + `,le="0.000524288"} 4`,
		`iscsi_lun_request_duration_seconds_bucket{device="nbd0",lun="1",op="read",` + lun + `,le="0.001048576"} 9`,
		`iscsi_lun_request_duration_seconds_bucket{device="nbd0",lun="1",op="read",` + lun + `,le="17.179869184"} 9`,
		`iscsi_lun_request_duration_seconds_bucket{device="nbd0",lun="1",op="read",` + lun + `,le="+Inf"} 10`,
		`go_goroutines `,
		`process_resident_memory_bytes `,
	} {
		if !strings.Contains(out, "\n"+want) {
			t.Errorf("no line %s", want)
		}
	}
	if strings.Contains(out, `op="discard"`) {
		t.Error("an operation that was not asked for has series")
	}
	if t.Failed() {
		t.Log(out)
	}
}

func TestLint(t *testing.T) {
	problems, err := testutil.CollectAndLint(metrics.NewCollector(daemon(t)))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// A gone daemon has sessions that end between the list and their counters.
type gone struct{ *controltest.Daemon }

func (gone) Stats(context.Context, int) (*control.Stats, error) {
	return nil, control.NewError(2, "")
}

func TestSessionThatEndsIsLeftOut(t *testing.T) {
	out := scrape(t, gone{daemon(t)})
	if strings.Contains(out, "iscsi_session_") || !strings.Contains(out, "iscsi_build_info") {
		t.Errorf("got\n%s", out)
	}
}

// names returns the metrics that are exported.
func names(t *testing.T) []string {
	t.Helper()
	ch := make(chan *prometheus.Desc, 100)
	metrics.NewCollector(daemon(t)).Describe(ch)
	close(ch)
	var all []string
	for d := range ch {
		all = append(all, regexp.MustCompile(`fqName: "([^"]*)"`).FindStringSubmatch(d.String())[1])
	}
	if len(all) < 20 {
		t.Fatalf("%d metrics", len(all))
	}
	return all
}

var metricName = regexp.MustCompile(`\biscsi_(?:build|session|lun)_[a-z_]+`)

func TestDashboardNamesMetricsThatExist(t *testing.T) {
	b, err := fs.ReadFile(packaging.Files, "grafana/goiscsi.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
	}
	if err := json.Unmarshal(b, &dashboard); err != nil {
		t.Fatal(err)
	}
	known := names(t)
	check := func(where, expr string) int {
		found := metricName.FindAllString(expr, -1)
		for _, name := range found {
			base := name
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				base = strings.TrimSuffix(base, suffix)
			}
			if !slices.Contains(known, base) {
				t.Errorf("%s: there is no metric %s", where, name)
			}
		}
		return len(found)
	}
	for _, p := range dashboard.Panels {
		if len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			if check("panel "+p.Title, target.Expr) == 0 && !strings.HasPrefix(target.Expr, "process_") {
				t.Errorf("panel %q: no metric of ours in %s", p.Title, target.Expr)
			}
		}
	}
	for _, v := range dashboard.Templating.List {
		if v.Definition != "" && check("variable "+v.Name, v.Definition) == 0 {
			t.Errorf("variable %q: no metric in %s", v.Name, v.Definition)
		}
	}
}

func TestDocumentHasEachMetric(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "observability.md"))
	if err != nil {
		t.Fatal(err)
	}
	known := names(t)
	for _, name := range known {
		if !strings.Contains(string(b), "| `"+name+"` |") {
			t.Errorf("docs/observability.md has no row for %s", name)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `(iscsi_[a-z_]+)` \\|").FindAllStringSubmatch(string(b), -1) {
		if !slices.Contains(known, m[1]) {
			t.Errorf("docs/observability.md has a row for %s, which there is not", m[1])
		}
	}
}
