package iscsitest

import (
	"fmt"
	"slices"
	"time"

	"github.com/goiscsi/goiscsi/initiator/internal/chap"
	"github.com/goiscsi/goiscsi/pdu"
)

// A Config says what a Server serves. The server copies it, except for the
// LUNs it points to.
type Config struct {
	// Addrs are the TCP addresses to listen on; none means a free port of
	// 127.0.0.1.
	Addrs []string
	// Targets are the targets served, on all addresses alike.
	Targets []Target
	// Params bounds what the server agrees to in negotiations.
	Params Params
	// DiscoveryCHAP, if it has a username, is asked for in discovery
	// sessions.
	DiscoveryCHAP CHAP
	// CommandWindow is how many commands a session may have in flight; 0
	// means 128. Server.SetCommandWindow can change it, also to zero.
	CommandWindow uint32
	// InitialStatSN is the first StatSN of every connection.
	InitialStatSN uint32
	// LoginSegment, if not 0, splits the text of login responses into
	// pieces of so many bytes, continued with the C bit.
	LoginSegment int
	// TextSegment, if not 0, splits the text of text responses in the same
	// way. They are always split at the initiator's
	// MaxRecvDataSegmentLength.
	TextSegment int
	// LoginTimeout ends connections that have not logged in so long after
	// they were made; 0 waits for ever.
	LoginTimeout time.Duration
	// UnitAttention has every new session find the unit attention
	// condition "power on occurred" on its logical units, as many targets
	// have it, and a session whose tasks were ended with their connection
	// "some commands cleared by iSCSI protocol event".
	UnitAttention bool
	// AnnounceDrops has a session that loses one of several connections be told so
	// on another one, by an asynchronous message of event 2 with its CID.
	AnnounceDrops bool
	// Logf, if not nil, is told of logins, ends of connections and
	// violations.
	Logf func(format string, args ...any)
}

// A Target is an iSCSI target node.
type Target struct {
	// Name is the iSCSI name.
	Name string
	// Alias is the TargetAlias, none if empty.
	Alias string
	// TPGT is the target portal group tag of all portals; 0 means 1.
	TPGT uint16
	// LUNs are the logical units by number. A *LUN may belong to several
	// targets.
	LUNs map[uint64]*LUN
	// Controller adds a LUN 0 of device type 0x0c, as the target tgt has it,
	// unless there is a LUN 0 already.
	Controller bool
	// CHAP, if it has a username, is what initiators authenticate with.
	CHAP CHAP
	// Initiators are the names of the initiators that may log in; none
	// means all.
	Initiators []string
	// Portals are the values of TargetAddress that discovery returns,
	// "host:port,tpgt"; none means where the server listens. They need not
	// make sense.
	Portals []string
}

// CHAP are the credentials of a target.
type CHAP struct {
	// Username and Password authenticate the initiator.
	Username, Password string
	// MutualUsername and MutualPassword authenticate the target to an
	// initiator that asks for it.
	MutualUsername, MutualPassword string
	// Algorithms are the hashes the target accepts: 5 MD5, 6 SHA1, 7
	// SHA256, 8 SHA3-256. None means all. The initiator's order decides.
	Algorithms []uint8
}

// Params are limits and preferences for negotiations. The zero value offers
// the most that the protocol allows; each key is negotiated down from there.
type Params struct {
	// HeaderDigest and DataDigest are the accepted digests, "None" and
	// "CRC32C"; none means both. The initiator's order decides.
	HeaderDigest, DataDigest []string
	// InitialR2T asks for it: no unsolicited Data-Out.
	InitialR2T bool
	// NoImmediateData refuses immediate data.
	NoImmediateData bool
	// MaxRecvDataSegmentLength is declared to the initiator, in bytes; 0
	// means 262144.
	MaxRecvDataSegmentLength uint32
	// MaxBurstLength and FirstBurstLength in bytes; 0 means 2^24-1.
	MaxBurstLength, FirstBurstLength uint32
	// MaxOutstandingR2T is per task; 0 means 16.
	MaxOutstandingR2T uint32
	// DefaultTime2Wait is in seconds; a greater one of the initiator's wins.
	DefaultTime2Wait uint32
	// DefaultTime2Retain is in seconds; a lesser one of the initiator's
	// wins; 0 means 20.
	DefaultTime2Retain uint32
	// SeparateStatus sends the status of reads in a SCSI Response instead
	// of the last Data-In.
	SeparateStatus bool
	// ErrorRecoveryLevel is the highest that is agreed to, 0 to 2. Sessions
	// of level 1 send again what a SNACK asks for, and have data that arrived
	// damaged sent again. In those of level 2 the tasks of a lost connection can be
	// reassigned to another one.
	ErrorRecoveryLevel uint32
	// MaxConnections is how many connections a session may have, 1 to 65535; 0
	// means 1.
	MaxConnections uint32
	// AckData sets the A bit on the last Data-In of each sequence in sessions
	// of level 1.
	AckData bool
}

const (
	defaultMaxRecv       = 256 << 10
	defaultMaxR2T        = 16
	defaultCommandWindow = 128
	defaultTime2Retain   = 20
)

func (p *Params) setDefaults() {
	both := []string{pdu.ValueNone, pdu.ValueCRC32C}
	if p.HeaderDigest == nil {
		p.HeaderDigest = both
	}
	if p.DataDigest == nil {
		p.DataDigest = both
	}
	def := func(v *uint32, d uint32) {
		if *v == 0 {
			*v = d
		}
	}
	def(&p.MaxRecvDataSegmentLength, defaultMaxRecv)
	def(&p.MaxBurstLength, pdu.MaxDataSegmentLength)
	def(&p.FirstBurstLength, pdu.MaxDataSegmentLength)
	def(&p.MaxOutstandingR2T, defaultMaxR2T)
	def(&p.MaxConnections, 1)
	def(&p.DefaultTime2Retain, defaultTime2Retain)
}

// check refuses what could not be negotiated or served.
func (c *Config) check() error {
	p := &c.Params
	for name, v := range map[string]uint32{
		"MaxRecvDataSegmentLength": p.MaxRecvDataSegmentLength,
		"MaxBurstLength":           p.MaxBurstLength,
		"FirstBurstLength":         p.FirstBurstLength,
	} {
		if v < 512 || v > pdu.MaxDataSegmentLength {
			return fmt.Errorf("iscsitest: %s %d is not between 512 and 16777215", name, v)
		}
	}
	if p.ErrorRecoveryLevel > 2 {
		return fmt.Errorf("iscsitest: ErrorRecoveryLevel %d is not 0 to 2", p.ErrorRecoveryLevel)
	}
	if p.MaxConnections > 65535 {
		return fmt.Errorf("iscsitest: MaxConnections %d is not between 1 and 65535", p.MaxConnections)
	}
	if p.MaxOutstandingR2T > 65535 {
		return fmt.Errorf("iscsitest: MaxOutstandingR2T %d is not between 1 and 65535", p.MaxOutstandingR2T)
	}
	if err := c.DiscoveryCHAP.check(); err != nil {
		return fmt.Errorf("iscsitest: discovery: %w", err)
	}
	seen := map[string]bool{}
	for i := range c.Targets {
		t := &c.Targets[i]
		if err := pdu.ValidateName(t.Name); err != nil {
			return fmt.Errorf("iscsitest: target %q: %w", t.Name, err)
		}
		if seen[t.Name] {
			return fmt.Errorf("iscsitest: target %q is there twice", t.Name)
		}
		seen[t.Name] = true
		if err := t.CHAP.check(); err != nil {
			return fmt.Errorf("iscsitest: target %q: %w", t.Name, err)
		}
		for n, lun := range t.LUNs {
			if err := lun.check(); err != nil {
				return fmt.Errorf("iscsitest: target %q: lun %d: %w", t.Name, n, err)
			}
		}
	}
	return nil
}

func (c *CHAP) check() error {
	for _, a := range c.Algorithms {
		if !chap.Algorithm(a).Known() {
			return fmt.Errorf("chap algorithm %d is not known", a)
		}
	}
	return nil
}

// accepts reports whether the target takes the algorithm.
func (c *CHAP) accepts(a chap.Algorithm) bool {
	return a.Known() && (c.Algorithms == nil || slices.Contains(c.Algorithms, uint8(a)))
}
