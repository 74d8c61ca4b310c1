package iscsitest_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/goiscsi/goiscsi/initiator/internal/chap"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	target    = "iqn.2001-04.com.example:disk"
	initiator = "iqn.2001-04.com.example:host"
	diskSize  = 4 << 20
)

// newServer starts a server with one disk as LUN 1 and ends it with the test.
// The disk is returned, too.
func newServer(t testing.TB, change func(*iscsitest.Config)) (*iscsitest.Server, *iscsitest.LUN) {
	t.Helper()
	lun := &iscsitest.LUN{Store: iscsitest.NewMemStore(diskSize), Thin: true}
	cfg := iscsitest.Config{
		Targets:       []iscsitest.Target{{Name: target, Alias: "a disk", LUNs: map[uint64]*iscsitest.LUN{1: lun}}},
		InitialStatSN: 0xfffffffe, // serial numbers wrap around early
		Logf:          t.Logf,
	}
	if change != nil {
		change(&cfg)
	}
	srv := iscsitest.NewServer(cfg)
	t.Cleanup(srv.Close)
	return srv, lun
}

// noViolations asserts that the initiator kept to the rules.
func noViolations(t testing.TB, srv *iscsitest.Server) {
	t.Helper()
	for _, v := range srv.Violations() {
		t.Errorf("violation: %v", v)
	}
}

// wantViolation asserts that one rule that contains the text was broken.
func wantViolation(t testing.TB, srv *iscsitest.Server, text string) {
	t.Helper()
	for _, v := range srv.Violations() {
		if bytes.Contains([]byte(v.String()), []byte(text)) {
			return
		}
	}
	t.Errorf("no violation with %q among %v", text, srv.Violations())
}

// A client is an initiator that sends what a test tells it to. It is not
// package initiator, so that both ends are tested against something else.
type client struct {
	t       testing.TB
	nc      net.Conn
	r       *pdu.Reader
	w       *pdu.Writer
	isid    byte
	name    string
	session string // target name, "" for discovery
	itt     uint32
	cmdSN   uint32
	expStat uint32
	maxCmd  uint32
	tsih    uint16
	join    uint16 // TSIH of the session to join, 0 to make one
	cid     uint16
	lastExp uint32
	answers []pdu.KeyValue
}

// dial connects a client that has not logged in.
func dial(t testing.TB, srv *iscsitest.Server) *client {
	t.Helper()
	nc, err := net.Dial("tcp", srv.Portal())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	// A test that hangs ends here; nothing waits for this in a good one.
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	r := pdu.NewReader(nc, 0)
	r.SetMaxDataSegmentLength(1 << 20)
	return &client{
		t: t, nc: nc, r: r, w: pdu.NewWriter(nc), isid: 1, name: initiator, session: target,
		itt: 0xfffffff0, cmdSN: 0xfffffffd,
	}
}

// login is dial and a login with these operational keys.
func login(t testing.TB, srv *iscsitest.Server, keys ...pdu.KeyValue) *client {
	t.Helper()
	c := dial(t, srv)
	c.login(keys...)
	return c
}

func kv(key, value string) pdu.KeyValue { return pdu.KeyValue{Key: key, Value: value} }

// names returns the keys of the first request.
func (c *client) names() []pdu.KeyValue {
	if c.session == "" {
		return []pdu.KeyValue{kv("InitiatorName", c.name), kv("SessionType", "Discovery")}
	}
	return []pdu.KeyValue{kv("InitiatorName", c.name), kv("SessionType", "Normal"), kv("TargetName", c.session)}
}

func (c *client) login(keys ...pdu.KeyValue) {
	c.t.Helper()
	rsp := c.loginStep(pdu.StageOperational, pdu.StageFullFeature, append(c.names(), keys...)...)
	if rsp.StatusClass != 0 || !rsp.Transit || rsp.NextStage != pdu.StageFullFeature {
		c.t.Fatalf("login: %+v", rsp)
	}
	c.logged(rsp)
}

// logged takes over what the final login response says.
func (c *client) logged(rsp *pdu.LoginResponse) {
	c.tsih = rsp.TSIH
	header := c.answer("HeaderDigest") == "CRC32C"
	data := c.answer("DataDigest") == "CRC32C"
	c.w.SetDigests(header, data)
	c.r.SetDigests(header, data)
}

// answer returns the last answer to a key.
func (c *client) answer(key string) string {
	v, _ := pdu.LookupText(c.answers, key)
	return v
}

// loginStep sends one login request and returns the whole response, whose
// text it adds to the answers.
func (c *client) loginStep(csg, nsg pdu.Stage, keys ...pdu.KeyValue) *pdu.LoginResponse {
	c.t.Helper()
	req := &pdu.LoginRequest{
		Transit: nsg != 0, CurrentStage: csg, NextStage: nsg, ISID: [6]byte{0x80, 0, 0, 0, 0, c.isid}, TSIH: c.join, CID: c.cid,
		InitiatorTaskTag: 7, CmdSN: c.cmdSN, ExpStatSN: c.expStat, Data: pdu.AppendText(nil, keys...),
	}
	var text []byte
	for {
		c.send(req)
		rsp := expect[*pdu.LoginResponse](c)
		text = append(text, rsp.Data...)
		if rsp.Continue {
			req.Data, req.Transit, req.NextStage = nil, false, 0
			req.ExpStatSN = c.expStat
			continue
		}
		kvs, err := pdu.ParseText(text, pdu.TextLimits{Strict: true})
		if err != nil {
			c.t.Fatal(err)
		}
		c.answers = append(kvs, c.answers...)
		return rsp
	}
}

// send sends PDUs at once.
func (c *client) send(pdus ...pdu.PDU) {
	c.t.Helper()
	for _, p := range pdus {
		if err := c.w.Append(p); err != nil {
			c.t.Fatal(err)
		}
	}
	if err := c.w.Flush(); err != nil {
		c.t.Fatal(err)
	}
}

// recv reads a PDU, checks its sequence numbers and copies its data.
func (c *client) recv() pdu.PDU {
	c.t.Helper()
	p, err := c.tryRecv()
	if err != nil {
		c.t.Fatalf("receive: %v", err)
	}
	return p
}

func (c *client) tryRecv() (pdu.PDU, error) {
	h, err := c.r.Next()
	if err != nil {
		return nil, err
	}
	data, err := c.r.Data()
	if err != nil {
		return nil, err
	}
	var copied []byte
	if len(data) > 0 {
		copied = bytes.Clone(data)
	}
	p, err := pdu.Parse(h, copied)
	if err != nil {
		return nil, err
	}
	counts := true
	switch p := p.(type) {
	case *pdu.DataIn:
		counts = p.HasStatus
	case *pdu.R2T:
		counts = false
	case *pdu.NOPIn:
		counts = p.InitiatorTaskTag != pdu.ReservedTag
	case *pdu.LoginResponse:
		if c.expStat == 0 {
			c.expStat = p.StatSN // the first one
		}
		counts = p.StatusClass == 0
	}
	if counts {
		if n := h.StatSN(); n != c.expStat {
			return nil, fmt.Errorf("%v has StatSN %d, expected %d", h.Opcode(), n, c.expStat)
		}
		c.expStat++
	}
	c.maxCmd, c.lastExp = h.MaxCmdSN(), h.ExpCmdSN()
	return p, nil
}

// expect is recv for a PDU of a type.
func expect[P pdu.PDU](c *client) P {
	c.t.Helper()
	p := c.recv()
	q, ok := p.(P)
	if !ok {
		c.t.Fatalf("received %#v, expected %T", p, q)
	}
	return q
}

// closed asserts that the server ends the connection.
func (c *client) closed() {
	c.t.Helper()
	p, err := c.tryRecv()
	if err == nil {
		c.t.Fatalf("received %#v, expected the end of the connection", p)
	}
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		c.t.Fatal("the connection stays open")
	}
}

// command returns a SCSI Command PDU with the next task tag and CmdSN.
func (c *client) command(lun uint64, build func(*scsi.CDB) int, edtl int) *pdu.SCSICommand {
	p := &pdu.SCSICommand{
		Final: true, Attr: pdu.AttrSimple, LUN: pdu.LUNFromNumber(lun), InitiatorTaskTag: c.tag(),
		ExpectedDataTransferLength: uint32(edtl), CmdSN: c.next(), ExpStatSN: c.expStat,
	}
	build(&p.CDB)
	return p
}

// tag returns a new task tag.
func (c *client) tag() uint32 {
	if c.itt++; c.itt == pdu.ReservedTag {
		c.itt++
	}
	return c.itt
}

// next returns the CmdSN for a request.
func (c *client) next() uint32 {
	c.cmdSN++
	return c.cmdSN - 1
}

// An outcome is how a command ended.
type outcome struct {
	status              scsi.Status
	sense               scsi.Sense
	data                []byte
	overflow, underflow bool
	residual            uint32
	pdus                int // Data-In
}

// outcome reads until the command is answered.
func (c *client) outcome(p *pdu.SCSICommand) outcome {
	c.t.Helper()
	var o outcome
	for {
		switch p2 := c.recv().(type) {
		case *pdu.DataIn:
			if p2.InitiatorTaskTag != p.InitiatorTaskTag || p2.DataSN != uint32(o.pdus) || p2.BufferOffset != uint32(len(o.data)) {
				c.t.Fatalf("data-in out of order: %+v", p2)
			}
			o.data = append(o.data, p2.Data...)
			o.pdus++
			if p2.HasStatus {
				o.status = scsi.Status(p2.Status)
				o.overflow, o.underflow, o.residual = p2.Overflow, p2.Underflow, p2.ResidualCount
				return o
			}
		case *pdu.SCSIResponse:
			if p2.InitiatorTaskTag != p.InitiatorTaskTag || p2.ExpDataSN != uint32(o.pdus) {
				c.t.Fatalf("response: %+v after %d data-in", p2, o.pdus)
			}
			o.status = scsi.Status(p2.Status)
			o.overflow, o.underflow, o.residual = p2.Overflow, p2.Underflow, p2.ResidualCount
			if s := p2.Sense(); s != nil {
				var err error
				if o.sense, err = scsi.ParseSense(s); err != nil {
					c.t.Fatal(err)
				}
			}
			return o
		default:
			c.t.Fatalf("received %#v", p2)
		}
	}
}

// in executes a command that reads.
func (c *client) in(lun uint64, build func(*scsi.CDB) int, edtl int) outcome {
	c.t.Helper()
	p := c.command(lun, build, edtl)
	p.Read = edtl > 0
	c.send(p)
	return c.outcome(p)
}

// out executes a command that writes, with immediate data only.
func (c *client) out(lun uint64, build func(*scsi.CDB) int, data []byte) outcome {
	c.t.Helper()
	p := c.command(lun, build, len(data))
	p.Write = len(data) > 0
	p.Data = data
	c.send(p)
	return c.outcome(p)
}

// good asserts that a command ended well.
func (o outcome) good(t testing.TB) outcome {
	t.Helper()
	if o.status != scsi.StatusGood {
		t.Fatalf("status %v, sense %v", o.status, o.sense)
	}
	return o
}

// fails asserts that a command ended with sense data.
func (o outcome) fails(t testing.TB, key scsi.SenseKey, asc, ascq uint8) {
	t.Helper()
	if o.status != scsi.StatusCheckCondition || !o.sense.Is(key, asc, ascq) {
		t.Fatalf("status %v, sense %v, expected %v %02x/%02x", o.status, o.sense, key, asc, ascq)
	}
}

func readCDB(lba uint64, blocks uint32) func(*scsi.CDB) int {
	return func(cdb *scsi.CDB) int { return scsi.Read16(cdb, lba, blocks, 0) }
}

func writeCDB(lba uint64, blocks uint32) func(*scsi.CDB) int {
	return func(cdb *scsi.CDB) int { return scsi.Write16(cdb, lba, blocks, 0) }
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*13+i>>8) ^ seed
	}
	return b
}

// respond computes a CHAP response.
func respond(a chap.Algorithm, id, secret, challenge string) string {
	n, _ := pdu.ParseNumber(id)
	c, _ := pdu.ParseBinary(challenge, 1024)
	return pdu.FormatHex(chap.Response(a, byte(n), secret, c))
}
