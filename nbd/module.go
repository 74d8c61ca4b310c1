//go:build linux

package nbd

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// LoadModule loads the kernel's nbd driver by modprobe, without the 16 devices
// that it makes by default: udev opens them all at once, and they are busy in
// the meantime. Devices are made as they are connected. It needs CAP_SYS_MODULE;
// a driver that is loaded already, or built in, stays as it is.
func LoadModule(ctx context.Context) error {
	path, err := exec.LookPath("modprobe")
	if err != nil {
		path = "/sbin/modprobe" // not on every user's PATH
	}
	out, err := exec.CommandContext(ctx, path, "nbd", "nbds_max=0", "max_part=16").CombinedOutput()
	if err != nil {
		if text := strings.TrimSpace(string(out)); text != "" {
			return fmt.Errorf("nbd: load module: %w: %s", err, text)
		}
		return fmt.Errorf("nbd: load module: %w", err)
	}
	return nil
}
