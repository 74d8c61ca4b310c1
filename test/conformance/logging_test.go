package conformance

import (
	"maps"
	"slices"
	"strings"

	"github.com/goiscsi/goiscsi/pdu"
)

// loginRequest returns the next Login Request and checks what all requests of a
// login have in common (RFC 7143 section 11.12).
func (c *conn) loginRequest() *pdu.LoginRequest {
	c.t.Helper()
	req := expect[*pdu.LoginRequest](c)
	if !c.header.Immediate() {
		c.t.Error("login request without the I bit")
	}
	if req.VersionMin != 0 || req.VersionMax != 0 {
		c.t.Errorf("login request of version %d to %d", req.VersionMin, req.VersionMax)
	}
	if len(req.Data) > 8192 {
		c.t.Errorf("%d bytes in a login request", len(req.Data))
	}
	f := c.first
	if f == nil {
		c.first = req
		c.expCmdSN, c.maxCmdSN = req.CmdSN, req.CmdSN-1
		return req
	}
	if req.ISID != f.ISID || req.TSIH != f.TSIH || req.CID != f.CID || req.InitiatorTaskTag != f.InitiatorTaskTag || req.CmdSN != f.CmdSN {
		c.t.Errorf("ISID, TSIH, CID, task tag or CmdSN changed during the login:\n%+v\n%+v", f, req)
	}
	if req.ExpStatSN != c.statSN {
		c.t.Errorf("ExpStatSN %d in the login, want %d", req.ExpStatSN, c.statSN)
	}
	return req
}

// loginAnswer returns the response to a request with some text; with the T bit if
// transit is set, then to the stage that was asked for.
func (c *conn) loginAnswer(req *pdu.LoginRequest, transit bool, pairs ...string) *pdu.LoginResponse {
	r := &pdu.LoginResponse{
		CurrentStage: req.CurrentStage, ISID: req.ISID, TSIH: req.TSIH,
		InitiatorTaskTag: req.InitiatorTaskTag, Data: text(pairs...),
	}
	if transit {
		r.Transit, r.NextStage = true, req.NextStage
		if req.NextStage == pdu.StageFullFeature {
			r.TSIH = c.tsih
		}
	}
	return r
}

// answer sends loginAnswer.
func (c *conn) answer(req *pdu.LoginRequest, transit bool, pairs ...string) {
	c.t.Helper()
	c.send(c.loginAnswer(req, transit, pairs...))
}

// refuse ends a login with a status.
func (c *conn) refuse(req *pdu.LoginRequest, class, detail uint8, pairs ...string) {
	c.t.Helper()
	r := c.loginAnswer(req, false, pairs...)
	r.StatusClass, r.StatusDetail = class, detail
	c.send(r)
}

// logIn plays the target in a login without authentication: one that agrees to
// everything, but for the answers given here. An answer of "Key=-" leaves the key
// unanswered.
func (c *conn) logIn(answers ...string) *pdu.LoginRequest {
	c.t.Helper()
	req := c.loginRequest()
	if req.CurrentStage != pdu.StageOperational || !req.Transit {
		c.t.Fatalf("login request %+v", req)
	}
	c.finishLogin(req, answers...)
	return req
}

// finishLogin answers the request with the operational keys and enters the full
// feature phase.
func (c *conn) finishLogin(req *pdu.LoginRequest, answers ...string) {
	c.t.Helper()
	c.answer(req, true, c.agree(req, answers...)...)
	c.fullFeature()
}

// fullFeature switches to what was agreed on.
func (c *conn) fullFeature() {
	c.t.Helper()
	c.r.SetDigests(c.agreed["HeaderDigest"] == "CRC32C", c.agreed["DataDigest"] == "CRC32C")
	c.w.SetDigests(c.agreed["HeaderDigest"] == "CRC32C", c.agreed["DataDigest"] == "CRC32C")
	n, err := pdu.ParseNumber(c.agreed["MaxRecvDataSegmentLength"])
	if err != nil {
		n = 8192
	}
	c.r.SetMaxDataSegmentLength(int(n))
}

// agree returns the answers of a willing target to the keys of a request.
func (c *conn) agree(req *pdu.LoginRequest, answers ...string) []string {
	c.t.Helper()
	for k, v := range c.keysOf(req.Data) {
		switch k {
		case "InitiatorName", "InitiatorAlias", "TargetName", "SessionType", "MaxRecvDataSegmentLength":
			continue
		case "HeaderDigest", "DataDigest":
			v, _, _ = strings.Cut(v, ",")
		}
		c.agreed[k] = v
	}
	c.agreed["MaxRecvDataSegmentLength"] = "262144"
	c.agreed["TargetPortalGroupTag"] = "1"
	for _, a := range answers {
		k, v, _ := strings.Cut(a, "=")
		if c.agreed[k] = v; v == "-" {
			delete(c.agreed, k)
		}
	}
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(c.agreed)) {
		pairs = append(pairs, k+"="+c.agreed[k])
	}
	return pairs
}
