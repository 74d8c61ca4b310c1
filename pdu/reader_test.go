package pdu_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/pdu"
)

// stream writes the PDUs of the golden table, with long payloads mixed in.
func stream(t testing.TB, header, data bool) ([]pdu.PDU, []byte) {
	t.Helper()
	var pdus []pdu.PDU
	for i, tt := range golden {
		pdus = append(pdus, tt.pdu)
		for _, n := range []int{1, 511, 512, 513, 4095 + i, 70000 + i} {
			if n > 4096 && i%8 != 0 {
				continue // a few are enough for a source that gives single bytes
			}
			pdus = append(pdus, &pdu.DataOut{DataSN: uint32(n), Data: pattern(n)})
		}
	}
	var out bytes.Buffer
	w := pdu.NewWriter(&out)
	w.SetDigests(header, data)
	for _, p := range pdus {
		if err := w.Append(p); err != nil {
			t.Fatal(err)
		}
	}
	size := w.Buffered()
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if size != out.Len() {
		t.Fatalf("Buffered said %d, Flush wrote %d bytes", size, out.Len())
	}
	return pdus, out.Bytes()
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// waysToRead are the ways in which a Reader gives out a data segment.
var waysToRead = map[string]func(r *pdu.Reader, h *pdu.Header) ([]byte, error){
	"Data": func(r *pdu.Reader, h *pdu.Header) ([]byte, error) { return r.Data() },
	"ReadData": func(r *pdu.Reader, h *pdu.Header) ([]byte, error) {
		b := make([]byte, h.DataSegmentLength())
		return b, r.ReadData(b)
	},
	"ReadDataPart": func(r *pdu.Reader, h *pdu.Header) ([]byte, error) {
		b := make([]byte, h.DataSegmentLength())
		for part := b; len(part) > 0; {
			n := (len(part) + 1) / 2
			if err := r.ReadDataPart(part[:n]); err != nil {
				return nil, err
			}
			part = part[n:]
			if r.DataLeft() != len(part) {
				return nil, fmt.Errorf("DataLeft says %d, want %d", r.DataLeft(), len(part))
			}
		}
		return b, r.FinishData()
	},
}

func TestReaderReadsWhatWriterWrote(t *testing.T) {
	sources := map[string]func(io.Reader) io.Reader{
		"whole":   func(r io.Reader) io.Reader { return r },
		"halves":  iotest.HalfReader,
		"dataerr": iotest.DataErrReader,
		"bytes":   iotest.OneByteReader,
		"vector":  func(r io.Reader) io.Reader { return vectorSource{r} },
		"vector, bytes": func(r io.Reader) io.Reader {
			return vectorSource{iotest.OneByteReader(r)}
		},
	}
	for _, digests := range []bool{false, true} {
		pdus, wire := stream(t, digests, digests)
		for source, wrap := range sources {
			for way, read := range waysToRead {
				t.Run(fmt.Sprintf("digests=%v/%s/%s", digests, source, way), func(t *testing.T) {
					r := pdu.NewReader(wrap(bytes.NewReader(wire)), 0)
					r.SetDigests(digests, digests)
					r.SetMaxDataSegmentLength(1 << 20)
					for i, want := range pdus {
						h, err := r.Next()
						if err != nil {
							t.Fatalf("pdu %d: %v", i, err)
						}
						data, err := read(r, h)
						if err != nil {
							t.Fatalf("pdu %d: data: %v", i, err)
						}
						if len(data) == 0 {
							data = nil
						}
						got, err := pdu.Parse(h, data)
						if err != nil {
							t.Fatalf("pdu %d: %v", i, err)
						}
						if !reflect.DeepEqual(want, got) {
							t.Fatalf("pdu %d differs (-want +got):\n%s", i, cmp.Diff(want, got))
						}
					}
					if _, err := r.Next(); err != io.EOF {
						t.Errorf("at the end: %v, want io.EOF", err)
					}
				})
			}
		}
	}
}

// A vectorSource is a VectorReader over any source: it fills both buffers as
// far as the source goes along.
type vectorSource struct{ io.Reader }

func (s vectorSource) ReadVector(a, b []byte) (int, error) {
	n, err := s.Read(a)
	if n < len(a) || err != nil {
		return n, err
	}
	more, err := s.Read(b)
	if err == io.EOF {
		err = nil // it comes again
	}
	return n + more, err
}

func TestReaderSkipsUnreadData(t *testing.T) {
	pdus, wire := stream(t, true, true)
	r := pdu.NewReader(iotest.HalfReader(bytes.NewReader(wire)), 0)
	r.SetDigests(true, true)
	r.SetMaxDataSegmentLength(1 << 20)
	for i, want := range pdus {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("pdu %d: %v", i, err)
		}
		if h.Opcode() != want.Opcode() {
			t.Fatalf("pdu %d: %v, want %v", i, h.Opcode(), want.Opcode())
		}
		if n := h.DataSegmentLength(); i%2 == 0 && n > 0 { // begin with it only
			if err := r.ReadDataPart(make([]byte, n/2)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("at the end: %v, want io.EOF", err)
	}
}

func TestReaderEndOfStream(t *testing.T) {
	var out bytes.Buffer
	w := pdu.NewWriter(&out)
	w.SetDigests(true, true)
	if err := w.Append(&pdu.NOPOut{Data: []byte("ping!")}); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	for n := range out.Len() {
		r := pdu.NewReader(bytes.NewReader(out.Bytes()[:n]), 0)
		r.SetDigests(true, true)
		_, err := r.Next()
		if err == nil {
			_, err = r.Data()
		}
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		if err != want {
			t.Errorf("stream cut at %d: %v, want %v", n, err, want)
		}
		if _, again := r.Next(); again != err {
			t.Errorf("stream cut at %d: error is not sticky: %v", n, again)
		}
	}
}

func TestReaderRefusesLongSegment(t *testing.T) {
	wire, err := (&pdu.NOPOut{Data: make([]byte, 8193)}).AppendHeader(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := pdu.NewReader(bytes.NewReader(wire), 0)
	_, err = r.Next()
	var fe *pdu.FormatError
	if !errors.As(err, &fe) || fe.Field != "DataSegmentLength" {
		t.Errorf("got %v, want a FormatError for DataSegmentLength", err)
	}
}

func TestReaderHeaderDigestError(t *testing.T) {
	wire, _ := (&pdu.NOPOut{}).AppendHeader(nil)
	wire = append(wire, 1, 2, 3, 4)
	r := pdu.NewReader(bytes.NewReader(wire), 0)
	r.SetDigests(true, false)
	_, err := r.Next()
	var de *pdu.DigestError
	if !errors.As(err, &de) || !de.Header || de.Want != 0x04030201 {
		t.Errorf("got %v, want a header DigestError", err)
	}
}

func TestReaderDataDigestErrorKeepsFraming(t *testing.T) {
	for way, read := range waysToRead {
		for _, n := range []int{5, 5000, 100_000} {
			t.Run(fmt.Sprintf("%s/%d", way, n), func(t *testing.T) {
				var out bytes.Buffer
				w := pdu.NewWriter(&out)
				w.SetDigests(false, true)
				for _, p := range []pdu.PDU{&pdu.NOPOut{Data: pattern(n)}, &pdu.LogoutRequest{}} {
					if err := w.Append(p); err != nil {
						t.Fatal(err)
					}
				}
				if err := w.Flush(); err != nil {
					t.Fatal(err)
				}
				wire := out.Bytes()
				wire[pdu.BHSLen+n-1] ^= 1
				r := pdu.NewReader(bytes.NewReader(wire), 0)
				r.SetDigests(false, true)
				r.SetMaxDataSegmentLength(1 << 20)
				h, err := r.Next()
				if err != nil {
					t.Fatal(err)
				}
				var de *pdu.DigestError
				if _, err := read(r, h); !errors.As(err, &de) || de.Header {
					t.Fatalf("got %v, want a data DigestError", err)
				}
				if h, err = r.Next(); err != nil || h.Opcode() != pdu.OpLogoutRequest {
					t.Errorf("next pdu: %v, %v", h, err)
				}
			})
		}
	}
}

func TestReaderBuffered(t *testing.T) {
	pdus, wire := stream(t, true, true)
	feed := make(chan []byte, 1)
	r := pdu.NewReader(readerFunc(func(p []byte) (int, error) {
		select {
		case b := <-feed:
			return copy(p, b), nil
		default:
			return 0, io.EOF // a read that should not have been
		}
	}), 1<<23)
	r.SetDigests(true, true)
	r.SetMaxDataSegmentLength(1 << 20)
	feed <- wire
	for i := range pdus {
		if i > 0 && (r.Buffered() == 0 || !r.Ready()) {
			t.Fatalf("before pdu %d: Buffered %d, Ready %v", i, r.Buffered(), r.Ready())
		}
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if r.Buffered() != 0 || r.Ready() {
		t.Errorf("at the end: Buffered %d, Ready %v", r.Buffered(), r.Ready())
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestReaderGivesUpOnEmptyReads(t *testing.T) {
	r := pdu.NewReader(readerFunc(func([]byte) (int, error) { return 0, nil }), 0)
	if _, err := r.Next(); err != io.ErrNoProgress {
		t.Errorf("got %v, want io.ErrNoProgress", err)
	}
}

func TestReaderRefusesWrongBuffer(t *testing.T) {
	_, wire := stream(t, false, false)
	r := pdu.NewReader(bytes.NewReader(wire), 0)
	r.SetMaxDataSegmentLength(1 << 20)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if r.ReadData(make([]byte, h.DataSegmentLength()+1)) == nil {
			t.Fatal("ReadData filled a buffer longer than the segment")
		}
		if r.ReadDataPart(make([]byte, h.DataSegmentLength()+1)) == nil {
			t.Fatal("ReadDataPart filled a buffer longer than the segment")
		}
	}
}
