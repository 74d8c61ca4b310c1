package manager_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/manager"
)

// Have iscsid log in to a target and attach its disk, as a volume driver does. It
// is safe to call again, and from several programs.
func ExampleClient_Connect() {
	ctx := context.Background()
	m := manager.NewClient("", manager.ClientOptions{Program: "driver"})
	defer m.Close()
	target := initiator.Target{
		Name:    "iqn.2016-01.com.example:storage",
		Portals: []initiator.Portal{{Host: "192.0.2.1"}, {Host: "192.0.2.2"}},
		LUN:     3,
		CHAP:    initiator.CHAP{Username: "alice", Password: "correct horse"},
	}
	disk, err := m.Connect(ctx, target)
	switch {
	case errors.Is(err, initiator.ErrAuth):
		log.Fatal("wrong credentials: ", err)
	case errors.Is(err, manager.ErrNotRunning):
		log.Fatal("start iscsid first: ", err)
	case err != nil:
		log.Fatalf("%v (iscsiadm would exit with %d)", err, initiator.ErrorCode(err))
	}
	fmt.Println("mount", disk.ByPath)

	// When it is unmounted:
	if err := m.Disconnect(ctx, target); err != nil && !errors.Is(err, manager.ErrInUse) {
		log.Fatal(err)
	}
}

// Watch sessions and disks come, change and go. Here a Manager that shows two
// moments stands in for manager.NewClient.
func ExampleWatch() {
	ctx, cancel := context.WithCancel(context.Background())
	session := manager.Session{SID: 1, Target: "iqn.2026-01.com.example:disk", ConnState: manager.ConnLoggedIn}
	session.Devices = []manager.Device{{LUN: 1, Path: "/dev/nbd0", Size: 1 << 30}}
	grown := session
	grown.Devices = []manager.Device{{LUN: 1, Path: "/dev/nbd0", Size: 2 << 30}}
	m := &moments{moments: [][]manager.Session{{session}, {grown}}, over: cancel}

	err := manager.Watch(ctx, m, 1, func(e manager.Event) {
		switch e.Type {
		case manager.DiskResized:
			fmt.Printf("%v: %s has %d GiB\n", e.Type, e.Disk.Path, e.Disk.Size>>30)
		case manager.DiskAdded, manager.DiskRemoved, manager.DiskReplaced:
			fmt.Printf("%v: %s\n", e.Type, e.Disk.Path)
		default:
			fmt.Printf("%v: %s\n", e.Type, e.Session.Target)
		}
	})
	fmt.Println(err)
	// Output:
	// session up: iqn.2026-01.com.example:disk
	// disk added: /dev/nbd0
	// disk resized: /dev/nbd0 has 2 GiB
	// context canceled
}

// moments is a Manager for tests: the interface has four methods.
type moments struct {
	manager.Manager
	moments [][]manager.Session
	over    func()
}

func (m *moments) Sessions(ctx context.Context, _ manager.SessionQuery) ([]manager.Session, error) {
	if len(m.moments) == 0 {
		m.over()
		return nil, ctx.Err()
	}
	now := m.moments[0]
	m.moments = m.moments[1:]
	return now, nil
}

// A program that does not find a daemon gets an error that it can tell from
// others.
func ExampleIsNotRunning() {
	m := manager.NewClient(filepath.Join(os.TempDir(), "no such", "control.sock"), manager.ClientOptions{})
	defer m.Close()
	_, err := m.Sessions(context.Background(), manager.SessionQuery{})
	fmt.Println(errors.Is(err, manager.ErrNotRunning), initiator.ErrorCode(err))
	// Output: true could not connect to iscsid
}
