package initiator_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"strings"

	"github.com/kdomanski/iso9660"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// A whole program: find out what a portal offers, log in with CHAP, write and
// read a disk, log out. No daemon, no root, no kernel driver.
func ExampleConnect() {
	ctx := context.Background()
	address, stop := exampleTarget() // or "192.0.2.1:3260"
	defer stop()

	portal, err := initiator.ParsePortal(address)
	check(err)
	me := "iqn.2026-01.com.example:client"
	found, err := initiator.Discover(ctx, initiator.DiscoveryConfig{InitiatorName: me, Portal: portal})
	check(err)
	vol, err := initiator.Connect(ctx, initiator.Target{
		Name: found[0].Target, Portals: []initiator.Portal{found[0].Portal}, LUN: 1, InitiatorName: me,
		CHAP: initiator.CHAP{Username: "alice", Password: "correct horse"},
	})
	check(err)
	defer vol.Disconnect(ctx) // logs out

	disk := vol.IO(ctx) // an io.ReaderAt and io.WriterAt
	block := make([]byte, vol.BlockSize())
	copy(block, "hello, disk")
	_, err = disk.WriteAt(block, 4096)
	check(err)
	text := make([]byte, 11)
	_, err = disk.ReadAt(text, 4096)
	check(err)
	fmt.Printf("%s: %d MiB, reads %q\n", found[0].Target, vol.Size()>>20, text)
	// Output: iqn.2026-01.com.example:disk: 64 MiB, reads "hello, disk"
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// Ask a portal for its targets.
func ExampleDiscover() {
	address, stop := exampleTarget()
	defer stop()

	portal, err := initiator.ParsePortal(address)
	if err != nil {
		log.Fatal(err)
	}
	targets, err := initiator.Discover(context.Background(), initiator.DiscoveryConfig{
		InitiatorName: "iqn.2026-01.com.example:client",
		Portal:        portal,
		OnSkip:        func(s initiator.SkippedRecord) { log.Printf("%q: %v", s.Target, s.Err) },
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, t := range targets {
		fmt.Println(t.Target, "in portal group", t.Portal.TPGT)
	}
	// Output: iqn.2026-01.com.example:disk in portal group 1
}

// Mutual CHAP: we prove who we are, and so does the target. Errors tell what
// was wrong.
func ExampleCHAP() {
	address, stop := exampleTarget()
	defer stop()

	portal, err := initiator.ParsePortal(address)
	if err != nil {
		log.Fatal(err)
	}
	cfg := initiator.Config{
		InitiatorName: "iqn.2026-01.com.example:client",
		Target:        "iqn.2026-01.com.example:disk",
		Portal:        portal,
		CHAP: initiator.CHAP{
			Username: "alice", Password: "wrong",
			UsernameIn: "disk", PasswordIn: "battery staple",
			Algorithms: []initiator.CHAPAlgorithm{initiator.CHAPSHA256, initiator.CHAPMD5},
		},
	}
	_, err = initiator.Dial(context.Background(), cfg)
	fmt.Println("refused:", errors.Is(err, initiator.ErrAuth))

	cfg.CHAP.Password = "correct horse"
	s, err := initiator.Dial(context.Background(), cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer s.Logout(context.Background())
	fmt.Printf("logged in as %s with password %v\n", cfg.CHAP.Username, cfg.CHAP.Password)
	// Output:
	// refused: true
	// logged in as alice with password ********
}

// Copy one disk to another, several requests at a time, without a buffer for
// each block that is only zeroes.
func ExampleVolume_WriteZeroes_copy() {
	ctx := context.Background()
	src, dst, stop := exampleDisks(ctx)
	defer stop()

	buf := make([]byte, 1<<20)
	zeroes := make([]byte, len(buf))
	for off := int64(0); off < src.Size(); off += int64(len(buf)) {
		n, err := src.ReadAt(ctx, buf, off)
		if err != nil && err != io.EOF {
			log.Fatal(err)
		}
		if bytes.Equal(buf[:n], zeroes[:n]) {
			err = dst.WriteZeroes(ctx, off, int64(n)) // frees space where it can
		} else {
			_, err = dst.WriteAt(ctx, buf[:n], off)
		}
		if err != nil {
			log.Fatal(err)
		}
	}
	if err := dst.Sync(ctx); err != nil {
		log.Fatal(err)
	}
	a, b := make([]byte, src.Size()), make([]byte, src.Size())
	if _, err := src.ReadAt(ctx, a, 0); err != nil {
		log.Fatal(err)
	}
	if _, err := dst.ReadAt(ctx, b, 0); err != nil {
		log.Fatal(err)
	}
	fmt.Println("equal:", bytes.Equal(a, b))
	// Output: equal: true
}

// Read files of a file system on a disk, without mounting it and without root.
// Any package that reads its format from an io.ReaderAt will do; here it is an
// ISO 9660 image.
func ExampleVolume_IO() {
	ctx := context.Background()
	vol, _, stop := exampleDisks(ctx)
	defer stop()
	putImage(ctx, vol)

	image, err := iso9660.OpenImage(vol.IO(ctx))
	if err != nil {
		log.Fatal(err)
	}
	root, err := image.RootDir()
	if err != nil {
		log.Fatal(err)
	}
	files, err := root.GetChildren()
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range files {
		text, err := io.ReadAll(f.Reader())
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s\n", f.Name(), text)
	}
	// Output: motd: welcome
}

// Reserve a disk for one node of a cluster and fence off another.
func ExampleVolume_Reservations() {
	ctx := context.Background()
	mine, theirs, stop := exampleCluster(ctx)
	defer stop()

	const myKey, theirKey = 0x1, 0x2
	typ := scsi.WriteExclusiveRegistrantsOnly
	r := mine.Reservations()
	if err := r.Register(ctx, 0, myKey, initiator.RegisterOptions{}); err != nil {
		log.Fatal(err)
	}
	if err := r.Reserve(ctx, myKey, typ); err != nil {
		log.Fatal(err)
	}
	// The other node has registered, too, so it may write …
	if err := theirs.Reservations().Register(ctx, 0, theirKey, initiator.RegisterOptions{}); err != nil {
		log.Fatal(err)
	}
	block := make([]byte, theirs.BlockSize())
	_, err := theirs.WriteAt(ctx, block, 0)
	fmt.Println("before:", err)

	// … until we find that it has lost its mind.
	if err := r.Preempt(ctx, myKey, theirKey, typ, true); err != nil {
		log.Fatal(err)
	}
	_, err = theirs.WriteAt(ctx, block, 0)
	fmt.Println("after:", errors.Is(err, initiator.ErrReservationConflict))
	// Output:
	// before: <nil>
	// after: true
}

// Send requests without waiting for each, and hear what happens to the disk.
func ExampleVolume_Submit() {
	ctx := context.Background()
	vol, _, stop := exampleDisks(ctx)
	defer stop()

	done := completions(make(chan *initiator.Request, 8))
	for i := range int64(8) {
		vol.Submit(&initiator.Request{
			Op: initiator.OpRead, Offset: i * 4096, Data: make([]byte, 4096), Owner: done,
		})
	}
	vol.Kick() // all eight commands in one write to the socket
	var bytes int
	for range 8 {
		r := <-done
		if r.Err != nil {
			log.Fatal(r.Err)
		}
		bytes += len(r.Data)
	}
	fmt.Println("read", bytes, "bytes")
	// Output: read 32768 bytes
}

// completions is a RequestCompleter.
type completions chan *initiator.Request

func (c completions) RequestDone(r *initiator.Request) { c <- r }
func (c completions) Flush()                           {}

// Watch a session and its disk.
func ExampleVolumeOptions() {
	ctx := context.Background()
	srv, lun := exampleServer()
	defer srv.Close()
	portal, err := initiator.ParsePortal(srv.Portal())
	if err != nil {
		log.Fatal(err)
	}
	s, err := initiator.Dial(ctx, initiator.Config{
		InitiatorName: "iqn.2026-01.com.example:client",
		Target:        "iqn.2026-01.com.example:disk",
		Portal:        portal,
		CHAP:          initiator.CHAP{Username: "alice", Password: "correct horse"},
		OnEvent:       func(e initiator.Event) { fmt.Println("session:", e.Type) },
	})
	if err != nil {
		log.Fatal(err)
	}
	luns, err := s.LUNs(ctx)
	if err != nil {
		log.Fatal(err)
	}
	heard := make(chan struct{})
	vol, err := s.OpenVolumeWith(ctx, luns[0], initiator.VolumeOptions{
		OnEvent: func(e initiator.VolumeEvent) {
			fmt.Println("disk:", e.Type)
			close(heard)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	// The next command hears that the thin pool behind the disk fills up.
	lun.FailNext(scsi.StatusCheckCondition, scsi.NewSense(scsi.KeyUnitAttention, 0x38, 0x07).Append(nil), nil)
	if err := vol.Sync(ctx); err != nil {
		log.Fatal(err)
	}
	if _, err := vol.ReadAt(ctx, make([]byte, 100), 12345); err != nil {
		log.Fatal(err)
	}
	<-heard
	if err := vol.Disconnect(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// session: connected
	// disk: space low
	// session: disconnected
	// session: closed
}

// Hear what becomes of a session that is there already, through a channel.
func ExampleSession_Watch() {
	ctx := context.Background()
	srv, _ := exampleServer()
	defer srv.Close()
	vol := exampleVolume(ctx, srv.Portal(), "client", 1)
	defer vol.Disconnect(ctx)

	events := make(chan initiator.Event, 16)
	stop := vol.Session().Watch(func(e initiator.Event) {
		select {
		case events <- e:
		default: // a watcher must not block: who is too slow misses some
		}
	})
	defer stop()
	srv.DropConnections() // as a cable that is pulled
	for e := range events {
		fmt.Println(e.Type)
		if e.Type == initiator.EventRecovered {
			break
		}
	}
	// Output:
	// disconnected
	// recovered
}

// What follows is the target that the examples talk to.

func exampleServer() (*iscsitest.Server, *iscsitest.LUN) {
	lun := &iscsitest.LUN{Store: iscsitest.NewMemStore(64 << 20)}
	return iscsitest.NewServer(iscsitest.Config{Targets: []iscsitest.Target{{
		Name: "iqn.2026-01.com.example:disk",
		LUNs: map[uint64]*iscsitest.LUN{1: lun, 2: {Store: iscsitest.NewMemStore(1 << 20), Thin: true}, 3: {Store: iscsitest.NewMemStore(1 << 20)}},
		CHAP: iscsitest.CHAP{Username: "alice", Password: "correct horse", MutualUsername: "disk", MutualPassword: "battery staple"},
	}}}), lun
}

func exampleTarget() (address string, stop func()) {
	srv, _ := exampleServer()
	return srv.Portal(), srv.Close
}

// exampleVolume logs in under a name and opens a disk.
func exampleVolume(ctx context.Context, address, name string, lun uint64) *initiator.Volume {
	portal, err := initiator.ParsePortal(address)
	if err != nil {
		log.Fatal(err)
	}
	v, err := initiator.Connect(ctx, initiator.Target{
		Name:          "iqn.2026-01.com.example:disk",
		Portals:       []initiator.Portal{portal},
		LUN:           lun,
		InitiatorName: "iqn.2026-01.com.example:" + name,
		CHAP:          initiator.CHAP{Username: "alice", Password: "correct horse"},
	})
	if err != nil {
		log.Fatal(err)
	}
	return v
}

// exampleDisks opens two disks of 1 MiB.
func exampleDisks(ctx context.Context) (a, b *initiator.Volume, stop func()) {
	address, stopTarget := exampleTarget()
	a, b = exampleVolume(ctx, address, "client", 3), exampleVolume(ctx, address, "client", 2)
	return a, b, func() { a.Disconnect(ctx); b.Disconnect(ctx); stopTarget() }
}

// exampleCluster opens one disk twice, as two nodes do.
func exampleCluster(ctx context.Context) (a, b *initiator.Volume, stop func()) {
	address, stopTarget := exampleTarget()
	a, b = exampleVolume(ctx, address, "node1", 1), exampleVolume(ctx, address, "node2", 1)
	return a, b, func() { a.Disconnect(ctx); b.Disconnect(ctx); stopTarget() }
}

// putImage writes an ISO 9660 image with one file to a disk.
func putImage(ctx context.Context, v *initiator.Volume) {
	w, err := iso9660.NewWriter()
	if err != nil {
		log.Fatal(err)
	}
	defer w.Cleanup() //nolint:errcheck // a temporary directory
	if err := w.AddFile(strings.NewReader("welcome"), "motd"); err != nil {
		log.Fatal(err)
	}
	var image bytes.Buffer
	if err := w.WriteTo(&image, "EXAMPLE"); err != nil {
		log.Fatal(err)
	}
	if _, err := v.WriteAt(ctx, image.Bytes(), 0); err != nil {
		log.Fatal(err)
	}
}
