package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/goiscsi/goiscsi/nodedb"
)

// listenMetrics listens where iscsid.conf says that Prometheus is to be
// answered, nil if it does not say. An address that other machines can reach is
// refused unless iscsid.metrics_remote is Yes.
func listenMetrics(conf *nodedb.Config) (net.Listener, error) {
	text, ok := conf.Lookup(nodedb.ConfMetricsAddress)
	if !ok || text == "" {
		return nil, nil
	}
	at, err := netip.ParseAddrPort(text)
	if err != nil {
		return nil, fmt.Errorf("%s: want an IP address and a port: %w", nodedb.ConfMetricsAddress, err)
	}
	if remote, _ := conf.Lookup(nodedb.ConfMetricsRemote); remote != "Yes" && !at.Addr().Unmap().IsLoopback() {
		return nil, fmt.Errorf("%s = %s: other machines can reach it, which takes %s = Yes", nodedb.ConfMetricsAddress, at, nodedb.ConfMetricsRemote)
	}
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", nodedb.ConfMetricsAddress, err)
	}
	return l, nil
}

// Limits of a scraper's connection.
const (
	scrapeHeaderTime = 5 * time.Second
	scrapeWriteTime  = 30 * time.Second
	scrapeIdleTime   = 2 * time.Minute
	scrapeHeaderSize = 8 << 10
)

// serveMetrics answers GET /metrics and nothing else on l until ctx ends. It
// closes l. Connections that are answered then are cut off.
func serveMetrics(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", h)
	srv := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: scrapeHeaderTime,
		ReadTimeout:       scrapeHeaderTime,
		WriteTimeout:      scrapeWriteTime,
		IdleTimeout:       scrapeIdleTime,
		MaxHeaderBytes:    scrapeHeaderSize,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() }) //nolint:errcheck // nobody to tell
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		log.Error("Prometheus is not answered any more", "address", l.Addr(), "err", err)
	}
}
