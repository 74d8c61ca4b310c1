package metrics

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/initiator/manager"
	"github.com/goiscsi/goiscsi/internal/version"
)

// Bounds of what scrapers may ask of a daemon that has disks to serve.
const (
	maxScrapes  = 4 // at a time
	scrapeLimit = 10 * time.Second
)

// Handler answers a scrape with the metrics of svc's sessions, of the Go runtime
// and of the process. log gets what goes wrong.
func Handler(svc control.Service, log *slog.Logger) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		NewCollector(svc),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
	})
}

// A collector asks the daemon at each scrape.
type collector struct{ svc control.Service }

// NewCollector returns a collector for the sessions of svc.
func NewCollector(svc control.Service) prometheus.Collector { return &collector{svc} }

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector. A session that ends in the meantime
// is left out.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeLimit)
	defer cancel()
	e := emitter{ch: ch}
	e.gauge(buildInfo, 1, version.Version)
	sessions, err := c.svc.Sessions(ctx, control.SessionQuery{})
	if err != nil {
		ch <- prometheus.NewInvalidMetric(sessionInfo, err)
		return
	}
	for i := range sessions {
		s := &sessions[i]
		st, err := c.svc.Stats(ctx, s.SID)
		if err != nil {
			continue
		}
		e.session(s, st)
	}
}

// An emitter makes metrics of what the daemon says.
type emitter struct{ ch chan<- prometheus.Metric }

func (e emitter) gauge(d *prometheus.Desc, v float64, labels ...string) {
	e.emit(d, prometheus.GaugeValue, v, labels)
}

func (e emitter) counter(d *prometheus.Desc, v uint64, labels ...string) {
	e.emit(d, prometheus.CounterValue, float64(v), labels)
}

func (e emitter) emit(d *prometheus.Desc, t prometheus.ValueType, v float64, labels []string) {
	m, err := prometheus.NewConstMetric(d, t, v, clean(labels)...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	e.ch <- m
}

// clean makes texts of targets, which may hold anything, fit for a label.
func clean(labels []string) []string {
	for i, l := range labels {
		labels[i] = strings.ToValidUTF8(l, "?")
	}
	return labels
}

func (e emitter) session(s *control.Session, st *control.Stats) {
	sid := strconv.Itoa(s.SID)
	portal := s.Portal.Address + ":" + strconv.Itoa(s.Portal.Port)
	if strings.Contains(s.Portal.Address, ":") {
		portal = "[" + s.Portal.Address + "]:" + strconv.Itoa(s.Portal.Port)
	}
	// The portal is no label of the counters: a redirection would make new
	// series of them. sid and target stay as long as the session.
	who := func(more ...string) []string { return append([]string{sid, s.Target}, more...) }

	var header, data string
	if n := s.Negotiated; n != nil {
		header, data = n.HeaderDigest, n.DataDigest
	}
	e.gauge(sessionInfo, 1, who(portal, s.Iface.Name, s.Iface.InitiatorName, header, data)...)
	up := 0.0
	if s.SessionState == control.SessionLoggedIn {
		up = 1
	}
	e.gauge(sessionUp, up, who()...)
	if !s.Created.IsZero() {
		e.gauge(sessionStart, float64(s.Created.UnixNano())/1e9, who()...)
	}
	e.counter(sessionRecoveries, st.Recoveries, who()...)
	e.counter(sessionConnRecoveries, st.ConnRecoveries, who()...)
	e.counter(sessionDigestErrors, st.DigestErr, who()...)
	e.counter(sessionTimeouts, st.TimeoutErr, who()...)
	e.counter(sessionAborts, st.EHAbort, who()...)
	e.counter(sessionRejects, st.Reject, who()...)
	e.counter(sessionSent, st.TxDataOctets, who()...)
	e.counter(sessionReceived, st.RxDataOctets, who()...)
	for _, p := range pdus {
		e.counter(sessionPDUs, p.of(st), who(p.direction, p.name)...)
	}
	e.gauge(sessionOutstanding, float64(st.OutstandingCommands), who()...)

	for i := range s.Devices {
		d := &s.Devices[i]
		lun := who(strconv.FormatUint(d.LUN, 10))
		e.gauge(lunInfo, 1, append(lun[:3:3], d.Name, d.Path, d.WWID, d.Vendor, d.Model, d.Attach)...)
		if d.Size > 0 {
			e.gauge(lunSize, float64(d.Size), lun[:3:3]...)
		}
	}
	for i := range st.LUNs {
		e.lun(&st.LUNs[i], who(strconv.FormatUint(st.LUNs[i].LUN, 10), st.LUNs[i].Name))
	}
}

func (e emitter) lun(l *control.LUNStats, who []string) {
	who = who[:len(who):len(who)]
	e.gauge(lunPending, float64(l.Pending), who...)
	e.gauge(lunInFlight, float64(l.InFlight), who...)
	e.gauge(lunQueueDepth, float64(l.QueueDepth), who...)
	e.counter(lunRetries, l.Retries, who...)
	for _, name := range manager.OpNames() {
		o, used := l.Ops[name]
		if !used && !always[name] {
			continue
		}
		op := append(who, name)
		e.counter(lunErrors, o.Errors, op...)
		e.counter(lunBytes, o.Bytes, op...)
		e.latency(&o, op)
	}
}

// always are the operations that have series before their first request, so
// that the first one shows as an increase. Of the others many disks have none.
var always = map[string]bool{"read": true, "write": true, "flush": true}

// latency emits the histogram, whose bins count what is within them, as one
// whose buckets count what is up to them.
func (e emitter) latency(o *control.OpStats, labels []string) {
	buckets := make(map[float64]uint64, len(bounds))
	sum, next := uint64(0), 0
	for _, ns := range bounds {
		for next < len(o.Latency) && o.Latency[next].Bound != 0 && o.Latency[next].Bound <= ns {
			sum += o.Latency[next].Count
			next++
		}
		buckets[float64(ns)/1e9] = sum
	}
	m, err := prometheus.NewConstHistogram(lunLatency, o.Requests, float64(o.Time)/1e9, buckets, clean(labels)...)
	if err != nil {
		m = prometheus.NewInvalidMetric(lunLatency, err)
	}
	e.ch <- m
}
