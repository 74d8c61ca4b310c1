package initiator

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/initiator/internal/chap"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/pdu"
)

// A scriptWire answers login requests from a script and notes what was asked.
type scriptWire struct {
	script []any // pdu.LoginResponse or func(*pdu.LoginRequest) pdu.LoginResponse
	asked  []string
}

var errScriptEnds = errors.New("script ends")

func (w *scriptWire) roundTrip(req *pdu.LoginRequest) (*pdu.LoginResponse, error) {
	kvs, err := pdu.ParseText(req.Data, pdu.TextLimits{})
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, kv := range kvs {
		keys = append(keys, kv.Key+"="+kv.Value)
	}
	w.asked = append(w.asked, fmt.Sprintf("%d>%d T=%v C=%v %s", req.CurrentStage, req.NextStage, req.Transit, req.Continue, strings.Join(keys, " ")))
	if len(w.script) == 0 {
		return nil, errScriptEnds
	}
	step := w.script[0]
	w.script = w.script[1:]
	var resp pdu.LoginResponse
	switch step := step.(type) {
	case pdu.LoginResponse:
		resp = step
	case func(*pdu.LoginRequest) pdu.LoginResponse:
		resp = step(req)
	}
	return &resp, nil
}

func keys(pairs ...string) []byte { return pdu.AppendText(nil, text(pairs...)...) }

func op(transit bool, pairs ...string) pdu.LoginResponse {
	r := pdu.LoginResponse{Transit: transit, CurrentStage: pdu.StageOperational, Data: keys(pairs...), TSIH: 1, MaxCmdSN: 31}
	if transit {
		r.NextStage = pdu.StageFullFeature
	}
	return r
}

func sec(transit bool, pairs ...string) pdu.LoginResponse {
	r := pdu.LoginResponse{Transit: transit, CurrentStage: pdu.StageSecurity, Data: keys(pairs...)}
	if transit {
		r.NextStage = pdu.StageOperational
	}
	return r
}

func testRequest(t testing.TB, c CHAP) loginRequest {
	t.Helper()
	p, err := Params{}.withDefaults(discardLogger)
	if err != nil {
		t.Fatal(err)
	}
	c, err = c.withDefaults(discardLogger)
	if err != nil {
		t.Fatal(err)
	}
	return loginRequest{
		initiatorName: "iqn.2001-04.com.example:client", alias: "me", target: "iqn.2001-04.com.example:disk",
		chap: c, params: p,
	}
}

var (
	oneWay = CHAP{Username: "user", Password: "secretsecret12"}
	mutual = CHAP{Username: "user", Password: "secretsecret12", UsernameIn: "tgt", PasswordIn: "othersecret123"}
)

func TestLoginWithoutCredentials(t *testing.T) {
	w := &scriptWire{script: []any{op(true, "TargetPortalGroupTag=5", "TargetAlias=x", "MaxRecvDataSegmentLength=4096")}}
	res, err := login(w, testRequest(t, CHAP{}))
	if err != nil {
		t.Fatal(err)
	}
	want := "1>3 T=true C=false InitiatorName=iqn.2001-04.com.example:client InitiatorAlias=me TargetName=iqn.2001-04.com.example:disk SessionType=Normal HeaderDigest=None "
	if len(w.asked) != 1 || !strings.HasPrefix(w.asked[0], want) {
		t.Errorf("asked %q", w.asked)
	}
	if res.tpgt != 5 || res.targetAlias != "x" || res.tsih != 1 || res.params.MaxXmitDataSegmentLength != 4096 || res.expStatSN != 1 || res.maxCmdSN != 31 {
		t.Errorf("result %+v", res)
	}
}

// challenge answers the first message of CHAP; respond checks the second and
// answers it.
func chapTarget(t *testing.T, mutualSecret string) []any {
	challenge := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	return []any{
		sec(false, "AuthMethod=CHAP"),
		sec(false, "CHAP_A=5", "CHAP_I=9", "CHAP_C="+pdu.FormatHex(challenge)),
		func(req *pdu.LoginRequest) pdu.LoginResponse {
			kvs, _ := pdu.ParseText(req.Data, pdu.TextLimits{})
			r, _ := pdu.LookupText(kvs, "CHAP_R")
			if want := pdu.FormatHex(chap.Response(chap.MD5, 9, "secretsecret12", challenge)); r != want {
				t.Errorf("CHAP_R %s, want %s", r, want)
			}
			if mutualSecret == "" {
				return sec(true)
			}
			i, _ := pdu.LookupText(kvs, "CHAP_I")
			c, _ := pdu.LookupText(kvs, "CHAP_C")
			id, _ := pdu.ParseNumber(i)
			b, _ := pdu.ParseBinary(c, 1024)
			return sec(true, "CHAP_N=tgt", "CHAP_R="+pdu.FormatHex(chap.Response(chap.MD5, byte(id), mutualSecret, b)))
		},
		op(true),
	}
}

func TestLoginWithCHAP(t *testing.T) {
	w := &scriptWire{script: chapTarget(t, "")}
	if _, err := login(w, testRequest(t, oneWay)); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"0>0 T=false C=false InitiatorName=iqn.2001-04.com.example:client InitiatorAlias=me TargetName=iqn.2001-04.com.example:disk SessionType=Normal AuthMethod=CHAP,None",
		"0>0 T=false C=false CHAP_A=5",
	}
	if diff := cmp.Diff(want, w.asked[:2]); diff != "" {
		t.Error(diff)
	}
	if !strings.HasPrefix(w.asked[2], "0>1 T=true C=false CHAP_N=user CHAP_R=0x") || !strings.HasPrefix(w.asked[3], "1>3 T=true C=false HeaderDigest=") {
		t.Errorf("asked %q", w.asked[2:])
	}
}

func TestLoginWithMutualCHAP(t *testing.T) {
	w := &scriptWire{script: chapTarget(t, "othersecret123")}
	if _, err := login(w, testRequest(t, mutual)); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(w.asked[0], "AuthMethod=CHAP") {
		t.Errorf("first request %q must not offer None", w.asked[0])
	}
}

func TestLoginTargetAnswersMutualWithoutTransit(t *testing.T) {
	script := chapTarget(t, "othersecret123")
	second := script[2].(func(*pdu.LoginRequest) pdu.LoginResponse)
	script[2] = func(req *pdu.LoginRequest) pdu.LoginResponse {
		r := second(req)
		r.Transit, r.NextStage = false, 0
		return r
	}
	w := &scriptWire{script: []any{script[0], script[1], script[2], sec(true), script[3]}}
	if _, err := login(w, testRequest(t, mutual)); err != nil {
		t.Fatal(err)
	}
	if w.asked[3] != "0>1 T=true C=false " {
		t.Errorf("fourth request %q", w.asked[3])
	}
}

func TestLoginTargetWantsNoAuthentication(t *testing.T) {
	w := &scriptWire{script: []any{sec(false, "AuthMethod=None"), sec(true), op(true)}}
	if _, err := login(w, testRequest(t, oneWay)); err != nil {
		t.Fatal(err)
	}
	if w.asked[1] != "0>1 T=true C=false " {
		t.Errorf("second request %q", w.asked[1])
	}
}

func TestLoginNegotiatesOverSeveralPDUs(t *testing.T) {
	w := &scriptWire{script: []any{
		op(false, "HeaderDigest=None", "X-com.example.a=1"),
		op(false, "ImmediateData=No"),
		op(false),
		op(true, "InitialR2T=No"),
	}}
	res, err := login(w, testRequest(t, CHAP{}))
	if err != nil {
		t.Fatal(err)
	}
	if w.asked[1] != "1>3 T=true C=false X-com.example.a=NotUnderstood" || !res.params.NoImmediateData || res.params.InitialR2T {
		t.Errorf("asked %q, got %+v", w.asked[1:], res.params)
	}
}

func TestLoginAnswerContinued(t *testing.T) {
	part := func(cont bool, data string) pdu.LoginResponse {
		r := op(!cont)
		r.Continue, r.Data = cont, []byte(data)
		return r
	}
	w := &scriptWire{script: []any{part(true, "Immed"), part(true, "iateData=N"), part(true, ""), part(false, "o\x00InitialR2T=Yes\x00")}}
	res, err := login(w, testRequest(t, CHAP{}))
	if err != nil {
		t.Fatal(err)
	}
	if !res.params.NoImmediateData || !res.params.InitialR2T {
		t.Errorf("%+v", res.params)
	}
	if w.asked[1] != "1>0 T=false C=false " {
		t.Errorf("asked %q for the rest", w.asked[1])
	}
}

func TestLoginLongTextIsContinued(t *testing.T) {
	var got []byte
	take := func(req *pdu.LoginRequest) pdu.LoginResponse {
		got = append(got, req.Data...)
		if req.Continue {
			return op(false)
		}
		return op(true)
	}
	l := &loginConversation{req: testRequest(t, CHAP{}), stage: pdu.StageOperational, neg: newNegotiation(Params{}, false)}
	l.wire = wireFunc(take)
	want := pdu.KeyValue{Key: "X-a", Value: strings.Repeat("v", 20000)}
	if _, transit, err := l.exchange([]pdu.KeyValue{want}, true); err != nil || !transit {
		t.Fatal(transit, err)
	}
	if string(got) != string(pdu.AppendText(nil, want)) {
		t.Errorf("%d bytes arrived", len(got))
	}
}

type wireFunc func(*pdu.LoginRequest) pdu.LoginResponse

func (f wireFunc) roundTrip(req *pdu.LoginRequest) (*pdu.LoginResponse, error) {
	r := f(req)
	return &r, nil
}

func status(class, detail uint8, pairs ...string) pdu.LoginResponse {
	return pdu.LoginResponse{StatusClass: class, StatusDetail: detail, Data: keys(pairs...)}
}

func TestLoginErrors(t *testing.T) {
	wrongTag := op(true)
	wrongTag.InitiatorTaskTag = 5
	noTSIH := op(true)
	noTSIH.TSIH = 0
	both := op(true)
	both.Continue = true
	version := op(true)
	version.VersionActive = 1
	endless := op(false)
	endless.Continue, endless.Data = true, make([]byte, 8000)
	for _, tc := range []struct {
		name   string
		chap   CHAP
		script []any
		is     error
		code   errcode.Code
	}{
		{"authentication failed", oneWay, []any{status(2, 1)}, ErrAuth, errcode.LoginAuthFailed},
		{"not authorized", CHAP{}, []any{status(2, 2)}, ErrAuth, errcode.LoginAuthFailed},
		{"target not found", CHAP{}, []any{status(2, 3)}, ErrTargetNotFound, errcode.FatalLogin},
		{"target removed", CHAP{}, []any{status(2, 4)}, ErrTargetNotFound, errcode.FatalLogin},
		{"unsupported version", CHAP{}, []any{status(2, 5)}, nil, errcode.FatalLogin},
		{"service unavailable", CHAP{}, []any{status(3, 1)}, nil, errcode.Login},
		{"out of resources", CHAP{}, []any{status(3, 2)}, nil, errcode.Login},
		{"unknown class", CHAP{}, []any{status(9, 1)}, nil, errcode.FatalLogin},
		{"unknown redirection", CHAP{}, []any{status(1, 9, "TargetAddress=192.0.2.1")}, ErrRedirect, errcode.Login},
		{"redirection to nowhere", CHAP{}, []any{status(1, 1)}, ErrProtocol, errcode.FatalLogin},
		{"redirection to nonsense", CHAP{}, []any{status(1, 1, "TargetAddress=a b")}, ErrRedirect, errcode.Login},
		{"none, but mutual wanted", mutual, []any{sec(false, "AuthMethod=None")}, ErrAuth, errcode.FatalLogin},
		{"method not offered", oneWay, []any{sec(false, "AuthMethod=SRP")}, ErrAuth, errcode.FatalLogin},
		{"method rejected", oneWay, []any{sec(false, "AuthMethod=Reject")}, ErrAuth, errcode.FatalLogin},
		{"method missing", oneWay, []any{sec(false)}, ErrAuth, errcode.FatalLogin},
		{"authentication skipped by T", oneWay, []any{sec(true, "AuthMethod=CHAP")}, ErrProtocol, errcode.FatalLogin},
		{"authentication skipped by stage", oneWay, []any{op(true)}, ErrProtocol, errcode.FatalLogin},
		{"chap skipped", mutual, []any{sec(false, "AuthMethod=CHAP"), sec(false)}, ErrProtocol, errcode.FatalLogin},
		{"chap before its turn", mutual, []any{sec(false, "AuthMethod=CHAP", "CHAP_A=5", "CHAP_I=1", "CHAP_C=0x00")}, ErrAuth, errcode.FatalLogin},
		{"mutual response wrong", mutual, chapTarget(t, "wrongsecret999"), ErrAuth, errcode.FatalLogin},
		{"mutual response missing", mutual, append(chapTarget(t, "")[:2], sec(true)), ErrAuth, errcode.FatalLogin},
		{"operational key in the security stage", oneWay, []any{sec(false, "AuthMethod=None", "InitialR2T=No")}, ErrProtocol, errcode.FatalLogin},
		{"another tag", CHAP{}, []any{wrongTag}, ErrProtocol, errcode.FatalLogin},
		{"no TSIH", CHAP{}, []any{noTSIH}, ErrProtocol, errcode.FatalLogin},
		{"T and C", CHAP{}, []any{both}, ErrProtocol, errcode.FatalLogin},
		{"another version", CHAP{}, []any{version}, ErrProtocol, errcode.FatalLogin},
		{"text without =", CHAP{}, []any{pdu.LoginResponse{CurrentStage: 1, Data: []byte("nonsense\x00")}}, ErrProtocol, errcode.FatalLogin},
		{"text without end", CHAP{}, repeat(endless, 20), ErrProtocol, errcode.FatalLogin},
		{"login without end", CHAP{}, repeat(op(false), 1000), ErrProtocol, errcode.FatalLogin},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := login(&scriptWire{script: tc.script}, testRequest(t, tc.chap))
			if err == nil || errors.Is(err, errScriptEnds) {
				t.Fatalf("error %v", err)
			}
			if tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("error %v is not %v", err, tc.is)
			}
			if code := errcode.Of(err); code != tc.code {
				t.Errorf("error %v has code %d, want %d", err, code, tc.code)
			}
		})
	}
}

func repeat(r pdu.LoginResponse, n int) []any {
	list := make([]any, n)
	for i := range list {
		list[i] = r
	}
	return list
}

func TestLoginRedirection(t *testing.T) {
	for detail, permanent := range map[uint8]bool{1: false, 2: true} {
		_, err := login(&scriptWire{script: []any{status(1, detail, "TargetAddress=[2001:db8::1]:3261,7")}}, testRequest(t, CHAP{}))
		var moved *redirectError
		if !errors.As(err, &moved) {
			t.Fatalf("error %v", err)
		}
		if want := (Portal{"2001:db8::1", 3261, 7}); moved.to != want || moved.permanent != permanent {
			t.Errorf("to %v, permanent %v", moved.to, moved.permanent)
		}
	}
}

// FuzzLogin plays a target that says anything, in CHAP's stages and without: the
// conversation must come to an end, and without the secret never a good one.
func FuzzLogin(f *testing.F) {
	f.Add([]byte{0x04, 0, 0, 0}, []byte("AuthMethod=CHAP\x00"), []byte("CHAP_A=5\x00CHAP_I=1\x00CHAP_C=0x01\x00"), []byte("CHAP_N=tgt\x00CHAP_R=0x00\x00"))
	f.Add([]byte{0x87, 0, 0, 0}, []byte("HeaderDigest=None\x00"), []byte(""), []byte(""))
	f.Add([]byte{0, 1, 1, 0}, []byte("TargetAddress=[::1]:3260,1\x00"), []byte(""), []byte(""))
	f.Fuzz(func(t *testing.T, head, a, b, c []byte) {
		for _, creds := range []CHAP{{}, mutual} {
			n := 0
			_, err := login(wireFunc(func(req *pdu.LoginRequest) pdu.LoginResponse {
				resp := pdu.LoginResponse{CurrentStage: req.CurrentStage, NextStage: req.NextStage, Transit: req.Transit, TSIH: 1}
				if len(head) >= 4 {
					i := n % len(head)
					resp.Transit = resp.Transit && head[i]&1 != 0
					resp.Continue = head[i]&2 != 0
					if head[1] != 0 {
						resp.StatusClass, resp.StatusDetail = head[1], head[2]
					}
				}
				resp.Data = [][]byte{a, b, c}[n%3]
				n++
				return resp
			}), testRequest(t, creds))
			if n > maxLoginPDUs {
				t.Fatalf("%d requests", n)
			}
			if err == nil && creds.mutual() {
				t.Fatal("a target without the secret was accepted")
			}
		}
	})
}
