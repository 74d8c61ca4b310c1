package iscsitest

import (
	"net"
	"slices"
	"strconv"

	"github.com/goiscsi/goiscsi/pdu"
)

// textExchange is a text negotiation in progress (RFC 7143 sections 11.10 and
// 11.11): either the initiator's text is incomplete, or our answer has not
// been sent to its end.
type textExchange struct {
	active  bool
	itt     uint32
	ttt     uint32
	request []byte
	answer  []byte
}

// maxTextAnswer bounds an answer in bytes: a request can ask for all targets
// many times.
const maxTextAnswer = 16 << 20

// textRequest handles a text request.
func (c *Conn) textRequest(h *pdu.Header, p *pdu.TextRequest) error {
	x := &c.text
	if p.InitiatorTaskTag == pdu.ReservedTag {
		c.violated(pdu.OpTextRequest, "initiator task tag is reserved (11.2.1.8)")
	}
	if p.TargetTransferTag == pdu.ReservedTag {
		if x.active {
			c.violated(pdu.OpTextRequest, "a text negotiation is outstanding already (11.10)")
		}
		*x = textExchange{active: true, itt: p.InitiatorTaskTag, ttt: c.nextTTT()}
	} else if !x.active || p.TargetTransferTag != x.ttt || p.InitiatorTaskTag != x.itt {
		c.violated(pdu.OpTextRequest, "target transfer tag %#x belongs to no negotiation (11.10.4)", p.TargetTransferTag)
		return c.reject(h, pdu.RejectInvalidField)
	}
	if len(x.answer) > 0 {
		if len(p.Data) > 0 {
			c.violated(pdu.OpTextRequest, "an unfinished response must be answered without text (11.10.4)")
		}
		return c.textSegment(p)
	}
	if len(x.request)+len(p.Data) > maxLoginText {
		*x = textExchange{}
		return c.reject(h, pdu.RejectOutOfResources)
	}
	x.request = append(x.request, p.Data...)
	if p.Continue {
		return c.send(&pdu.TextResponse{InitiatorTaskTag: p.InitiatorTaskTag, TargetTransferTag: x.ttt, LUN: p.LUN})
	}
	kvs, err := pdu.ParseText(x.request, pdu.TextLimits{Strict: true})
	if err != nil {
		c.violated(pdu.OpTextRequest, "%v", err)
		*x = textExchange{}
		return c.reject(h, pdu.RejectInvalidField)
	}
	x.request = nil
	for _, kv := range kvs {
		x.answer = pdu.AppendText(x.answer, c.answerText(kv)...)
		if len(x.answer) > maxTextAnswer {
			*x = textExchange{}
			return c.reject(h, pdu.RejectOutOfResources)
		}
	}
	return c.textSegment(p)
}

// answerText answers one key of a text request.
func (c *Conn) answerText(kv pdu.KeyValue) []pdu.KeyValue {
	switch {
	case kv.Key == pdu.KeySendTargets:
		return c.sendTargets(kv.Value)
	case kv.Key == pdu.KeyMaxRecvDataSegmentLength:
		// The one operational key that may change here (13.12).
		answer, ok, bad := findOpKey(kv.Key).negotiate(&c.srv.cfg.Params, kv.Value, c.discovery, &c.neg)
		if bad != "" {
			c.violated(pdu.OpTextRequest, "%s=%q: %s", kv.Key, kv.Value, bad)
		}
		if ok {
			return []pdu.KeyValue{{Key: kv.Key, Value: answer}}
		}
		return nil
	case findOpKey(kv.Key) != nil:
		c.violated(pdu.OpTextRequest, "%s can be negotiated during login only (13)", kv.Key)
		return []pdu.KeyValue{{Key: kv.Key, Value: pdu.ValueReject}}
	}
	return []pdu.KeyValue{{Key: kv.Key, Value: pdu.ValueNotUnderstood}}
}

// textSegment sends the next piece of the answer.
func (c *Conn) textSegment(p *pdu.TextRequest) error {
	x := &c.text
	limit := int(c.neg.MaxRecvDataSegmentLength)
	if n := c.srv.cfg.TextSegment; n > 0 {
		limit = min(limit, n)
	}
	rsp := &pdu.TextResponse{InitiatorTaskTag: p.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag, Final: p.Final}
	piece := x.answer
	if len(piece) > limit {
		piece = piece[:limit]
		x.answer = x.answer[limit:]
		rsp.Final, rsp.Continue, rsp.TargetTransferTag = false, true, x.ttt
	} else {
		x.answer = nil
		if !p.Final {
			rsp.TargetTransferTag = x.ttt
		} else {
			*x = textExchange{}
		}
	}
	rsp.Data = slices.Clone(piece)
	return c.send(rsp)
}

// sendTargets answers SendTargets (RFC 7143 appendix C): in a normal session
// only about its own target, and with no value the same.
func (c *Conn) sendTargets(which string) []pdu.KeyValue {
	var kvs []pdu.KeyValue
	for _, name := range c.srv.names {
		t := c.srv.targets[name]
		switch {
		case c.discovery && which != "All" && which != name:
			continue
		case !c.discovery && (t != c.target || which != "" && which != name && which != "All"):
			continue
		case !t.allows(c.nexus.initiator):
			continue
		}
		kvs = append(kvs, pdu.KeyValue{Key: pdu.KeyTargetName, Value: name})
		portals := t.Portals
		if portals == nil {
			portals = c.portals(t.TPGT)
		}
		for _, p := range portals {
			kvs = append(kvs, pdu.KeyValue{Key: pdu.KeyTargetAddress, Value: p})
		}
	}
	return kvs
}

// portals returns where the server can be reached. A wildcard address is
// replaced with the one that this connection came to.
func (c *Conn) portals(tpgt uint16) []string {
	local, _ := c.nc.LocalAddr().(*net.TCPAddr)
	c.srv.mu.Lock()
	defer c.srv.mu.Unlock()
	var portals []string
	for l := range c.srv.listeners {
		a, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			continue
		}
		ip := a.IP
		if ip.IsUnspecified() && local != nil {
			ip = local.IP
		}
		portals = append(portals, net.JoinHostPort(ip.String(), strconv.Itoa(a.Port))+","+strconv.Itoa(int(tpgt)))
	}
	if len(portals) == 0 && local != nil {
		portals = append(portals, local.String()+","+strconv.Itoa(int(tpgt)))
	}
	slices.Sort(portals)
	return portals
}
