package initiator

import (
	"github.com/goiscsi/goiscsi/pdu"
)

// A textExchange is what a discovery session says after its login: one text
// request, possibly continued, and a logout. One request is outstanding at a
// time. Used by one goroutine.
type textExchange struct {
	t         *transport
	tag       uint32
	cmdSN     uint32
	expStatSN uint32
	pdus      int
}

// sendTargets returns the text of the answer to SendTargets=All (RFC 7143
// sections 11.10 and 11.11).
func (x *textExchange) sendTargets() ([]byte, error) {
	x.tag++
	req := pdu.TextRequest{
		Final:             true,
		InitiatorTaskTag:  x.tag,
		TargetTransferTag: pdu.ReservedTag,
		Data:              pdu.AppendText(nil, pdu.KeyValue{Key: pdu.KeySendTargets, Value: "All"}),
	}
	var text []byte
	for {
		req.CmdSN, req.ExpStatSN = x.cmdSN, x.expStatSN
		x.cmdSN++
		if err := x.t.send(&req); err != nil {
			return nil, err
		}
		p, err := x.await(pdu.OpTextResponse)
		if err != nil {
			return nil, err
		}
		r := p.(*pdu.TextResponse)
		if r.InitiatorTaskTag != x.tag {
			return nil, protocolErrorf("text response with another task tag")
		}
		if len(text)+len(r.Data) > maxDiscoveryText {
			return nil, protocolErrorf("discovery text without end")
		}
		text = append(text, r.Data...)
		if r.Final && !r.Continue {
			return text, nil
		}
		if r.TargetTransferTag == pdu.ReservedTag {
			return nil, protocolErrorf("text response to be continued without a transfer tag")
		}
		// An empty request asks for the rest.
		req = pdu.TextRequest{
			Final:             !r.Continue,
			LUN:               r.LUN,
			InitiatorTaskTag:  x.tag,
			TargetTransferTag: r.TargetTransferTag,
		}
	}
}

// logout ends the session.
func (x *textExchange) logout() error {
	x.tag++
	err := x.t.send(&pdu.LogoutRequest{
		Immediate:        true,
		Reason:           pdu.LogoutSession,
		InitiatorTaskTag: x.tag,
		CmdSN:            x.cmdSN,
		ExpStatSN:        x.expStatSN,
	})
	if err != nil {
		return err
	}
	_, err = x.await(pdu.OpLogoutResponse)
	return err
}

// await reads PDUs until one with the opcode comes, and deals with what the
// target may send in between: pings and asynchronous messages. The data of the
// result are valid until the next call.
func (x *textExchange) await(want pdu.Opcode) (pdu.PDU, error) {
	for {
		if x.pdus++; x.pdus > maxDiscoveryPDUs {
			return nil, protocolErrorf("discovery without end")
		}
		h, err := x.t.next()
		if err != nil {
			return nil, err
		}
		data, err := x.t.r.Data()
		if err != nil {
			return nil, readError(err)
		}
		p, err := pdu.Parse(h, data)
		if err != nil {
			return nil, withKind(ErrProtocol, err)
		}
		if nop, ok := p.(*pdu.NOPIn); !ok {
			x.expStatSN = h.StatSN() + 1
		} else if err := x.pong(nop); err != nil {
			return nil, err
		}
		switch p := p.(type) {
		case *pdu.NOPIn:
		case *pdu.AsyncMessage:
			if p.Event == pdu.AsyncConnectionDrop || p.Event == pdu.AsyncSessionDrop {
				return nil, &dropError{text: "the target announced a " + p.Event.String()}
			}
		case *pdu.Reject:
			return nil, withKind(ErrProtocol, &RejectError{Reason: p.Reason})
		default:
			if p.Opcode() != want {
				return nil, protocolErrorf("%s in a discovery session", p.Opcode())
			}
			return p, nil
		}
	}
}

// pong answers a ping of the target.
func (x *textExchange) pong(p *pdu.NOPIn) error {
	if p.TargetTransferTag == pdu.ReservedTag {
		return nil
	}
	return x.t.send(&pdu.NOPOut{
		Immediate:         true,
		LUN:               p.LUN,
		InitiatorTaskTag:  pdu.ReservedTag,
		TargetTransferTag: p.TargetTransferTag,
		CmdSN:             x.cmdSN,
		ExpStatSN:         x.expStatSN,
	})
}
