package daemon

import (
	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/manager"
)

// stats are the counters of the session and its disks, all 0 before the first
// login. Reading them waits for no request.
func (s *supervisor) stats() *control.Stats {
	s.mu.Lock()
	live, devices, volumes := s.live, s.devices, s.volumes
	s.mu.Unlock()
	if live == nil {
		return &control.Stats{}
	}
	v := sessionStatsView(live.stats(), live.info())
	for i, vol := range volumes {
		if vol != nil {
			v.LUNs = append(v.LUNs, lunStatsView(&devices[i], vol.stats()))
		}
	}
	return v
}

func sessionStatsView(st initiator.Stats, i initiator.Info) *control.Stats {
	return &control.Stats{
		TxDataOctets: st.TxDataOctets, RxDataOctets: st.RxDataOctets,
		NOPTx: st.NopTxPDUs, SCSICmd: st.SCSICmdPDUs, TMFCmd: st.TMFCmdPDUs, Login: st.LoginPDUs, Text: st.TextPDUs,
		DataOut: st.DataOutPDUs, Logout: st.LogoutPDUs, SNACK: st.SNACKPDUs,
		NOPRx: st.NopRxPDUs, SCSIRsp: st.SCSIRspPDUs, TMFRsp: st.TMFRspPDUs, TextRsp: st.TextRspPDUs,
		DataIn: st.DataInPDUs, LogoutRs: st.LogoutRspPDUs, R2T: st.R2TPDUs, Async: st.AsyncPDUs, Reject: st.RejectPDUs,
		DigestErr: st.DigestErrors, TimeoutErr: st.TimeoutErrors,
		TxSendpageFailures: st.TxSendpageFailures, RxDiscontiguousHdr: st.RxDiscontiguousHdr, EHAbort: st.EHAborts,
		Recoveries: i.Recoveries, ConnRecoveries: i.ConnectionRecoveries, OutstandingCommands: uint64(max(i.Queued+i.InFlight, 0)),
	}
}

func lunStatsView(d *control.Device, st initiator.VolumeStats) control.LUNStats {
	v := control.LUNStats{
		LUN: d.LUN, Name: d.Name, Path: d.Path,
		Pending: st.Pending, InFlight: st.InFlight, QueueDepth: st.QueueDepth, Retries: st.Retries,
		Ops: make(map[string]control.OpStats),
	}
	for i, name := range manager.OpNames() { // in the order of the constants
		o := st.Op(initiator.OpRead + initiator.Op(i))
		if o.Requests == 0 {
			continue
		}
		out := control.OpStats{Requests: o.Requests, Errors: o.Errors, Bytes: o.Bytes, Time: uint64(o.Time), Latency: []control.Bin{}}
		for b, n := range o.Latency {
			if n == 0 {
				continue
			}
			bin := control.Bin{Count: n}
			if b < initiator.LatencyBuckets {
				bin.Bound = uint64(initiator.LatencyBound(b))
			}
			out.Latency = append(out.Latency, bin)
		}
		v.Ops[name] = out
	}
	return v
}
