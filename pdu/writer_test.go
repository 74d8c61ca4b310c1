package pdu_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/goiscsi/goiscsi/pdu"
)

func TestWriterPadsAndDigests(t *testing.T) {
	var out bytes.Buffer
	w := pdu.NewWriter(&out)
	w.SetDigests(true, true)
	p := &pdu.NOPOut{Data: []byte("12345")}
	if err := w.Append(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	bhs, err := p.AppendHeader(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := pdu.AppendDigest(bhs, pdu.CRC32C(0, bhs))
	data := []byte("12345\x00\x00\x00")
	want = append(want, data...)
	want = pdu.AppendDigest(want, pdu.CRC32C(0, data))
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("got  %x\nwant %x", out.Bytes(), want)
	}
}

func TestWriterNoDataDigestWithoutData(t *testing.T) {
	var out bytes.Buffer
	w := pdu.NewWriter(&out)
	w.SetDigests(false, true)
	if err := w.Append(&pdu.NOPOut{}); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if out.Len() != pdu.BHSLen {
		t.Errorf("wrote %d bytes", out.Len())
	}
}

func TestWriterVecEqualsPayload(t *testing.T) {
	data := pattern(3001)
	write := func(f func(w *pdu.Writer) error) []byte {
		var out bytes.Buffer
		w := pdu.NewWriter(&out)
		w.SetDigests(true, true)
		if err := f(w); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	whole := write(func(w *pdu.Writer) error { return w.Append(&pdu.DataOut{Data: data}) })
	parts := write(func(w *pdu.Writer) error {
		return w.AppendVec(&pdu.DataOut{}, [][]byte{data[:1], nil, data[1:1000], data[1000:]})
	})
	if !bytes.Equal(whole, parts) {
		t.Error("a payload in parts is not written as the whole is")
	}
}

func TestWriterErrorLeavesItAsItWas(t *testing.T) {
	var out bytes.Buffer
	w := pdu.NewWriter(&out)
	if err := w.Append(&pdu.NOPOut{InitiatorTaskTag: 1}); err != nil {
		t.Fatal(err)
	}
	bad := &pdu.SCSICommand{ExtendedCDB: make([]byte, 2000)}
	if w.Append(bad) == nil || w.AppendVec(bad, nil) == nil {
		t.Fatal("accepted an overlong CDB")
	}
	if w.AppendVec(&pdu.DataOut{}, [][]byte{make([]byte, 1<<23), make([]byte, 1<<23)}) == nil {
		t.Fatal("accepted a segment of 2^24 bytes")
	}
	if err := w.Append(&pdu.NOPOut{InitiatorTaskTag: 2}); err != nil {
		t.Fatal(err)
	}
	if w.Buffered() != 2*pdu.BHSLen {
		t.Errorf("Buffered says %d", w.Buffered())
	}
	if err := w.Flush(); err != nil || out.Len() != 2*pdu.BHSLen {
		t.Errorf("wrote %d bytes, %v", out.Len(), err)
	}
}

func TestWriterResetForgets(t *testing.T) {
	var out bytes.Buffer
	w := pdu.NewWriter(&out)
	if err := w.Append(&pdu.NOPOut{Data: pattern(1000)}); err != nil {
		t.Fatal(err)
	}
	w.AppendRaw(make([]byte, 2<<20))
	w.Reset()
	if err := w.Flush(); err != nil || out.Len() != 0 || w.Buffered() != 0 {
		t.Errorf("wrote %d bytes after Reset, %v", out.Len(), err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func TestWriterReturnsDestinationsError(t *testing.T) {
	want := errors.New("gone")
	w := pdu.NewWriter(failingWriter{want})
	for _, n := range []int{0, 1000} {
		if err := w.Append(&pdu.NOPOut{Data: pattern(n)}); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != want {
			t.Errorf("%d bytes of data: %v", n, err)
		}
		if w.Buffered() != 0 {
			t.Errorf("%d bytes kept after an error", w.Buffered())
		}
	}
}

// tcpPair returns two ends of a loopback connection; what is not read from
// the second is discarded by it until the test ends.
func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	b, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return a, b
}

func TestReaderAndWriterDoNotAllocate(t *testing.T) {
	a, b := tcpPair(t)
	w, r := pdu.NewWriter(a), pdu.NewReader(b, 0)
	w.SetDigests(true, true)
	r.SetDigests(true, true)
	r.SetMaxDataSegmentLength(1 << 18)
	data, dst := pattern(16384), make([]byte, 16384)
	cmd := &pdu.SCSICommand{Final: true, Read: true, Attr: pdu.AttrSimple}
	out := &pdu.DataOut{Final: true}
	var gotCmd pdu.SCSICommand
	var gotOut pdu.DataOut
	var failed error
	check := func(err error) {
		if err != nil {
			failed = err
		}
	}
	round := func() {
		for range 4 {
			out.Data = data
			check(w.Append(cmd))
			check(w.Append(out))
			out.Data = data[:100]
			check(w.Append(out))
		}
		check(w.Flush())
		for range 4 {
			h, err := r.Next()
			check(err)
			check(gotCmd.Decode(h, nil))
			h, err = r.Next()
			check(err)
			check(gotOut.Decode(h, nil))
			check(r.ReadData(dst))
			h, err = r.Next()
			check(err)
			b, err := r.Data()
			check(err)
			check(gotOut.Decode(h, b))
		}
	}
	if n := testing.AllocsPerRun(100, round); n != 0 || failed != nil {
		t.Errorf("%v allocations a round, error %v", n, failed)
	}
}

func BenchmarkWriter(b *testing.B) {
	for _, bm := range sizes {
		b.Run(bm.name, func(b *testing.B) {
			w := pdu.NewWriter(io.Discard)
			w.SetDigests(bm.digest, bm.digest)
			p := &pdu.DataOut{Final: true, Data: pattern(bm.size)}
			b.SetBytes(int64(bm.size))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := w.Append(p); err != nil {
					b.Fatal(err)
				}
				if i%32 == 31 {
					if err := w.Flush(); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

func BenchmarkReader(b *testing.B) {
	for _, bm := range sizes {
		b.Run(bm.name, func(b *testing.B) {
			var wire bytes.Buffer
			w := pdu.NewWriter(&wire)
			w.SetDigests(bm.digest, bm.digest)
			for range 32 {
				if err := w.Append(&pdu.DataOut{Final: true, Data: pattern(bm.size)}); err != nil {
					b.Fatal(err)
				}
			}
			if err := w.Flush(); err != nil {
				b.Fatal(err)
			}
			src := bytes.NewReader(wire.Bytes())
			r := pdu.NewReader(readerFunc(func(p []byte) (int, error) {
				if src.Len() == 0 {
					src.Reset(wire.Bytes())
				}
				return src.Read(p)
			}), 0)
			r.SetDigests(bm.digest, bm.digest)
			r.SetMaxDataSegmentLength(1 << 20)
			dst := make([]byte, bm.size)
			var p pdu.DataOut
			b.SetBytes(int64(bm.size))
			b.ReportAllocs()
			for b.Loop() {
				h, err := r.Next()
				if err != nil {
					b.Fatal(err)
				}
				if err := p.Decode(h, nil); err != nil {
					b.Fatal(err)
				}
				if err := r.ReadData(dst); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

var sizes = []struct {
	name   string
	size   int
	digest bool
}{
	{"size=0/digest=none", 0, false},
	{"size=512/digest=none", 512, false},
	{"size=4096/digest=none", 4096, false},
	{"size=4096/digest=crc32c", 4096, true},
	{"size=65536/digest=none", 65536, false},
	{"size=65536/digest=crc32c", 65536, true},
}

func BenchmarkCodec(b *testing.B) {
	for _, tt := range golden {
		b.Run("pdu="+tt.name, func(b *testing.B) {
			h := header(unhex(b, tt.wire))
			p := pdu.New(tt.pdu.Opcode())
			dst := make([]byte, 0, 2*pdu.BHSLen)
			b.ReportAllocs()
			for b.Loop() {
				if err := p.Decode(h, nil); err != nil {
					b.Fatal(err)
				}
				if _, err := p.AppendHeader(dst); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
