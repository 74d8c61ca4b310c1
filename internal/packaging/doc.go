// Package packaging holds what a Linux system wants of an initiator besides
// its programs: systemd units, a rule for udev, a fragment for multipath.conf,
// and the makings of a Debian package and of a container image. The files are
// installed as they are; the package is Go only for its tests, which hold them
// against each other and against the programs, and for those who install them
// by program.
package packaging

import "embed"

// Files are the units (systemd/), the rule (udev/) and the fragment
// (multipath/).
//
//go:embed systemd udev multipath
var Files embed.FS
