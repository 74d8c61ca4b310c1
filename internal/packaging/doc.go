// Package packaging holds what a Linux system wants of an initiator besides
// its programs: systemd units, a rule for udev, a fragment for multipath.conf,
// a dashboard for Grafana, and the makings of a Debian package and of a container
// image. The files are installed as they are; the package is Go only for tests,
// which hold them against each other and against the programs, and for those who
// install them by program.
package packaging

import "embed"

// Files are the units (systemd/), the rule (udev/), the fragment (multipath/) and
// the dashboard (grafana/).
//
//go:embed systemd udev multipath grafana
var Files embed.FS
