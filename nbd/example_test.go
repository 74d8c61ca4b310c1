//go:build linux

package nbd_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/goiscsi/goiscsi/nbd"
	"github.com/goiscsi/goiscsi/nbd/nbdtest"
)

// A textBackend serves a text, read-only.
type textBackend struct{ text io.ReaderAt }

func (b textBackend) Submit(r *nbd.Request) {
	if _, err := b.text.ReadAt(r.Buffer(), int64(r.Offset)); err != nil && err != io.EOF {
		r.Complete(syscall.EIO)
		return
	}
	r.Complete(0)
}

func (textBackend) Kick() {}

// A server that offers a text as a disk. Any NBD client can read it, for example
// nbdcopy "nbd+unix:///hello?socket=nbd.sock" -.
func ExampleServer() {
	dir, err := os.MkdirTemp("", "nbd-example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ln, err := net.Listen("unix", filepath.Join(dir, "nbd.sock"))
	if err != nil {
		log.Fatal(err)
	}
	text := strings.NewReader("hello, disk")
	s := nbd.NewServer(nil)
	if err := s.Add(&nbd.Export{Name: "hello", Size: uint64(text.Size()), ReadOnly: true}, textBackend{text}); err != nil {
		log.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- s.Serve(context.Background(), ln) }()

	nc, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	client, err := nbdtest.NewClient(nc, nbd.HandshakeFixedNewstyle|nbd.HandshakeNoZeroes)
	if err != nil {
		log.Fatal(err)
	}
	disk, _, err := client.Go("hello")
	if err != nil {
		log.Fatal(err)
	}
	b, err := disk.Read(7, 4)
	fmt.Printf("%s %v\n", b, err)
	s.Close()
	fmt.Println(<-served)
	// Output:
	// disk <nil>
	// nbd server closed
}
