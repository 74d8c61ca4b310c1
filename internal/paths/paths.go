// Package paths says where the files of this system are. Every place can be
// moved by an environment variable, so that several instances and
// unprivileged tests can run side by side.
package paths

import (
	"os"
	"path/filepath"
)

// Paths are the places that iscsiadm and iscsid agree upon.
type Paths struct {
	// Config is iscsid.conf (ISCSI_CONFIG, /etc/iscsi/iscsid.conf).
	Config string
	// InitiatorName is initiatorname.iscsi (ISCSI_INITIATORNAME,
	// /etc/iscsi/initiatorname.iscsi).
	InitiatorName string
	// DB is the node database (ISCSI_DB, /var/lib/iscsi/nodes.db).
	DB string
	// Run is the directory of the daemon's socket and state (ISCSI_RUN,
	// /run/iscsid).
	Run string
	// PIDFile is the daemon's pid file (ISCSI_PIDFILE, /run/iscsid.pid).
	PIDFile string
	// Dev is the directory of device nodes and of the disk/by-path links
	// (ISCSI_DEV, /dev).
	Dev string
	// Sys is the root of sysfs (SYSFS_PATH as in open-iscsi, /sys).
	Sys string
	// UdevControl is the socket that shows that udev runs
	// (/run/udev/control, which nothing moves).
	UdevControl string
}

// FromEnv returns the places as the process's environment moves them.
func FromEnv() Paths { return FromLookup(os.Getenv) }

// FromLookup returns the places as the variables that get returns move them;
// an empty value counts as unset. ISCSI_ROOT, when set, stands before every
// default but those of Dev and Sys: these are the kernel's trees, and a part of
// them in another place is of no use.
func FromLookup(get func(string) string) Paths {
	root := get("ISCSI_ROOT")
	or := func(env, def string) string {
		if v := get(env); v != "" {
			return v
		}
		return def
	}
	at := func(env, def string) string { return or(env, filepath.Join(root, def)) }
	return Paths{
		Config:        at("ISCSI_CONFIG", "/etc/iscsi/iscsid.conf"),
		InitiatorName: at("ISCSI_INITIATORNAME", "/etc/iscsi/initiatorname.iscsi"),
		DB:            at("ISCSI_DB", "/var/lib/iscsi/nodes.db"),
		Run:           at("ISCSI_RUN", "/run/iscsid"),
		PIDFile:       at("ISCSI_PIDFILE", "/run/iscsid.pid"),
		Dev:           or("ISCSI_DEV", "/dev"),
		Sys:           or("SYSFS_PATH", "/sys"),
		UdevControl:   "/run/udev/control",
	}
}

// ControlSocket is the unix socket on which iscsid serves its control API.
func (p Paths) ControlSocket() string { return filepath.Join(p.Run, "control.sock") }

// StateDir holds what a restarted iscsid needs to find its sessions again.
func (p Paths) StateDir() string { return filepath.Join(p.Run, "state") }

// LUNDir holds the NBD sockets of LUNs that are not attached to the kernel.
func (p Paths) LUNDir() string { return filepath.Join(p.Run, "luns") }

// UdevDir holds the properties of the kernel devices for udev's rule.
func (p Paths) UdevDir() string { return filepath.Join(p.Run, "udev") }

// ByPath is the directory of the ip-…-iscsi-…-lun-N links.
func (p Paths) ByPath() string { return filepath.Join(p.Dev, "disk", "by-path") }
