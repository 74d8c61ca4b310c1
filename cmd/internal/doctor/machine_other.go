//go:build !linux

package doctor

import (
	"context"
	"errors"
	"net"
	"time"
)

var errNotLinux = errors.New("not known on this system")

// NBDFamily implements System.
func (Machine) NBDFamily() error { return errNotLinux }

// ModuleAvailable implements System.
func (Machine) ModuleAvailable(string) bool { return false }

// ClockSynchronised implements System.
func (Machine) ClockSynchronised() (bool, error) { return false, errNotLinux }

// Probe implements System.
func (Machine) Probe(ctx context.Context, address string) (Path, error) {
	var d net.Dialer
	start := time.Now()
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return Path{}, err
	}
	defer c.Close()
	return Path{Connect: time.Since(start)}, nil
}
