//go:build integration || guest

package matrix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/pdu"
	"github.com/goiscsi/goiscsi/test/targets"
)

const (
	targetName = "iqn.2001-04.com.example:matrix"
	diskSize   = 16 << 20
)

var (
	none   = []initiator.Digest{initiator.DigestNone}
	crc32c = []initiator.Digest{initiator.DigestCRC32C}
)

// A combination is what one session offers.
type combination struct {
	name   string
	params initiator.Params
}

// bursts are FirstBurstLength and MaxBurstLength with the longest data segment
// that we take and send.
var bursts = []struct{ first, most, segment int }{
	{262144, 16776192, 262144}, // open-iscsi's
	{65536, 262144, 8192},      // the RFC's defaults
	{262144, 65536, 32768},     // first above max
	{512, 512, 512},            // the least
	{4096, 12288, 65536},       // no multiple of one another's halves
}

// combinations returns all of them.
func combinations() []combination {
	var all []combination
	for _, digests := range []struct {
		name         string
		header, data []initiator.Digest
	}{{"none", none, none}, {"header", crc32c, none}, {"data", none, crc32c}, {"both", crc32c, crc32c}} {
		for _, immediate := range []bool{true, false} {
			for _, r2t := range []bool{true, false} {
				for _, b := range bursts {
					all = append(all, combination{
						name: fmt.Sprintf("digests=%s/immediate=%v/r2t=%v/first=%d/max=%d", digests.name, immediate, r2t, b.first, b.most),
						params: initiator.Params{
							HeaderDigest: digests.header, DataDigest: digests.data,
							NoImmediateData: !immediate, InitialR2T: r2t,
							FirstBurstLength: b.first, MaxBurstLength: b.most,
							MaxRecvDataSegmentLength: b.segment, MaxXmitDataSegmentLength: b.segment,
							DefaultTime2Wait: initiator.Immediately,
						},
					})
				}
			}
		}
	}
	return all
}

// A subject is a target with one disk.
type subject struct {
	portal     targets.PortalAddr
	lun        uint64
	file       string // backing file where it can be read, else ""
	initialR2T bool   // the target insists on it
}

// run takes the subject through every shares-th combination from share on: all
// for 0 and 1.
func (s *subject) run(t *testing.T, share, shares int) {
	all := combinations()
	// In an order that puts unlike ones next to one another, the same each time.
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var was []byte
	for i, c := range all {
		if i%shares != share {
			continue
		}
		if !t.Run(c.name, func(t *testing.T) { was = s.one(t, c, uint64(i+1), was) }) {
			was = nil
		}
	}
}

// one is one session. It returns what is on the disk afterwards.
func (s *subject) one(t *testing.T, c combination, seed uint64, was []byte) []byte {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	sess, err := initiator.Dial(ctx, initiator.Config{
		InitiatorName: "iqn.2001-04.com.example:client",
		Target:        targetName,
		Portal:        initiator.Portal{Host: s.portal.Host, Port: uint16(s.portal.Port), TPGT: initiator.UnknownTPGT},
		Params:        c.params,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sess.Close()
	s.checkNegotiated(t, c, sess.Info().Negotiated)
	v, err := sess.OpenVolume(ctx, pdu.LUNFromNumber(s.lun))
	if err != nil {
		t.Fatal(err)
	}
	// Thousands of PDUs, in every combination: the tiny bursts need fewer bytes.
	size := int64(4 << 20)
	if c.params.MaxBurstLength < 4096 {
		size = 512 << 10
	}
	got := make([]byte, size)
	if was != nil {
		before := make([]byte, len(was))
		if _, err := v.ReadAt(ctx, before, 0); err != nil {
			t.Fatal(err)
		}
		same(t, "what the session before wrote", before, was)
	}
	want := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = r.Read(want) // never fails
	if err := inPieces(seed, size, func(off, n int64) error {
		_, err := v.WriteAt(ctx, want[off:off+n], off)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	clear(got)
	if err := inPieces(seed+1, size, func(off, n int64) error {
		_, err := v.ReadAt(ctx, got[off:off+n], off)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	same(t, "what was read back", got, want)
	if err := v.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if s.file != "" {
		f, err := os.Open(s.file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := io.ReadFull(f, got); err != nil {
			t.Fatal(err)
		}
		same(t, "the backing file", got, want)
	}
	if n := sess.Info().Recoveries; n != 0 {
		t.Errorf("the connection was lost %d times: %v", n, sess.Info().LastError)
	}
	if err := v.Disconnect(ctx); err != nil {
		t.Error(err)
	}
	return want
}

// checkNegotiated sees to it that the combination is what its name says.
func (s *subject) checkNegotiated(t *testing.T, c combination, got initiator.Params) {
	t.Helper()
	if got.HeaderDigest[0] != c.params.HeaderDigest[0] || got.DataDigest[0] != c.params.DataDigest[0] {
		t.Errorf("digests %v, %v", got.HeaderDigest, got.DataDigest)
	}
	if got.NoImmediateData != c.params.NoImmediateData {
		t.Errorf("immediate data: %v", !got.NoImmediateData)
	}
	if want := c.params.InitialR2T || s.initialR2T; got.InitialR2T != want {
		t.Errorf("InitialR2T %v, want %v", got.InitialR2T, want)
	}
	if got.MaxBurstLength > c.params.MaxBurstLength || got.FirstBurstLength > min(c.params.FirstBurstLength, c.params.MaxBurstLength) {
		t.Errorf("bursts %d, %d", got.FirstBurstLength, got.MaxBurstLength)
	}
}

// inPieces cuts a range into pieces of 512 bytes to a megabyte and works on
// eight at a time.
func inPieces(seed uint64, size int64, f func(off, n int64) error) error {
	const workers = 8
	type piece struct{ off, n int64 }
	pieces := make(chan piece)
	errs := make(chan error, workers)
	for range workers { // end when there are no more pieces
		go func() {
			var err error
			for p := range pieces {
				err = errors.Join(err, f(p.off, p.n))
			}
			errs <- err
		}()
	}
	r := rand.New(rand.NewPCG(seed, 7))
	for off := int64(0); off < size; {
		n := int64(512) << r.IntN(12)
		n = min(n-512*r.Int64N(2)*min(1, n/1024), size-off)
		pieces <- piece{off, n}
		off += n
	}
	close(pieces)
	var err error
	for range workers {
		err = errors.Join(err, <-errs)
	}
	return err
}

// same compares, and says where the first difference is.
func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	n := 0
	for got[n] == want[n] {
		n++
	}
	t.Fatalf("%s is something else from byte %d on", what, n)
}
