package initiator

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/pdu"
)

// A DiscoveryConfig says which portal to ask for its targets, and how. Its
// fields are like those of Config.
type DiscoveryConfig struct {
	// InitiatorName is our iSCSI name. Required.
	InitiatorName  string
	InitiatorAlias string

	// Portal is the portal to ask. Required.
	Portal Portal

	CHAP CHAP

	// Params: only the digests and MaxRecvDataSegmentLength matter.
	Params Params

	// Timeouts: only Login, Auth and Logout matter.
	Timeouts Timeouts

	// Retries is how many more attempts follow a failed connection or a
	// temporary refusal (discovery.sendtargets.reopen_max). Zero means none.
	Retries int

	TCP  TCP
	Dial func(ctx context.Context, network, address string) (net.Conn, error) // as Config.Dial

	// Logger receives what is worth an administrator's attention. Nil means no
	// logging.
	Logger *slog.Logger

	// OnRetry is called after every attempt that failed and whose failure was
	// not final, the last one included. Nil means nobody is interested.
	OnRetry func(at Portal, err error)

	// OnSkip is called for every record of the answer that was left out
	// because its name or address is not valid. Nil means nobody is interested;
	// such records are logged as well.
	OnSkip func(SkippedRecord)
}

// A SkippedRecord is a target or address in the answer to SendTargets that
// cannot be used. Its texts come from the wire and may hold any character.
type SkippedRecord struct {
	Target  string // as the target sent it
	Address string // empty if the name is what is wrong
	Err     error
}

// A DiscoveredPortal is one address of one target.
type DiscoveredPortal struct {
	Target string
	Portal Portal
}

// Discover asks a portal for all targets that it offers us (SendTargets=All, RFC
// 7143 appendix C) and returns their portals in the order of the answer. Records
// with an invalid name or address are skipped and reported to OnSkip. No target
// at all is no error.
//
// The error is a *ConfigError, or an *OpError as that of Dial; its ISCSICode is
// the one that open-iscsi's discovery ends with.
func Discover(ctx context.Context, cfg DiscoveryConfig) ([]DiscoveredPortal, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	d := &discovery{cfg: cfg, est: establisher{
		dialer:   dialer{tcp: cfg.TCP, hook: cfg.Dial},
		timeouts: cfg.Timeouts,
		log:      cfg.Logger,
		home:     cfg.Portal,
		request: loginRequest{
			initiatorName: cfg.InitiatorName,
			alias:         cfg.InitiatorAlias,
			isid:          OpenISCSIISID(0),
			cmdSN:         1,
			chap:          cfg.CHAP,
			params:        cfg.Params,
		},
	}}
	text, at, err := d.run(ctx)
	if err != nil {
		return nil, &OpError{Op: "discover", Portal: at, Err: err}
	}
	return d.parse(text, at), nil
}

func (c DiscoveryConfig) withDefaults() (DiscoveryConfig, error) {
	// A discovery is checked like a session with an unspecified target.
	full, err := Config{
		InitiatorName:  c.InitiatorName,
		InitiatorAlias: c.InitiatorAlias,
		Target:         "iqn.2003-01.unused",
		Portal:         c.Portal,
		CHAP:           c.CHAP,
		Params:         c.Params,
		Timeouts:       c.Timeouts,
		Logger:         c.Logger,
	}.withDefaults()
	if err != nil {
		return c, err
	}
	c.Portal, c.CHAP, c.Params = full.Portal, full.CHAP, full.Params
	c.Timeouts, c.Logger = full.Timeouts, full.Logger
	return c, nil
}

// A discovery is one call of Discover.
type discovery struct {
	cfg DiscoveryConfig
	est establisher
}

// run makes attempts until one gives the text of an answer.
func (d *discovery) run(ctx context.Context) (text []byte, at Portal, err error) {
	for attempt := 0; ; attempt++ {
		var t *transport
		var res *loginResult
		t, res, at, err = d.est.attempt(ctx, d.cfg.Timeouts.Login)
		if err == nil {
			text, err = d.ask(ctx, t, res)
		}
		if err == nil || ctx.Err() != nil || !d.again(err) {
			return text, at, err
		}
		if d.cfg.OnRetry != nil {
			d.cfg.OnRetry(at, err)
		}
		if attempt >= d.cfg.Retries {
			// open-iscsi's code for "retries exceeded".
			return nil, at, withCode(errcode.PDUTimeout, err)
		}
		if pause(ctx, discoveryPause(attempt)) != nil {
			return nil, at, withKind(context.Cause(ctx), err)
		}
	}
}

// again reports whether another attempt may succeed. A login that is not
// answered in time is the end of it, as with open-iscsi.
func (d *discovery) again(err error) bool {
	if !retryable(err) {
		return false
	}
	return errcode.Of(err) != errcode.PDUTimeout
}

// discoveryPause returns how long open-iscsi waits after a failed attempt,
// counted from 0.
func discoveryPause(attempt int) time.Duration {
	switch {
	case attempt == 0:
		return 0
	case attempt < 10:
		return time.Second
	}
	return 5 * time.Second
}

// Bounds of an answer to SendTargets: of its text, and of the PDUs that it comes
// in.
const (
	maxDiscoveryText = 16 << 20
	maxDiscoveryPDUs = 1 << 16
)

// ask requests the targets and logs out.
func (d *discovery) ask(ctx context.Context, t *transport, res *loginResult) (text []byte, err error) {
	defer t.nc.Close() //nolint:errcheck // what matters was read
	ctx, cancel := withTimeout(ctx, d.cfg.Timeouts.Login)
	defer cancel()
	x := &textExchange{t: t, cmdSN: res.cmdSN, expStatSN: res.expStatSN}
	if err = t.while(ctx, func() (err error) {
		text, err = x.sendTargets()
		return err
	}); err != nil {
		return nil, err
	}
	// The target is told that we go; whether it listens does not matter.
	lctx, lcancel := withTimeout(ctx, d.cfg.Timeouts.Logout)
	defer lcancel()
	if err := t.while(lctx, x.logout); err != nil {
		d.cfg.Logger.Debug("logout of discovery session", "err", err)
	}
	return text, nil
}

// parse turns the text of an answer into portals.
func (d *discovery) parse(text []byte, at Portal) []DiscoveredPortal {
	var out []DiscoveredPortal
	target, addresses := "", 0
	finish := func() {
		if target != "" && addresses == 0 {
			// A target without an address is at the portal that was
			// asked (RFC 7143 appendix C).
			at.TPGT = UnknownTPGT
			out = append(out, DiscoveredPortal{target, at})
		}
	}
	for raw := range bytes.SplitSeq(text, []byte{0}) {
		kvs, err := pdu.ParseText(raw, pdu.TextLimits{})
		if err != nil {
			d.skip(target, string(raw), err)
			continue
		}
		if len(kvs) == 0 {
			continue
		}
		switch kv := kvs[0]; kv.Key {
		case pdu.KeyTargetName:
			finish()
			target, addresses = kv.Value, 0
			if err := pdu.ValidateName(target); err != nil {
				d.skip(target, "", err)
				target = ""
			}
		case pdu.KeyTargetAddress:
			if target == "" {
				continue // of a target that was skipped
			}
			addresses++
			p, err := ParsePortal(kv.Value)
			if err != nil {
				d.skip(target, kv.Value, err)
				continue
			}
			out = append(out, DiscoveredPortal{target, p.zoned(at)})
		}
	}
	finish()
	return out
}

func (d *discovery) skip(target, address string, err error) {
	d.cfg.Logger.Warn("discovery: record skipped", "target", printable(target), "address", printable(address), "err", err)
	if d.cfg.OnSkip != nil {
		d.cfg.OnSkip(SkippedRecord{Target: target, Address: address, Err: err})
	}
}
