package initiator

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/goiscsi/goiscsi/pdu"
)

// Immediately is a duration that stands for an explicit zero in fields whose
// zero value means the default.
const Immediately time.Duration = 1

// Limits and defaults of Config.
const (
	DefaultCmdsMax    = 128  // commands in flight in a session
	MaxCmdsMax        = 2048 // the largest Config.CmdsMax
	DefaultQueueDepth = 32   // commands in flight for one LUN
)

// Config says with which target to log in and how. The zero value of every
// field but InitiatorName, Target and Portal is a usable default. A Config is
// copied by Dial; later changes to it have no effect.
type Config struct {
	// InitiatorName is our iSCSI name. Required.
	InitiatorName string

	// InitiatorAlias is sent along when not empty.
	InitiatorAlias string

	// Target is the name of the target. Required.
	Target string

	// Portal is where the target is reached first, and again first whenever the
	// connection was lost after a temporary redirection. Required.
	Portal Portal

	// ISID is our part of the session identifier. Zero means a random one. A
	// program that restarts and wants to take over its former session gives
	// the ISID that Session.Info reported.
	ISID ISID

	// CHAP holds the credentials. A password makes the login start in the
	// security stage; without one the login goes straight to the operational
	// stage.
	CHAP CHAP

	// Params is what we offer in the login.
	Params Params

	// Timeouts are the times after which we stop waiting.
	Timeouts Timeouts

	// LoginRetryWindow is for how long after the call of Dial a failed first
	// login may be tried again, 3 s after the failure. Zero means one attempt.
	// open-iscsi's is initial_login_retry_max × login_timeout. Dial's context ends
	// the attempts, too.
	LoginRetryWindow time.Duration

	// ReopenMax is how many attempts to log in again may fail in a row before a
	// session that lost its connection closes for good. Zero means any number.
	ReopenMax int

	// CmdsMax is how many commands the session keeps in flight, 2 to
	// MaxCmdsMax; other values are brought into that range. Zero means
	// DefaultCmdsMax. What is submitted beyond waits its turn.
	CmdsMax int

	// QueueDepth is how many commands a Volume keeps in flight. Zero means
	// DefaultQueueDepth. Submit and Do do not look at it.
	QueueDepth int

	// InitialCmdSN is the first command sequence number.
	InitialCmdSN uint32

	// TCP are options of the TCP connection.
	TCP TCP

	// Dial replaces the making of a TCP connection where not nil: for tests,
	// proxies, network namespaces, TLS. The address is "host:port", the host
	// possibly a name. TCP is left to it.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Logger receives what is worth an administrator's attention, never a
	// secret and nothing for a single I/O. Nil means no logging.
	Logger *slog.Logger

	// OnEvent is called for every Event of the session, one call at a time,
	// from goroutines of the session. It must neither block nor call Close or
	// Logout. Nil means nobody is interested.
	OnEvent func(Event)
}

// TCP are options of TCP connections.
type TCP struct {
	// WindowSize is the size of the socket's send and receive buffers in
	// bytes (node.conn[0].tcp.window_size). On Linux the receive buffer is left
	// to grow by itself where the kernel lets it become larger than that
	// (net.ipv4.tcp_rmem): a fixed one would only be smaller. Zero leaves
	// both to the kernel.
	WindowSize int

	// NetIface is the network interface to bind to (SO_BINDTODEVICE), for
	// example "eth1". Linux only; other systems report an error.
	NetIface string

	// LocalAddr is the source address to connect from.
	LocalAddr netip.Addr
}

// Timeouts are the times after which a session stops waiting. Zero fields mean
// the defaults given, which are open-iscsi's built-in ones unless said
// otherwise; Immediately stands for zero.
type Timeouts struct {
	// Login bounds one attempt to log in, TCP connection included. 30 s.
	Login time.Duration

	// Auth bounds the wait for one answer in the security stage. 45 s; Login
	// dominates.
	Auth time.Duration

	// Logout bounds the wait for outstanding tasks and for the answer to a
	// Logout request, each. 15 s.
	Logout time.Duration

	// NoopInterval is how long nothing must have been received before the
	// target is pinged. 5 s; negative means never.
	NoopInterval time.Duration

	// NoopTimeout is how long after a ping something must be received. 5 s;
	// negative means that no ping is sent.
	NoopTimeout time.Duration

	// Replacement is how long tasks wait for a lost connection to come back
	// before they fail with ErrRecoveryTimeout (recovery timeout,
	// node.session.timeo.replacement_timeout). 120 s; Immediately makes them fail
	// when the connection is lost, a negative value lets them wait for ever.
	Replacement time.Duration

	// Abort bounds the wait for the answer to ABORT TASK. 15 s.
	Abort time.Duration

	// LUReset bounds the wait for the answer to LOGICAL UNIT RESET. 30 s.
	LUReset time.Duration

	// TargetReset bounds the wait for the answer to TARGET WARM RESET. 30 s.
	TargetReset time.Duration
}

// A CHAPAlgorithm is a hash for CHAP by its number in CHAP_A.
type CHAPAlgorithm uint8

// The algorithms registered with IANA that open-iscsi offers (RFC 7143 section
// 12.1.3 requires MD5).
const (
	CHAPMD5     CHAPAlgorithm = 5
	CHAPSHA1    CHAPAlgorithm = 6
	CHAPSHA256  CHAPAlgorithm = 7
	CHAPSHA3256 CHAPAlgorithm = 8
)

// String returns open-iscsi's name of the algorithm.
func (a CHAPAlgorithm) String() string {
	switch a {
	case CHAPMD5:
		return "MD5"
	case CHAPSHA1:
		return "SHA1"
	case CHAPSHA256:
		return "SHA256"
	case CHAPSHA3256:
		return "SHA3-256"
	}
	return fmt.Sprintf("CHAP algorithm %d", uint8(a))
}

// CHAP are the credentials of a login (RFC 7143 section 12.1.3).
type CHAP struct {
	// Username and Password prove to the target who we are. Password decides
	// whether CHAP is used.
	Username string
	Password Secret

	// UsernameIn and PasswordIn are what the target must prove to us. They
	// need Password, too; with them a target that wants no authentication is
	// refused.
	UsernameIn string
	PasswordIn Secret

	// Algorithms are the hashes to offer, most wanted first. Nil means MD5
	// alone.
	Algorithms []CHAPAlgorithm
}

// enabled reports whether we authenticate ourselves.
func (c *CHAP) enabled() bool { return c.Password != "" }

// mutual reports whether the target must authenticate itself.
func (c *CHAP) mutual() bool { return c.enabled() && c.PasswordIn != "" }

// maxCHAPName is the longest name that CHAP_N holds (RFC 7143 section 12.1.3).
const maxCHAPName = 255

// discardLogger is where messages go without a Logger.
var discardLogger = slog.New(slog.DiscardHandler)

// withDefaults returns a copy of c in which every field has the value to use,
// or a *ConfigError. Values out of range are brought into range and logged, as
// open-iscsi does at login.
func (c Config) withDefaults() (Config, error) {
	if c.Logger == nil {
		c.Logger = discardLogger
	}
	if err := checkName("InitiatorName", c.InitiatorName); err != nil {
		return c, err
	}
	if err := checkName("Target", c.Target); err != nil {
		return c, err
	}
	if err := checkAlias(c.InitiatorAlias); err != nil {
		return c, err
	}
	if reason := checkHost(c.Portal.Host); reason != "" {
		return c, &ConfigError{Field: "Portal", Reason: reason}
	}
	c.Portal.Port = c.Portal.port()
	if c.ISID.IsZero() {
		c.ISID = RandomISID()
	}
	var err error
	if c.CHAP, err = c.CHAP.withDefaults(c.Logger); err != nil {
		return c, err
	}
	if c.Params, err = c.Params.withDefaults(c.Logger); err != nil {
		return c, err
	}
	c.Timeouts = c.Timeouts.withDefaults()
	if c.CmdsMax == 0 {
		c.CmdsMax = DefaultCmdsMax
	}
	c.CmdsMax = min(max(c.CmdsMax, 2), MaxCmdsMax)
	if c.QueueDepth <= 0 {
		c.QueueDepth = DefaultQueueDepth
	}
	return c, nil
}

func (c CHAP) withDefaults(log *slog.Logger) (CHAP, error) {
	if !c.enabled() && (c.UsernameIn != "" || c.PasswordIn != "") {
		// open-iscsi goes on without authentication and so do we: the target
		// decides whether that will do.
		log.Warn("CHAP: username_in or password_in without password: no authentication")
	}
	if len(c.Username) > maxCHAPName || len(c.UsernameIn) > maxCHAPName {
		return c, &ConfigError{Field: "CHAP", Reason: "user name longer than 255 bytes"}
	}
	if c.enabled() && c.PasswordIn == c.Password {
		// RFC 7143 section 9.2.1: the secrets of the two directions MUST differ.
		return c, &ConfigError{Field: "CHAP", Reason: "the passwords of both directions must differ"}
	}
	if len(c.Algorithms) == 0 {
		c.Algorithms = []CHAPAlgorithm{CHAPMD5}
	}
	for _, a := range c.Algorithms {
		if a < CHAPMD5 || a > CHAPSHA3256 {
			return c, &ConfigError{Field: "CHAP", Reason: "unknown algorithm " + a.String()}
		}
	}
	return c, nil
}

func (t Timeouts) withDefaults() Timeouts {
	set := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	set(&t.Login, 30*time.Second)
	set(&t.Auth, 45*time.Second)
	set(&t.Logout, 15*time.Second)
	set(&t.NoopInterval, 5*time.Second)
	set(&t.NoopTimeout, 5*time.Second)
	set(&t.Replacement, 120*time.Second)
	set(&t.Abort, 15*time.Second)
	set(&t.LUReset, 30*time.Second)
	set(&t.TargetReset, 30*time.Second)
	return t
}

func checkName(field, name string) error {
	if name == "" {
		return &ConfigError{Field: field, Reason: "missing"}
	}
	if err := pdu.ValidateName(name); err != nil {
		return &ConfigError{Field: field, Reason: err.Error()}
	}
	return nil
}

// checkAlias refuses what could not be sent as a text value (RFC 7143 section
// 6.1).
func checkAlias(s string) error {
	if len(s) > 255 {
		return &ConfigError{Field: "InitiatorAlias", Reason: "longer than 255 bytes"}
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f {
			return &ConfigError{Field: "InitiatorAlias", Reason: "control character"}
		}
	}
	return nil
}
