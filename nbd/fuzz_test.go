//go:build linux

package nbd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"reflect"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/nbd"
	"github.com/goiscsi/goiscsi/nbd/nbdtest"
)

// A scriptConn is a connection whose peer sends what is in r, reads everything,
// and closes.
type scriptConn struct {
	net.Conn
	r *bytes.Reader
}

func (c *scriptConn) Read(b []byte) (int, error)       { return c.r.Read(b) }
func (c *scriptConn) Write(b []byte) (int, error)      { return len(b), nil }
func (c *scriptConn) Close() error                     { return nil }
func (c *scriptConn) SetDeadline(time.Time) error      { return nil }
func (c *scriptConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptConn) SetWriteDeadline(time.Time) error { return nil }

func FuzzServeConn(f *testing.F) {
	var script []byte
	for _, h := range []nbd.RequestHeader{
		{Cmd: nbd.CmdWrite, Offset: 512, Length: 512},
		{Cmd: nbd.CmdRead, Cookie: 1, Length: 1024},
		{Cmd: nbd.CmdFlush},
		{Cmd: nbd.CmdTrim, Length: 512},
		{Cmd: nbd.CmdDisconnect},
	} {
		script = h.Append(script)
		if h.Cmd == nbd.CmdWrite {
			script = append(script, make([]byte, h.Length)...)
		}
	}
	f.Add(script)
	m := nbdtest.NewMemory(64 << 10)
	f.Fuzz(func(t *testing.T, b []byte) {
		pool := nbd.NewBufferPool(0)
		e := m.Export("")
		e.MaxBlockSize = 32 << 10
		// It has to return, whatever comes.
		_ = nbd.ServeConn(context.Background(), &scriptConn{r: bytes.NewReader(b)}, e, m, &nbd.ServerOptions{Pool: pool})
		if n := pool.Outstanding(); n != 0 {
			t.Errorf("%d buffers did not come back", n)
		}
	})
}

func FuzzHandshake(f *testing.F) {
	f.Add(nbd.AppendOption([]byte{0, 0, 0, 3}, nbd.OptGo, (&nbd.InfoRequest{Name: "disk"}).Append(nil)))
	f.Add(nbd.AppendOption(nbd.AppendOption([]byte{0, 0, 0, 3}, nbd.OptList, nil), nbd.OptExportName, []byte("disk")))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := nbd.NewServer(nil)
		m := nbdtest.NewMemory(4096)
		if err := s.Add(m.Export("disk"), m); err != nil {
			t.Fatal(err)
		}
		ln := &oneListener{nc: &scriptConn{r: bytes.NewReader(b)}, done: make(chan struct{})}
		served := make(chan error, 1)
		go func() { served <- s.Serve(context.Background(), ln) }()
		<-ln.done
		if err := s.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
		<-served
	})
}

// A oneListener accepts one connection and then ends.
type oneListener struct {
	nc   net.Conn
	done chan struct{}
}

func (l *oneListener) Accept() (net.Conn, error) {
	if l.nc == nil {
		close(l.done)
		return nil, net.ErrClosed
	}
	nc := l.nc
	l.nc = nil
	return nc, nil
}

func (l *oneListener) Close() error   { return nil }
func (l *oneListener) Addr() net.Addr { return nil }

// FuzzWire feeds the same bytes to the decoder of each message: what it accepts
// must be encoded as it was.
func FuzzWire(f *testing.F) {
	for _, seed := range [][]byte{
		(&nbd.RequestHeader{Cmd: nbd.CmdRead, Length: 4096}).Append(nil),
		nbd.SimpleReply{Error: 5, Cookie: 1}.Append(nil),
		(&nbd.InfoRequest{Name: "disk", Infos: []nbd.InfoType{nbd.InfoName, nbd.InfoBlockSize}}).Append(nil),
		{0, 0, 0, 0, 0, 0},
		{255, 255, 255, 255, 0, 0},
		nbd.Info{Type: nbd.InfoExport, Size: 1, Flags: 1}.Append(nil),
		nbd.Info{Type: nbd.InfoBlockSize, Minimum: 1, Preferred: 2, Maximum: 3}.Append(nil),
		nbd.Info{Type: nbd.InfoName, Text: "disk"}.Append(nil),
		nbd.AppendOption(nil, nbd.OptList, nil),
		nbd.AppendOptionReply(nil, nbd.OptList, nbd.RepAck, nil),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := nbd.ParseRequest(b); err == nil && !bytes.Equal(h.Append(nil), b[:nbd.RequestSize]) {
			t.Errorf("request %x does not survive a round trip", b)
		}
		if r, err := nbd.ParseSimpleReply(b); err == nil && !bytes.Equal(r.Append(nil), b[:nbd.ReplySize]) {
			t.Errorf("reply %x does not survive a round trip", b)
		}
		if r, err := nbd.ParseInfoRequest(b); err == nil && !bytes.Equal(r.Append(nil), b) {
			t.Errorf("request for information %x does not survive a round trip", b)
		}
		if i, err := nbd.ParseInfo(b); err == nil {
			if again, err := nbd.ParseInfo(i.Append(nil)); err != nil || !reflect.DeepEqual(again, i) {
				t.Errorf("%+v does not survive a round trip: %+v, %v", i, again, err)
			}
		}
		if h, err := nbd.ParseOptionHeader(b); err == nil && binary.BigEndian.Uint32(b[12:]) != h.Length {
			t.Errorf("option %x: %+v", b, h)
		}
		if h, err := nbd.ParseOptionReplyHeader(b); err == nil && binary.BigEndian.Uint32(b[16:]) != h.Length {
			t.Errorf("reply to an option %x: %+v", b, h)
		}
	})
}
