//go:build !linux

package iscsiadm

import "io"

// terminalWidth is for Linux.
func terminalWidth(io.Writer) int { return 0 }
