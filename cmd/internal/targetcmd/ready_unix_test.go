//go:build unix

package targetcmd_test

import (
	"io"
	"os"
	"strconv"
	"syscall"
	"testing"
)

func TestReadyFD(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	// The program closes the descriptor: give it one of its own.
	fd, err := syscall.Dup(int(w.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	addrs, _ := start(t, "-p", "127.0.0.1:0", "-null", "1G", "-ready-fd", strconv.Itoa(fd))
	got, err := io.ReadAll(r)
	if err != nil || string(got) != "listening on "+addrs[0]+"\n" {
		t.Errorf("read %q, %v", got, err)
	}
}
