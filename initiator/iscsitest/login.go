package iscsitest

import (
	"slices"
	"time"

	"github.com/goiscsi/goiscsi/pdu"
)

// maxLoginText bounds the text of one logical login request: the RFC asks for
// 8192 bytes, and 64 KiB with long authentication items (section 6.1).
const maxLoginText = 64 << 10

// A login is the state of a connection's login phase (RFC 7143 section 6.3).
//
// Invariants: stage never goes back; authenticated is set before stage leaves
// StageSecurity if the target asks for authentication; each key of seen has
// been answered once.
type login struct {
	begun   bool
	first   pdu.LoginRequest // what all requests have in common, and CmdSN
	stage   pdu.Stage
	text    []byte // of requests with the C bit
	pending []byte // of our response, not yet sent for its length
	// after is what the response with the last of pending says.
	after         pdu.LoginResponse
	seen          map[string]bool
	declared      bool // our MaxRecvDataSegmentLength is out
	authMethod    string
	authenticated bool
	chap          chapState
}

// loginError ends a login with a status.
type loginError struct{ class, detail uint8 }

func initiatorError(detail uint8) *loginError {
	return &loginError{pdu.LoginInitiatorError, detail}
}

// processLogin handles a PDU in the login phase.
func (c *Conn) processLogin(h *pdu.Header, data []byte) error {
	var req pdu.LoginRequest
	if h.Opcode() != pdu.OpLoginRequest {
		c.violated(h.Opcode(), "request before the login is complete (6.3)")
		if c.login.begun {
			return c.failLogin(&c.login.first, initiatorError(pdu.InitiatorErrorInvalidRequest))
		}
		return errEnd // 8.1: nothing else may be answered
	}
	if err := req.Decode(h, data); err != nil {
		c.violated(h.Opcode(), "%v", err)
		return c.failLogin(&req, initiatorError(pdu.InitiatorErrorMiscellaneous))
	}
	if !h.Immediate() {
		c.violated(h.Opcode(), "I bit is not set (11.12)")
	}
	l := c.login
	if !l.begun {
		c.beginLogin(&req)
	} else if rule := l.differs(&req); rule != "" {
		c.violated(h.Opcode(), "%s", rule)
		return c.failLogin(&req, initiatorError(pdu.InitiatorErrorMiscellaneous))
	} else {
		c.checkExpStatSN(h)
	}
	if e := c.loginStep(&req); e != nil {
		return c.failLogin(&req, e)
	}
	return nil
}

func (c *Conn) beginLogin(req *pdu.LoginRequest) {
	l := c.login
	l.begun, l.first, l.stage = true, *req, req.CurrentStage
	l.first.Data = nil
	l.seen = map[string]bool{}
	c.cid = req.CID
	c.nexus.isid = req.ISID
	// The leading login sets the CmdSN (11.12.8); login requests are
	// immediate, so that the first command carries the same.
	c.expCmdSN = req.CmdSN
	c.maxCmdSN = req.CmdSN - 1
	c.expStatSN = c.statSN
}

// differs returns the rule that a further request of the same login breaks.
func (l *login) differs(req *pdu.LoginRequest) string {
	switch f := &l.first; {
	case req.InitiatorTaskTag != f.InitiatorTaskTag:
		return "initiator task tag changed during login (11.12)"
	case req.ISID != f.ISID || req.TSIH != f.TSIH || req.CID != f.CID:
		return "ISID, TSIH or CID changed during login (11.12.6, 11.12.7)"
	case req.CmdSN != f.CmdSN:
		return "CmdSN changed during login (11.12.8)"
	case req.VersionMax != f.VersionMax || req.VersionMin != f.VersionMin:
		return "version changed during login (11.12.4)"
	case req.CurrentStage != l.stage:
		return "CSG is not the stage that was agreed upon (6.3)"
	}
	return ""
}

// loginStep handles one well-formed login request.
func (c *Conn) loginStep(req *pdu.LoginRequest) *loginError {
	l := c.login
	if req.VersionMin > 0 {
		return initiatorError(pdu.InitiatorErrorVersion)
	}
	if len(l.pending) > 0 {
		if len(req.Data) > 0 || req.Transit {
			c.violated(pdu.OpLoginRequest, "a response with the C bit must be answered without text (6.2)")
		}
		return c.loginSegment(req)
	}
	if len(l.text)+len(req.Data) > maxLoginText {
		return &loginError{pdu.LoginTargetError, pdu.TargetErrorOutOfResources}
	}
	l.text = append(l.text, req.Data...)
	rsp := pdu.LoginResponse{CurrentStage: l.stage, TSIH: req.TSIH}
	if req.Continue {
		return c.sendLogin(req, rsp, nil)
	}
	kvs, err := pdu.ParseText(l.text, pdu.TextLimits{Strict: true})
	if err != nil {
		c.violated(pdu.OpLoginRequest, "%v", err)
		if kvs, err = pdu.ParseText(l.text, pdu.TextLimits{}); err != nil {
			return initiatorError(pdu.InitiatorErrorMiscellaneous)
		}
	}
	l.text = l.text[:0]
	c.checkLoginKeys(kvs)
	answer, ready, e := c.answerLogin(kvs, req)
	if e != nil {
		return e
	}
	if req.Transit && ready {
		rsp.Transit, rsp.NextStage = true, req.NextStage
	}
	return c.sendLogin(req, rsp, pdu.AppendText(nil, answer...))
}

// checkLoginKeys records what is wrong with the keys of a request as a whole.
func (c *Conn) checkLoginKeys(kvs []pdu.KeyValue) {
	l := c.login
	for _, kv := range kvs {
		k := kv.Key
		if l.seen[k] && !isCHAPKey(k) {
			c.violated(pdu.OpLoginRequest, "%s is negotiated more than once (6.3)", k)
		}
		l.seen[k] = true
		security := k == pdu.KeyAuthMethod || isCHAPKey(k)
		if security && l.stage != pdu.StageSecurity {
			c.violated(pdu.OpLoginRequest, "%s outside of the security stage (12)", k)
		}
		if findOpKey(k) != nil && l.stage != pdu.StageOperational {
			c.violated(pdu.OpLoginRequest, "%s outside of the operational stage (13)", k)
		}
	}
}

// answerLogin answers the keys of a whole request. ready says that nothing on
// our side stands against leaving the stage.
func (c *Conn) answerLogin(kvs []pdu.KeyValue, req *pdu.LoginRequest) (answer []pdu.KeyValue, ready bool, e *loginError) {
	l := c.login
	if c.nexus.initiator == "" {
		first, e := c.identify(kvs, req)
		if e != nil {
			if e.class == pdu.LoginRedirection {
				return nil, false, c.redirected(req, first, e)
			}
			return nil, false, e
		}
		answer = append(answer, first...)
	}
	creds := c.credentials()
	if l.stage == pdu.StageOperational && creds.Username != "" && !l.authenticated {
		return nil, false, initiatorError(pdu.InitiatorErrorAuthentication)
	}
	ready = true
	if l.stage == pdu.StageSecurity {
		sec, done, e := c.security(kvs, creds)
		if e != nil {
			return nil, false, e
		}
		if !done && req.Transit && l.authMethod == "" {
			return nil, false, initiatorError(pdu.InitiatorErrorAuthentication)
		}
		answer, ready = append(answer, sec...), done
	}
	for _, kv := range kvs {
		if v, ok := c.answerKey(kv); ok {
			answer = append(answer, pdu.KeyValue{Key: kv.Key, Value: v})
		}
	}
	if l.stage == pdu.StageOperational && !l.declared {
		l.declared = true
		answer = append(answer, pdu.KeyValue{
			Key: pdu.KeyMaxRecvDataSegmentLength, Value: pdu.FormatNumber(uint64(c.srv.cfg.Params.MaxRecvDataSegmentLength)),
		})
	}
	return answer, ready, nil
}

// answerKey answers the keys that are neither about who it is nor about
// security.
func (c *Conn) answerKey(kv pdu.KeyValue) (string, bool) {
	switch kv.Key {
	case pdu.KeyInitiatorName, pdu.KeyTargetName, pdu.KeySessionType, pdu.KeyAuthMethod:
		return "", false
	case pdu.KeyInitiatorAlias:
		c.alias = kv.Value
		return "", false
	case "IFMarker", "OFMarker", "IFMarkInt", "OFMarkInt":
		return pdu.ValueReject, true // 13.25
	case "TaskReporting", "iSCSIProtocolLevel":
		return pdu.ValueNotUnderstood, true
	}
	if isCHAPKey(kv.Key) {
		return "", false
	}
	k := findOpKey(kv.Key)
	if k == nil {
		return pdu.ValueNotUnderstood, true
	}
	answer, ok, bad := k.negotiate(&c.srv.cfg.Params, kv.Value, c.discovery, &c.neg)
	if bad != "" {
		c.violated(pdu.OpLoginRequest, "%s=%q: %s (13)", kv.Key, kv.Value, bad)
	}
	return answer, ok
}

// identify finds out who logs in to what, from the first request. The text is
// what to answer, also along with a redirection.
func (c *Conn) identify(kvs []pdu.KeyValue, req *pdu.LoginRequest) ([]pdu.KeyValue, *loginError) {
	name, _ := pdu.LookupText(kvs, pdu.KeyInitiatorName)
	if name == "" {
		c.violated(pdu.OpLoginRequest, "no InitiatorName in the first request (6.3)")
		return nil, initiatorError(pdu.InitiatorErrorMissingParameter)
	}
	if pdu.ValidateName(name) != nil {
		c.violated(pdu.OpLoginRequest, "InitiatorName %q (4.2.7)", name)
		return nil, initiatorError(pdu.InitiatorErrorMiscellaneous)
	}
	c.nexus.initiator = name
	if class, detail, ok := c.srv.takeRefusal(); ok {
		return nil, &loginError{class, detail}
	}
	switch st, ok := pdu.LookupText(kvs, pdu.KeySessionType); {
	case st == "Discovery" && req.TSIH != 0:
		return nil, initiatorError(pdu.InitiatorErrorNoSession)
	case st == "Discovery":
		c.discovery = true
		return nil, nil
	case ok && st != "Normal":
		c.violated(pdu.OpLoginRequest, "SessionType=%q (13.21)", st)
		return nil, initiatorError(pdu.InitiatorErrorSessionType)
	}
	targetName, _ := pdu.LookupText(kvs, pdu.KeyTargetName)
	if targetName == "" {
		c.violated(pdu.OpLoginRequest, "no TargetName in the first request (6.3)")
		return nil, initiatorError(pdu.InitiatorErrorMissingParameter)
	}
	c.target = c.srv.targets[targetName]
	if c.target == nil {
		return nil, initiatorError(pdu.InitiatorErrorNotFound)
	}
	if !c.target.allows(name) {
		return nil, initiatorError(pdu.InitiatorErrorAuthorization)
	}
	if addr, detail, ok := c.srv.takeRedirect(targetName); ok {
		return []pdu.KeyValue{{Key: pdu.KeyTargetAddress, Value: addr}}, &loginError{pdu.LoginRedirection, detail}
	}
	c.nexus.target, c.nexus.tpgt = targetName, c.target.TPGT
	if req.TSIH != 0 {
		var e *loginError
		if c.joins, e = c.joinable(req); e != nil {
			return nil, e
		}
	}
	answer := []pdu.KeyValue{{Key: pdu.KeyTargetPortalGroupTag, Value: pdu.FormatNumber(uint64(c.target.TPGT))}}
	if c.target.Alias != "" {
		answer = append(answer, pdu.KeyValue{Key: pdu.KeyTargetAlias, Value: c.target.Alias})
	}
	return answer, nil
}

// credentials returns what the login has to authenticate against.
func (c *Conn) credentials() *CHAP {
	if c.discovery {
		return &c.srv.cfg.DiscoveryCHAP
	}
	return &c.target.CHAP
}

// redirected sends the response of a redirection, with its text.
func (c *Conn) redirected(req *pdu.LoginRequest, text []pdu.KeyValue, e *loginError) *loginError {
	rsp := pdu.LoginResponse{
		CurrentStage: req.CurrentStage, StatusClass: e.class, StatusDetail: e.detail,
		ISID: req.ISID, InitiatorTaskTag: req.InitiatorTaskTag, Data: pdu.AppendText(nil, text...),
	}
	if c.send(&rsp) != nil {
		return e
	}
	return &loginError{class: classSent}
}

// classSent is the class of a loginError whose response was sent already.
const classSent = 0xff

// failLogin ends the login with a status.
func (c *Conn) failLogin(req *pdu.LoginRequest, e *loginError) error {
	if e.class != classSent {
		c.srv.logf("connection %d: login of %q refused: status %02x%02x", c.id, c.nexus.initiator, e.class, e.detail)
		rsp := pdu.LoginResponse{
			CurrentStage: req.CurrentStage, ISID: req.ISID, TSIH: req.TSIH,
			InitiatorTaskTag: req.InitiatorTaskTag, StatusClass: e.class, StatusDetail: e.detail,
		}
		if err := c.send(&rsp); err != nil {
			return err
		}
	}
	_ = c.flush() // the connection ends anyway
	return errEnd
}

// sendLogin sends a response, in pieces if its text is too long for one.
func (c *Conn) sendLogin(req *pdu.LoginRequest, rsp pdu.LoginResponse, text []byte) *loginError {
	l := c.login
	l.pending, l.after = text, rsp
	return c.loginSegment(req)
}

// loginSegment sends the next piece of a response; the last one says what
// login.after has.
func (c *Conn) loginSegment(req *pdu.LoginRequest) *loginError {
	l := c.login
	limit := int(min(c.neg.MaxRecvDataSegmentLength, 8192))
	if n := c.srv.cfg.LoginSegment; n > 0 {
		limit = min(limit, n)
	}
	rsp := pdu.LoginResponse{CurrentStage: l.stage, TSIH: req.TSIH, Continue: true}
	piece := l.pending
	if len(piece) > limit {
		piece = piece[:limit]
	} else {
		rsp = l.after
	}
	l.pending = l.pending[len(piece):]
	rsp.ISID, rsp.InitiatorTaskTag, rsp.Data = req.ISID, req.InitiatorTaskTag, slices.Clone(piece)
	if !rsp.Transit {
		return c.loginSent(c.send(&rsp))
	}
	if l.stage == pdu.StageSecurity && c.credentials().Username != "" && !l.authenticated {
		return initiatorError(pdu.InitiatorErrorAuthentication)
	}
	l.stage = rsp.NextStage
	if rsp.NextStage != pdu.StageFullFeature {
		return c.loginSent(c.send(&rsp))
	}
	return c.loginSent(c.finishLogin(&rsp))
}

// loginSent turns an error of the connection into one that ends it.
func (c *Conn) loginSent(err error) *loginError {
	if err != nil {
		return &loginError{class: classSent}
	}
	return nil
}

// finishLogin makes the session exist and sends the final response.
func (c *Conn) finishLogin(rsp *pdu.LoginResponse) error {
	if c.neg.FirstBurstLength > c.neg.MaxBurstLength {
		c.neg.FirstBurstLength = c.neg.MaxBurstLength
	}
	if c.joins != nil {
		if !c.join() {
			return errEnd
		}
	} else if old := c.srv.admit(c); old != nil {
		c.srv.logf("connection %d replaces connection %d of %q", c.id, old.id, c.nexus.initiator)
		old.replaced()
	}
	rsp.TSIH = c.tsih
	if err := c.send(rsp); err != nil {
		return err
	}
	// The digests and lengths agreed upon hold from the next PDU on, in
	// both directions (6.3).
	if err := c.flush(); err != nil {
		return err
	}
	c.w.SetDigests(c.neg.HeaderDigest, c.neg.DataDigest)
	c.r.SetDigests(c.neg.HeaderDigest, c.neg.DataDigest)
	c.r.SetMaxDataSegmentLength(int(c.srv.cfg.Params.MaxRecvDataSegmentLength))
	c.phase = phaseFull
	c.login = nil
	if c.srv.cfg.LoginTimeout > 0 {
		if err := c.nc.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
	}
	if c.srv.cfg.UnitAttention && !c.discovery && c.joins == nil {
		c.attentionAll(ascPowerOn)
	}
	c.srv.logf("connection %d: %q logged in to %q", c.id, c.nexus.initiator, c.nexus.target)
	return nil
}

// replaced ends a session that another one took the place of, and returns
// when it executes nothing any more.
func (c *Conn) replaced() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finish()
}
