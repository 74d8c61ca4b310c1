package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/initiator"
)

var (
	session = []string{"sid", "target"}
	lun     = []string{"sid", "target", "lun", "device"}
	perOp   = append(lun[:len(lun):len(lun)], "op")
)

// descs are all metrics of the collector.
var descs []*prometheus.Desc

func desc(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc(name, help, labels, nil)
	descs = append(descs, d)
	return d
}

func with(labels []string, more ...string) []string {
	return append(labels[:len(labels):len(labels)], more...)
}

var (
	buildInfo = desc("iscsi_build_info", "Always 1; the label tells the release of iscsid.", "version")

	sessionInfo = desc("iscsi_session_info", "Always 1; the labels describe the session as it is now.",
		with(session, "portal", "iface", "initiator", "header_digest", "data_digest")...)
	sessionUp             = desc("iscsi_session_up", "Whether the session is logged in.", session...)
	sessionStart          = desc("iscsi_session_start_time_seconds", "When the session was made, in seconds since 1970.", session...)
	sessionRecoveries     = desc("iscsi_session_recoveries_total", "How often the connection was lost and made again.", session...)
	sessionConnRecoveries = desc("iscsi_session_connection_recoveries_total", "How often one connection was lost and made good while the session went on.", session...)
	sessionDigestErrors   = desc("iscsi_session_digest_errors_total", "PDUs whose header or data digest was wrong.", session...)
	sessionTimeouts       = desc("iscsi_session_timeouts_total", "Pings and commands that were not answered in time.", session...)
	sessionAborts         = desc("iscsi_session_aborts_total", "Commands that were aborted.", session...)
	sessionRejects        = desc("iscsi_session_rejects_total", "PDUs that the target rejected.", session...)
	sessionSent           = desc("iscsi_session_sent_bytes_total", "Bytes sent in PDUs, headers included.", session...)
	sessionReceived       = desc("iscsi_session_received_bytes_total", "Bytes received in PDUs, headers included.", session...)
	sessionPDUs           = desc("iscsi_session_pdus_total", "PDUs by kind.", with(session, "direction", "pdu")...)
	sessionOutstanding    = desc("iscsi_session_outstanding_commands", "Commands that are waiting to be sent or with the target.", session...)

	lunInfo = desc("iscsi_lun_info", "Always 1; the labels describe the logical unit as it is now.",
		with(session, "lun", "device", "path", "wwid", "vendor", "model", "attach")...)
	lunSize       = desc("iscsi_lun_size_bytes", "Size of the disk.", with(session, "lun")...)
	lunPending    = desc("iscsi_lun_pending_requests", "Requests that are submitted and not finished.", lun...)
	lunInFlight   = desc("iscsi_lun_in_flight_commands", "Commands for requests that are with the target.", lun...)
	lunQueueDepth = desc("iscsi_lun_queue_depth", "How many commands may be with the target; less than configured while it is full.", lun...)
	lunRetries    = desc("iscsi_lun_retries_total", "Commands sent again because the device was busy, full or not ready.", lun...)
	lunErrors     = desc("iscsi_lun_request_errors_total", "Requests that failed.", perOp...)
	lunBytes      = desc("iscsi_lun_request_bytes_total", "Bytes of requests that succeeded.", perOp...)
	lunLatency    = desc("iscsi_lun_request_duration_seconds", "Requests by the time they took, from the kernel's request to its answer.", perOp...)
)

// bounds are those of the histogram in nanoseconds.
var bounds = func() []uint64 {
	b := make([]uint64, initiator.LatencyBuckets)
	for i := range b {
		b[i] = uint64(initiator.LatencyBound(i))
	}
	return b
}()

// pdus are the kinds of PDUs that are counted.
var pdus = []struct {
	direction, name string
	of              func(*control.Stats) uint64
}{
	{"sent", "nop_out", func(s *control.Stats) uint64 { return s.NOPTx }},
	{"sent", "scsi_command", func(s *control.Stats) uint64 { return s.SCSICmd }},
	{"sent", "task_management", func(s *control.Stats) uint64 { return s.TMFCmd }},
	{"sent", "login", func(s *control.Stats) uint64 { return s.Login }},
	{"sent", "text", func(s *control.Stats) uint64 { return s.Text }},
	{"sent", "data_out", func(s *control.Stats) uint64 { return s.DataOut }},
	{"sent", "logout", func(s *control.Stats) uint64 { return s.Logout }},
	{"received", "nop_in", func(s *control.Stats) uint64 { return s.NOPRx }},
	{"received", "scsi_response", func(s *control.Stats) uint64 { return s.SCSIRsp }},
	{"received", "task_management", func(s *control.Stats) uint64 { return s.TMFRsp }},
	{"received", "text", func(s *control.Stats) uint64 { return s.TextRsp }},
	{"received", "data_in", func(s *control.Stats) uint64 { return s.DataIn }},
	{"received", "logout", func(s *control.Stats) uint64 { return s.LogoutRs }},
	{"received", "r2t", func(s *control.Stats) uint64 { return s.R2T }},
	{"received", "async_message", func(s *control.Stats) uint64 { return s.Async }},
	{"received", "reject", func(s *control.Stats) uint64 { return s.Reject }},
}
