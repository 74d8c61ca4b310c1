// Package metrics exports the counters of iscsid to Prometheus.
//
// The counters are kept where things happen, by the library and the daemon, as
// atomic numbers. Nothing here is called for a request: a scrape asks the daemon's
// [control.Service] for its sessions and their counters, as iscsiadm does, and
// makes metrics of the answers. docs/observability.md lists them; a test holds it
// and the dashboard against this package.
//
// # Concurrency
//
// The handler may be called concurrently; it keeps no state between two scrapes.
package metrics
