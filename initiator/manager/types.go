package manager

import (
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
)

// LoginRequest asks for a new session. It carries the whole node record, so
// that iscsid needs no access to the node database.
type LoginRequest struct {
	// Record is the node record, field name to value as `-o show -S` prints
	// them; empty values may be left out.
	Record Record `json:"record"`
	// Multiple asks for a session beside those that exist already between the
	// same portal, target and interface. Without it such a session, or a
	// login to one that is still going on, is refused with code 15.
	Multiple bool `json:"multiple,omitempty"`
	// Limit bounds Multiple: with n > 0 the login is refused with code 15
	// when n sessions of this record exist or are being made. 0 is no limit.
	Limit int `json:"limit,omitempty"`
	// NoWait asks to be answered as soon as the login has been started. It
	// then goes on when the client leaves.
	NoWait bool `json:"no_wait,omitempty"`
}

// Portal is an address and port. Address is a host name or an IP address
// without brackets, with a zone where it needs one.
type Portal struct {
	Address string `json:"address"`
	Port    int    `json:"port"`
}

// Iface says what a session is bound to. Empty fields mean unbound.
type Iface struct {
	Name          string `json:"name"`
	Transport     string `json:"transport"`
	InitiatorName string `json:"initiator_name"`
	NetIface      string `json:"net_iface,omitempty"`
	HWAddress     string `json:"hwaddress,omitempty"`
}

// Timeouts are the error handling times of a session in seconds. A negative
// Recovery never gives up, 0 fails at once.
type Timeouts struct {
	Recovery    int `json:"recovery"`
	TargetReset int `json:"target_reset"`
	LUNReset    int `json:"lun_reset"`
	Abort       int `json:"abort"`
}

// CHAP are the credentials of a session. The passwords are empty unless they
// were asked for by somebody who may see them; the Set fields say whether
// there is one.
type CHAP struct {
	Username      string `json:"username"`
	Password      string `json:"password,omitempty"`
	PasswordSet   bool   `json:"password_set"`
	UsernameIn    string `json:"username_in"`
	PasswordIn    string `json:"password_in,omitempty"`
	PasswordInSet bool   `json:"password_in_set"`
}

// String returns the user names; the passwords are hidden.
func (c CHAP) String() string {
	return fmt.Sprintf("{%s %s %s %s}", c.Username, initiator.Secret(c.Password), c.UsernameIn, initiator.Secret(c.PasswordIn))
}

// Format implements fmt.Formatter for every verb.
func (c CHAP) Format(f fmt.State, _ rune) {
	io.WriteString(f, c.String()) //nolint:errcheck // fmt keeps no errors
}

// LogValue implements slog.LogValuer.
func (c CHAP) LogValue() slog.Value { return slog.StringValue(c.String()) }

// Negotiated are the operational parameters in force (RFC 7143 section 13).
// Sizes are in bytes; 0 is a value that is not known.
type Negotiated struct {
	HeaderDigest             string `json:"header_digest"`
	DataDigest               string `json:"data_digest"`
	MaxRecvDataSegmentLength int    `json:"max_recv_data_segment_length"`
	MaxXmitDataSegmentLength int    `json:"max_xmit_data_segment_length"`
	FirstBurstLength         int    `json:"first_burst_length"`
	MaxBurstLength           int    `json:"max_burst_length"`
	ImmediateData            bool   `json:"immediate_data"`
	InitialR2T               bool   `json:"initial_r2t"`
	MaxOutstandingR2T        int    `json:"max_outstanding_r2t"`
	ErrorRecoveryLevel       int    `json:"error_recovery_level"`
	MaxConnections           int    `json:"max_connections"`
	DefaultTime2Wait         int    `json:"default_time2wait"`
	DefaultTime2Retain       int    `json:"default_time2retain"`
}

// The values of Device.Attach.
const (
	AttachNBD    = "nbd"    // a kernel block device
	AttachSocket = "socket" // an NBD export on a unix socket
	AttachNone   = "none"   // no device: not a disk, or not wanted
)

// Device is a logical unit of a session.
type Device struct {
	LUN      uint64 `json:"lun"`                // number of the logical unit, as the kernel has it
	Type     string `json:"type"`               // "disk", "controller", … by SPC peripheral device type
	Vendor   string `json:"vendor,omitempty"`   // of the INQUIRY data
	Model    string `json:"model,omitempty"`    // of the INQUIRY data
	Revision string `json:"revision,omitempty"` // of the INQUIRY data
	WWID     string `json:"wwid,omitempty"`     // designator of VPD page 83h, "naa.6001…"
	Serial   string `json:"serial,omitempty"`   // VPD page 80h
	Name     string `json:"name,omitempty"`     // "nbd0"; empty without a block device
	Path     string `json:"path,omitempty"`     // "/dev/nbd0", or the path of the socket
	ByPath   string `json:"by_path,omitempty"`  // link in /dev/disk/by-path
	Size     int64  `json:"size"`               // bytes
	// BlockSize is the logical block size in bytes.
	BlockSize int    `json:"block_size"`
	ReadOnly  bool   `json:"read_only,omitempty"`
	State     string `json:"state"`  // "running", "blocked", "transport-offline", …
	Attach    string `json:"attach"` // AttachNBD, AttachSocket or AttachNone
	Error     string `json:"error,omitempty"`
}

// The texts of Session.ConnState, SessionState and InternalState that mean a
// healthy session.
const (
	ConnLoggedIn     = "LOGGED IN"
	SessionLoggedIn  = "LOGGED_IN"
	InternalNoChange = "NO CHANGE"
)

// Session is what is known of one session.
type Session struct {
	SID    int    `json:"sid"`    // session number
	Host   int    `json:"host"`   // number shown as SCSI host number
	Target string `json:"target"` // name of the target
	TPGT   int    `json:"tpgt"`   // portal group tag, -1 unknown
	// Portal is what the connection goes to now; Persistent is the portal of
	// the record, which differs after a redirect.
	Portal     Portal `json:"portal"`
	Persistent Portal `json:"persistent_portal"`
	// LocalAddress is the address of our end, empty while not connected.
	LocalAddress string `json:"local_address,omitempty"`
	Iface        Iface  `json:"iface"`
	// ConnState is FREE, TRANSPORT WAIT, IN LOGIN, LOGGED IN, IN LOGOUT,
	// LOGOUT REQUESTED or CLEANUP WAIT; SessionState is LOGGED_IN, FAILED or
	// FREE; InternalState is NO CHANGE, CLEANUP, REOPEN or REDIRECT.
	ConnState     string `json:"connection_state"`
	SessionState  string `json:"session_state"`
	InternalState string `json:"internal_state"`
	// HostState is the state of the SCSI host that the session stands for:
	// "running" or "recovery". Empty is running.
	HostState string `json:"host_state,omitempty"`
	// Pending is true until the first login has succeeded and its devices are
	// there. Pending sessions are listed only when asked for.
	Pending    bool        `json:"pending,omitempty"`
	Timeouts   Timeouts    `json:"timeouts"`
	CHAP       *CHAP       `json:"chap,omitempty"`
	Negotiated *Negotiated `json:"negotiated,omitempty"`
	Devices    []Device    `json:"devices"`
	// Scan says how far a look for logical units is, while one goes on.
	Scan *Scan `json:"scan,omitempty"`
	// Record is the node record the session was made from, when asked for.
	Record Record `json:"record,omitempty"`
	// Recoveries counts how often the connection was lost and made again since
	// iscsid has the session, LastRecovery is when it was made again last, and
	// LastError why it was lost last, or why the last login failed. Outage is how
	// long the present outage has lasted, or the last one did, in seconds;
	// FailedLogins counts the logins that failed in the present one. ConnRecoveries
	// counts single connections that were lost and made good while the session went on.
	Recoveries     int       `json:"recoveries"`
	LastRecovery   time.Time `json:"last_recovery,omitzero"`
	LastError      string    `json:"last_error,omitempty"`
	Outage         float64   `json:"outage,omitempty"`
	FailedLogins   int       `json:"failed_logins,omitempty"`
	ConnRecoveries int       `json:"connection_recoveries,omitempty"`
	Created        time.Time `json:"created"`
}

// A Scan is a look for logical units that goes on.
type Scan struct {
	Done  int `json:"done"`  // units that have been looked at
	Total int `json:"total"` // units that the target has
}

// SessionQuery chooses what an answer about sessions contains. Each field is
// a query parameter of the same name ("?pending=1").
type SessionQuery struct {
	Pending bool // also sessions whose first login is not done
	Record  bool // the node record
	Secrets bool // passwords, in the record and in CHAP
}

// RescanResult says what a rescan of a session's logical units found.
type RescanResult struct {
	// The numbers of the units that are new, gone or of another size.
	Added    []uint64 `json:"added,omitempty"`
	Removed  []uint64 `json:"removed,omitempty"`
	Resized  []uint64 `json:"resized,omitempty"`
	Replaced []uint64 `json:"replaced,omitempty"` // another unit under the same number
	Devices  []Device `json:"devices"`
}

// Initiator describes the initiator that iscsid is.
type Initiator struct {
	Name  string `json:"name"`            // its iSCSI name
	Alias string `json:"alias,omitempty"` // what it is called besides
	// NBD says whether the kernel can take block devices.
	NBD bool `json:"nbd"`
}

// VersionInfo is what a server says of itself to everybody.
type VersionInfo struct {
	Version string `json:"version"`
	APIMin  int    `json:"api_min"`
	APIMax  int    `json:"api_max"`
	PID     int    `json:"pid"`
}
