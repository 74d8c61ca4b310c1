//go:build guest

package kernel

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/pdu"
	"github.com/goiscsi/goiscsi/test/targets"
)

// A spoiler is a connection on the way of which data segments get damaged.
type spoiler struct {
	net.Conn
	in, out wire
}

// Read implements net.Conn.
func (s *spoiler) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	s.in.pass(b[:n])
	return n, err
}

// Write implements net.Conn.
func (s *spoiler) Write(b []byte) (int, error) {
	b = bytes.Clone(b)
	s.out.pass(b)
	return s.Conn.Write(b)
}

// A wire follows the PDUs in one direction.
type wire struct {
	spoil  func(op pdu.Opcode) bool
	full   *atomic.Bool // full feature phase, with data digests
	header [pdu.BHSLen]byte
	have   int // bytes of the header
	left   int // bytes behind it
	damage bool
}

func (w *wire) pass(b []byte) {
	for len(b) > 0 {
		if w.have < len(w.header) {
			n := copy(w.header[w.have:], b)
			w.have += n
			b = b[n:]
			if w.have == len(w.header) {
				w.begin()
			}
			continue
		}
		if w.damage {
			b[0] ^= 0xff
			w.damage = false
		}
		n := min(len(b), w.left)
		w.left -= n
		b = b[n:]
		w.end()
	}
}

func (w *wire) begin() {
	n := int(binary.BigEndian.Uint32(w.header[4:]) & 0xffffff)
	w.left = int(w.header[4])*4 + (n+3)&^3
	if n > 0 && w.full.Load() {
		w.left += pdu.DigestLen
		w.damage = w.spoil(pdu.Opcode(w.header[0] & 0x3f))
	}
	w.end()
}

func (w *wire) end() {
	if w.left > 0 {
		return
	}
	w.have = 0
	if pdu.Opcode(w.header[0]&0x3f) == pdu.OpLoginResponse && w.header[1]&0x83 == 0x83 {
		w.full.Store(true)
	}
}

// TestLIORecoversDamage has data damaged on the way to and from the kernel's
// target, which agrees to error recovery level 1: they are right in the end, and
// the connection is the same. Data-Out are left alone: LIO (Linux 6.1) rejects a
// damaged one and lets go of the command while it waits for the rest, of which the
// kernel warns (iscsit_release_cmd) and the connection dies.
func TestLIORecoversDamage(t *testing.T) {
	l := targets.StartLIO(t, lioPortals, targets.Target{Name: lioTarget, LUNs: []targets.LUN{{Number: 0, Path: targets.SparseFile(t, 64<<20)}}})
	l.RecoveryLevel(lioTarget, 1)
	for _, op := range []pdu.Opcode{pdu.OpDataIn, pdu.OpSCSICommand} {
		t.Run(op.String(), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, uint64(op)))
			spoilt := 0
			spoil := func(o pdu.Opcode) bool {
				if o != op || rnd.IntN(5) > 0 {
					return false
				}
				spoilt++
				return true
			}
			never := func(pdu.Opcode) bool { return false }
			cfg := initiator.Config{
				InitiatorName: "iqn.2001-04.com.example:recovery", Target: lioTarget,
				Portal: initiator.Portal{Host: "127.0.0.1", TPGT: 1},
				Params: initiator.Params{
					ErrorRecoveryLevel: 1, DataDigest: []initiator.Digest{initiator.DigestCRC32C},
					MaxRecvDataSegmentLength: 8192, MaxXmitDataSegmentLength: 8192, MaxBurstLength: 32768, FirstBurstLength: 8192,
				},
				Timeouts: initiator.Timeouts{NoopInterval: 200 * time.Millisecond, NoopTimeout: 30 * time.Second},
				Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
					nc, err := new(net.Dialer).DialContext(ctx, network, address)
					if err != nil {
						return nil, err
					}
					full := new(atomic.Bool)
					s := &spoiler{Conn: nc, in: wire{spoil: spoil, full: full}, out: wire{spoil: never, full: full}}
					if op != pdu.OpDataIn {
						s.in.spoil, s.out.spoil = never, spoil
					}
					return s, nil
				},
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			s, err := initiator.Dial(ctx, cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if n := s.Info().Negotiated.ErrorRecoveryLevel; n != 1 {
				t.Fatalf("error recovery level %d", n)
			}
			v, err := s.OpenVolume(ctx, pdu.LUNFromNumber(0))
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			data, back := make([]byte, 128<<10), make([]byte, 128<<10)
			for i := range 20 {
				for j := range data {
					data[j] = byte(rnd.Uint32())
				}
				if _, err := v.WriteAt(ctx, data, int64(i)<<20); err != nil {
					t.Fatalf("write %d: %v", i, err)
				}
				if _, err := v.ReadAt(ctx, back, int64(i)<<20); err != nil {
					t.Fatalf("read %d: %v", i, err)
				}
				if !bytes.Equal(data, back) {
					t.Fatalf("other data at %d MiB", i)
				}
			}
			if i := s.Info(); i.Recoveries != 0 || spoilt == 0 {
				t.Errorf("%d damaged, %d recoveries: %v", spoilt, i.Recoveries, i.LastError)
			}
			st := s.Stats()
			t.Logf("%d damaged, %d SNACKs, %d rejects", spoilt, st.SNACKPDUs, st.RejectPDUs)
		})
	}
}

// TestLIOSeveralConnections spreads commands over four connections to the kernel's
// target, of which the leading one and others are lost, one after the other: the
// data are right, and each time there are four again. Most losses are made good
// within the session; but LIO (Linux 6.1) now and then closes all connections of
// a session when it is asked to close a lost one, which takes a new session.
//
// There is no such test of error recovery level 2, see docs/conformance.md.
func TestLIOSeveralConnections(t *testing.T) {
	l := targets.StartLIO(t, lioPortals, targets.Target{Name: lioTarget, LUNs: []targets.LUN{{Number: 0, Path: targets.SparseFile(t, 64<<20)}}})
	l.Param(lioTarget, "MaxConnections", "4\n")
	var mu sync.Mutex // guards conns
	var conns []net.Conn
	cfg := initiator.Config{
		InitiatorName: "iqn.2001-04.com.example:several", Target: lioTarget,
		Portal: initiator.Portal{Host: "127.0.0.1", TPGT: 1},
		Params: initiator.Params{
			MaxConnections: 4,
			DataDigest:     []initiator.Digest{initiator.DigestCRC32C}, FirstBurstLength: 8192, MaxBurstLength: 32768,
		},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, network, address)
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				conns = append(conns, nc)
			}
			return nc, err
		},
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s, err := initiator.Dial(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if i := s.Info(); i.Connections != 4 {
		t.Fatalf("%d connections, %d agreed on", i.Connections, i.Negotiated.MaxConnections)
	}
	v, err := s.OpenVolume(ctx, pdu.LUNFromNumber(0))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	var wg sync.WaitGroup
	var enough atomic.Bool
	for w := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(w)))
			data, back := make([]byte, 64<<10), make([]byte, 64<<10)
			for i := 0; !enough.Load(); i++ {
				for j := range data {
					data[j] = byte(rnd.Uint32())
				}
				off := int64(w)<<24 + int64(i%100)<<17
				if _, err := v.WriteAt(ctx, data, off); err != nil {
					t.Errorf("write: %v", err)
					return
				}
				if _, err := v.ReadAt(ctx, back, off); err != nil {
					t.Errorf("read: %v", err)
					return
				}
				if !bytes.Equal(data, back) {
					t.Errorf("other data at %d", off)
					return
				}
			}
		})
	}
	const losses = 3
	for n := range losses {
		before := s.Info()
		mu.Lock()
		victim := conns[len(conns)-1]
		if n == 0 {
			victim = conns[0] // the leading one
		}
		mu.Unlock()
		victim.Close()
		for {
			i := s.Info()
			if i.Connections == 4 && i.Recoveries+i.ConnectionRecoveries > before.Recoveries+before.ConnectionRecoveries {
				break
			}
			select {
			case <-ctx.Done():
				t.Fatalf("%d connections, %v", i.Connections, i.LastError)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	enough.Store(true)
	wg.Wait()
	i := s.Info()
	t.Logf("%d losses made good within the session, %d by a new one: %v", i.ConnectionRecoveries, i.Recoveries, i.LastError)
	if err := s.Logout(ctx); err != nil {
		t.Error(err)
	}
}
