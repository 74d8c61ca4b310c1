package initiator

import (
	"errors"
	"strings"

	"github.com/goiscsi/goiscsi/initiator/internal/chap"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/pdu"
)

// Bounds of a login: a target that talks on is cut off.
const (
	maxLoginPDUs  = 128
	maxLoginText  = 64 << 10
	loginSegment  = 8192 // longest data segment before the full feature phase
	maxRedirects  = 8    // in a row
	loginTaskTag  = 0    // as open-iscsi; nothing else is outstanding
	protocolDraft = 0    // Version-max and -min (RFC 7143 section 11.12.4)
)

// A loginRequest says how to log in on a connection.
type loginRequest struct {
	initiatorName, alias string
	target               string // empty for a discovery session
	portal               Portal // for errors
	isid                 ISID
	cmdSN                uint32
	expStatSN            uint32 // of the connection that this one reinstates; 0 else
	chap                 CHAP
	tsih, cid            uint16  // of a further connection of a session; 0 else
	session              *Params // what was agreed on for it
	portalGroup          int     // the tag of the portal group that is to answer; see checkPortalGroup
	params               Params
}

// challenges are the CHAP challenges that this process has issued. There is one
// history for all sessions and discoveries, since what a target must not get away
// with is to have one connection answer the challenge of another (RFC 7143 section
// 9.2.1).
var challenges chap.History

func (r *loginRequest) discovery() bool { return r.target == "" }

// A loginResult is the outcome of a login that reached the full feature phase.
type loginResult struct {
	params      Params
	tsih        uint16
	tpgt        int
	targetAlias string
	cmdSN       uint32 // of the first command
	expStatSN   uint32
	expCmdSN    uint32
	maxCmdSN    uint32
}

// A redirectError is a login that the target sends to another portal.
type redirectError struct {
	*LoginError
	permanent bool
	to        Portal
}

func (e *redirectError) Unwrap() error { return e.LoginError }

// A loginWire sends one Login request and returns the response. The response
// and its data are valid until the next call.
type loginWire interface {
	roundTrip(req *pdu.LoginRequest) (*pdu.LoginResponse, error)
}

// A loginConversation is one login as the initiator sees it (RFC 7143 section
// 6.3), apart from sending and receiving. Used by one goroutine.
type loginConversation struct {
	req  loginRequest
	wire loginWire
	neg  *negotiation
	auth *chap.Initiator // nil: no authentication, or the target wants none

	stage     pdu.Stage
	expStatSN uint32
	pdus      int
	last      *pdu.LoginResponse
}

// login logs in on a connection. Its errors are *LoginError, *redirectError,
// those of the wire, and protocol violations.
func login(wire loginWire, req loginRequest) (*loginResult, error) {
	l := &loginConversation{req: req, expStatSN: req.expStatSN, wire: wire, neg: newNegotiation(req.params, req.discovery())}
	l.neg.session = req.session
	return l.run()
}

func (l *loginConversation) run() (*loginResult, error) {
	say := l.identity()
	if l.req.chap.enabled() {
		l.stage = pdu.StageSecurity
		if err := l.authenticate(say); err != nil {
			return nil, err
		}
		say = nil
	}
	l.stage = pdu.StageOperational
	if err := l.negotiate(append(say, l.neg.offers()...)); err != nil {
		return nil, err
	}
	if err := l.checkPortalGroup(); err != nil {
		return nil, err
	}
	if err := l.neg.checkDigests(); err != nil {
		return nil, err
	}
	switch {
	case l.req.session != nil && l.last.TSIH != l.req.tsih:
		return nil, protocolErrorf("TSIH %d in a login to session %d", l.last.TSIH, l.req.tsih)
	case !l.req.discovery() && l.last.TSIH == 0:
		return nil, protocolErrorf("no TSIH in the final login response")
	}
	return &loginResult{
		params:      l.neg.finish(),
		tsih:        l.last.TSIH,
		tpgt:        l.neg.tpgt,
		targetAlias: l.neg.targetAlias,
		cmdSN:       l.req.cmdSN,
		expStatSN:   l.expStatSN,
		expCmdSN:    l.last.ExpCmdSN,
		maxCmdSN:    l.last.MaxCmdSN,
	}, nil
}

// checkPortalGroup ascertains that the portal group is the one that is meant (RFC
// 7143 section 6.3.1), where both are known: a session of another one is another
// I_T nexus, with other reservations. Tag 0 is what a Portal has whose maker knew
// no tag, so that it is not compared.
func (l *loginConversation) checkPortalGroup() error {
	want, got := l.req.portalGroup, l.neg.tpgt
	if l.req.discovery() || want <= 0 || got == UnknownTPGT || got == want {
		return nil
	}
	return &PortalGroupError{Want: want, Got: got, Portal: l.req.portal}
}

// identity returns the keys of the first request that say who wants what.
func (l *loginConversation) identity() []pdu.KeyValue {
	kvs := []pdu.KeyValue{{Key: pdu.KeyInitiatorName, Value: l.req.initiatorName}}
	if l.req.alias != "" {
		kvs = append(kvs, pdu.KeyValue{Key: pdu.KeyInitiatorAlias, Value: l.req.alias})
	}
	if l.req.discovery() {
		return append(kvs, pdu.KeyValue{Key: pdu.KeySessionType, Value: "Discovery"})
	}
	kvs = append(kvs, pdu.KeyValue{Key: pdu.KeyTargetName, Value: l.req.target})
	if l.req.session != nil {
		return kvs // the type is known (RFC 7143 section 13.21, leading only)
	}
	return append(kvs, pdu.KeyValue{Key: pdu.KeySessionType, Value: "Normal"})
}

// authenticate goes through the security stage.
func (l *loginConversation) authenticate(say []pdu.KeyValue) error {
	// One-way authentication leaves it to the target whether it wants any, as
	// open-iscsi does. Who wants the target to prove itself insists.
	methods := "CHAP,None"
	if l.req.chap.mutual() {
		methods = "CHAP"
	}
	in, _, err := l.exchange(append(say, pdu.KeyValue{Key: pdu.KeyAuthMethod, Value: methods}), false)
	if err != nil {
		return err
	}
	method, ok := pdu.LookupText(in, pdu.KeyAuthMethod)
	switch {
	case !ok:
		return authError(protocolErrorf("no %s in the answer", pdu.KeyAuthMethod))
	case method == "CHAP":
		if _, stray := chapKey(in); stray {
			return authError(protocolErrorf("chap begins before the algorithm is offered"))
		}
		l.auth = chap.New(credentials(l.req.chap), algorithms(l.req.chap), &challenges)
		defer l.auth.End()
		return l.runCHAP()
	case method == pdu.ValueNone && !l.req.chap.mutual():
		return l.leaveSecurity(nil)
	}
	return authError(protocolErrorf("%s=%q was not offered", pdu.KeyAuthMethod, method))
}

// runCHAP exchanges the CHAP keys and leaves the security stage.
func (l *loginConversation) runCHAP() error {
	in, _, err := l.exchange(l.auth.Offer(), false)
	if err != nil {
		return err
	}
	say, err := l.auth.Next(in)
	if err != nil {
		return authError(err)
	}
	return l.leaveSecurity(say)
}

// leaveSecurity says the last keys of the stage with the T bit set, and waits
// for the target to follow.
func (l *loginConversation) leaveSecurity(say []pdu.KeyValue) error {
	for {
		in, transit, err := l.exchange(say, true)
		if err != nil {
			return err
		}
		say = nil
		_, answered := chapKey(in)
		if l.auth != nil && (!l.auth.Done() && (answered || transit) || answered) {
			if say, err = l.auth.Next(in); err != nil {
				return authError(err)
			}
		}
		if transit {
			return nil
		}
	}
}

// negotiate goes through the operational stage.
func (l *loginConversation) negotiate(say []pdu.KeyValue) error {
	for {
		in, transit, err := l.exchange(say, true)
		if err != nil {
			return err
		}
		if say, err = l.neg.receive(in); err != nil {
			return err
		}
		if transit {
			// What the target still asked with its last word stays without
			// an answer, and so without effect.
			return nil
		}
	}
}

// exchange sends keys in the current stage, possibly in several PDUs, and
// returns the keys of the answer, which may have come in several PDUs too, and
// whether the target goes on to the next stage.
func (l *loginConversation) exchange(say []pdu.KeyValue, transit bool) ([]pdu.KeyValue, bool, error) {
	next := pdu.StageOperational
	if l.stage == pdu.StageOperational {
		next = pdu.StageFullFeature
	}
	text := pdu.AppendText(nil, say...)
	for len(text) > loginSegment {
		resp, err := l.send(pdu.LoginRequest{Continue: true, CurrentStage: l.stage, Data: text[:loginSegment]})
		if err != nil {
			return nil, false, err
		}
		if len(resp.Data) > 0 || resp.Transit || resp.Continue {
			return nil, false, protocolErrorf("the target answers before it was told everything")
		}
		text = text[loginSegment:]
	}
	req := pdu.LoginRequest{Transit: transit, CurrentStage: l.stage, Data: text}
	if transit {
		req.NextStage = next
	}
	resp, err := l.send(req)
	if err != nil {
		return nil, false, err
	}
	var answer []byte
	for {
		if len(answer)+len(resp.Data) > maxLoginText {
			return nil, false, protocolErrorf("login text without end")
		}
		answer = append(answer, resp.Data...)
		if !resp.Continue {
			break
		}
		if resp.Transit {
			return nil, false, protocolErrorf("login response with both T and C")
		}
		if resp, err = l.send(pdu.LoginRequest{CurrentStage: l.stage}); err != nil {
			return nil, false, err
		}
	}
	if resp.Transit && (!transit || resp.NextStage != next) {
		return nil, false, protocolErrorf("the target goes on to %s unasked", resp.NextStage)
	}
	kvs, err := pdu.ParseText(answer, pdu.TextLimits{})
	if err != nil {
		return nil, false, withKind(ErrProtocol, err)
	}
	if l.stage == pdu.StageSecurity {
		if err := l.checkSecurityKeys(kvs); err != nil {
			return nil, false, err
		}
	}
	return kvs, resp.Transit, nil
}

// checkSecurityKeys takes the target's declarations in the security stage and
// refuses keys that do not belong there.
func (l *loginConversation) checkSecurityKeys(kvs []pdu.KeyValue) error {
	for _, kv := range kvs {
		if ok, err := l.neg.declared(kv); err != nil {
			return err
		} else if ok || kv.Key == pdu.KeyAuthMethod || strings.HasPrefix(kv.Key, "CHAP_") || isRefusal(kv.Value) {
			continue
		}
		return protocolErrorf("%s in the security stage", kv.Key)
	}
	return nil
}

// send sends one request and checks the response.
func (l *loginConversation) send(req pdu.LoginRequest) (*pdu.LoginResponse, error) {
	if l.pdus++; l.pdus > maxLoginPDUs {
		return nil, protocolErrorf("login without end")
	}
	req.VersionMax, req.VersionMin = protocolDraft, protocolDraft
	req.ISID, req.TSIH, req.CID = l.req.isid, l.req.tsih, l.req.cid
	req.InitiatorTaskTag = loginTaskTag
	req.CmdSN = l.req.cmdSN
	req.ExpStatSN = l.expStatSN
	resp, err := l.wire.roundTrip(&req)
	if err != nil {
		return nil, err
	}
	if resp.StatusClass != pdu.LoginSuccess {
		return nil, l.refusal(resp)
	}
	switch {
	case resp.InitiatorTaskTag != loginTaskTag:
		return nil, protocolErrorf("login response with another task tag")
	case resp.CurrentStage != l.stage:
		return nil, protocolErrorf("login response of stage %s in stage %s", resp.CurrentStage, l.stage)
	case resp.VersionActive != protocolDraft:
		return nil, protocolErrorf("version %d", resp.VersionActive)
	}
	l.expStatSN = resp.StatSN + 1
	l.last = resp
	return resp, nil
}

// refusal turns a response with a status other than success into an error.
func (l *loginConversation) refusal(resp *pdu.LoginResponse) error {
	err := &LoginError{
		Class:  resp.StatusClass,
		Detail: resp.StatusDetail,
		Target: l.req.target,
		Portal: l.req.portal,
	}
	if resp.StatusClass != pdu.LoginRedirection {
		return err
	}
	permanent := resp.StatusDetail == pdu.RedirectionPermanent
	if !permanent && resp.StatusDetail != pdu.RedirectionTemporary {
		return err
	}
	kvs, perr := pdu.ParseText(resp.Data, pdu.TextLimits{})
	if perr != nil {
		return withKind(ErrProtocol, perr)
	}
	address, ok := pdu.LookupText(kvs, pdu.KeyTargetAddress)
	if !ok {
		return protocolErrorf("redirection without %s", pdu.KeyTargetAddress)
	}
	to, perr := ParsePortal(address)
	if perr != nil {
		// The target's text, so not ErrInvalid, which is about the caller's.
		return withKind(ErrRedirect, errors.New(perr.Error()))
	}
	return &redirectError{LoginError: err, permanent: permanent, to: to}
}

// authError marks an error of the security stage. open-iscsi's code for a target
// that could not prove itself is that of a fatal login, not of a refused one.
func authError(err error) error {
	if errors.Is(err, chap.ErrProtocol) && !errors.Is(err, chap.ErrTarget) {
		return withKind(ErrProtocol, err)
	}
	return withCode(errcode.FatalLogin, withKind(ErrAuth, err))
}

// chapKey returns the first CHAP key.
func chapKey(kvs []pdu.KeyValue) (pdu.KeyValue, bool) {
	for _, kv := range kvs {
		if strings.HasPrefix(kv.Key, "CHAP_") {
			return kv, true
		}
	}
	return pdu.KeyValue{}, false
}

func credentials(c CHAP) chap.Credentials {
	return chap.Credentials{
		Name: c.Username, Secret: c.Password.Reveal(),
		TargetName: c.UsernameIn, TargetSecret: c.PasswordIn.Reveal(),
	}
}

func algorithms(c CHAP) []chap.Algorithm {
	list := make([]chap.Algorithm, len(c.Algorithms))
	for i, a := range c.Algorithms {
		list[i] = chap.Algorithm(a)
	}
	return list
}
