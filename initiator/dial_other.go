//go:build !linux

package initiator

import "errors"

// apply refuses what only Linux can do; the window size is a wish that may go
// unheard.
func (t *TCP) apply(uintptr) error {
	if t.NetIface != "" {
		return errors.New("binding to a network interface needs Linux")
	}
	return nil
}
