package iscsiadm

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/nodedb"
)

// sendTargets asks a portal for its targets and tries again as the record
// says. What goes wrong is printed in open-iscsi's words, attempt by attempt.
func (c *command) sendTargets(d *nodedb.Discovery, i *nodedb.Iface, me nodedb.Initiator) ([]initiator.DiscoveredPortal, errcode.Code) {
	cfg, err := c.discoveryConfig(d, i, me)
	if err != nil {
		return nil, c.report(err)
	}
	reopenMax := max(0, d.Int(nodedb.FieldDiscReopenMax))
	for attempt := 0; ; attempt++ {
		if attempt > 0 {
			if err := c.Sleep(c.ctx, retryPause(attempt)); err != nil {
				return nil, errcode.Err
			}
		}
		portals, err := c.Discover(c.ctx, cfg)
		if err == nil {
			return portals, errcode.Success
		}
		if c.interrupted() != nil {
			return nil, errcode.Err
		}
		f := explain(err, cfg)
		for _, line := range f.lines {
			c.errorf("%s", oneLine(line))
		}
		if !f.again {
			return nil, f.code
		}
		if attempt >= reopenMax {
			c.errorf("connection login retries (reopen_max) %d exceeded", reopenMax)
			return nil, errcode.PDUTimeout
		}
	}
}

// retryPause is the time before a further attempt: none before the first,
// then open-iscsi's growing ones.
func retryPause(attempt int) time.Duration {
	switch {
	case attempt <= 1:
		return 0
	case attempt <= 10:
		return time.Second
	case attempt <= 11:
		return 2 * time.Second
	case attempt <= 12:
		return 5 * time.Second
	case attempt <= 13:
		return 15 * time.Second
	}
	return time.Minute
}

// discoveryConfig makes the library's configuration of a record.
func (c *command) discoveryConfig(d *nodedb.Discovery, i *nodedb.Iface, me nodedb.Initiator) (initiator.DiscoveryConfig, error) {
	key := d.Key()
	cfg := initiator.DiscoveryConfig{
		InitiatorName:  me.Name,
		InitiatorAlias: me.Alias,
		Portal:         initiator.Portal{Host: key.Address, Port: uint16(key.Port), TPGT: initiator.UnknownTPGT},
		CHAP: initiator.CHAP{
			Username:   d.Text(nodedb.FieldDiscUsername),
			Password:   initiator.Secret(d.Text(nodedb.FieldDiscPassword)),
			UsernameIn: d.Text(nodedb.FieldDiscUsernameIn),
			PasswordIn: initiator.Secret(d.Text(nodedb.FieldDiscPasswordIn)),
			Algorithms: chapAlgorithms(d.Text(nodedb.FieldCHAPAlgs)),
		},
		Timeouts: initiator.Timeouts{
			Login: d.Seconds(nodedb.FieldDiscLoginTimeout),
			Auth:  d.Seconds(nodedb.FieldDiscAuthTimeout),
		},
		Logger: c.logger(),
		OnSkip: func(s initiator.SkippedRecord) {
			c.errorf("ignoring what %s sent: target %q address %q: %s", key.Address, s.Target, s.Address, oneLine(s.Err.Error()))
		},
	}
	cfg.Params.MaxRecvDataSegmentLength = d.Int(nodedb.FieldDiscMaxRecvDataLength)
	tcp, err := binding(i)
	cfg.TCP = tcp
	return cfg, err
}

// chapAlgorithms reads a list as records have it. Words that are not known
// have been refused when the record was made.
func chapAlgorithms(list string) []initiator.CHAPAlgorithm {
	var out []initiator.CHAPAlgorithm
	for _, word := range strings.Split(list, ",") {
		for a := initiator.CHAPMD5; a <= initiator.CHAPSHA3256; a++ {
			if a.String() == word {
				out = append(out, a)
			}
		}
	}
	return out
}

// binding returns what connections through an interface are bound to. A MAC
// address stands for the network interface that has it.
func binding(i *nodedb.Iface) (initiator.TCP, error) {
	var t initiator.TCP
	if n := i.NetIface(); n != "" && n != nodedb.DefaultIface {
		t.NetIface = n
	} else if mac := i.HWAddress(); mac != "" && mac != nodedb.DefaultIface {
		name, err := netIfaceOf(mac)
		if err != nil {
			return t, err
		}
		t.NetIface = name
	}
	if a := i.IPAddress(); a != "" && a != nodedb.DefaultIface {
		addr, err := netip.ParseAddr(a)
		if err != nil {
			return t, &codeError{errcode.Inval, fmt.Errorf("iface %s: %s is not an address", i.Name(), a)}
		}
		t.LocalAddr = addr
	}
	return t, nil
}

func netIfaceOf(mac string) (string, error) {
	list, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for _, n := range list {
		if strings.EqualFold(n.HardwareAddr.String(), mac) {
			return n.Name, nil
		}
	}
	return "", &codeError{errcode.Inval, fmt.Errorf("no network interface has the address %s", mac)}
}

// codeError gives an error an exit code.
type codeError struct {
	code errcode.Code
	err  error
}

func (e *codeError) Error() string           { return e.err.Error() }
func (e *codeError) Unwrap() error           { return e.err }
func (e *codeError) ISCSICode() errcode.Code { return e.code }

// A failure is a failed attempt as it is reported.
type failure struct {
	lines []string
	again bool // another attempt may succeed
	code  errcode.Code
}

// explain puts the failure of one attempt into open-iscsi's words.
func explain(err error, cfg initiator.DiscoveryConfig) failure {
	host := cfg.Portal.Host
	var login *initiator.LoginError
	var op *net.OpError
	dialing := errors.As(err, &op) && op.Op == "dial"
	switch {
	case errors.As(err, &login):
		return explainStatus(login, host)
	case errors.Is(err, initiator.ErrResolve):
		return failure{code: errcode.Trans, lines: []string{
			fmt.Sprintf("Cannot resolve host %s. getaddrinfo error: [%s]", host, resolverText(err)),
			"cannot resolve host name " + host,
			"cannot resolve host name " + host,
		}}
	case errors.Is(err, initiator.ErrAuth):
		// The target could not prove itself.
		return failure{code: errcode.Of(err), lines: []string{
			"Login failed to authenticate with target ",
			fmt.Sprintf("discovery login to %s rejected: %v", host, err),
		}}
	case dialing && errors.Is(err, initiator.ErrTimeout):
		return failure{again: true, lines: []string{fmt.Sprintf("connect to %s timed out", host)}}
	case dialing && errors.Is(err, initiator.ErrTransport):
		return failure{again: true, lines: []string{fmt.Sprintf("cannot make connection to %s: %s", host, errnoText(err))}}
	case errors.Is(err, initiator.ErrTimeout):
		wait := cfg.Timeouts.Login
		return failure{code: errcode.FatalLogin, lines: []string{
			fmt.Sprintf("Login response timeout. Waited %d seconds and did not get response PDU.", int(wait.Seconds())),
			fmt.Sprintf("discovery login to %s failed, giving up 2", host),
		}}
	case errors.Is(err, initiator.ErrTransport):
		how := "failed"
		if errors.Is(err, initiator.ErrHungUp) {
			how = "closed"
		}
		return failure{again: true, lines: []string{
			fmt.Sprintf("Connection to Discovery Address %s %s", host, how),
			"Login I/O error, failed to receive a PDU",
			"retrying discovery login to " + host,
		}}
	}
	return failure{code: errcode.Of(err), lines: []string{fmt.Sprintf("discovery login to %s failed: %v", host, err)}}
}

// explainStatus is explain for a login that was answered with a status (RFC
// 7143 section 11.13.5).
func explainStatus(e *initiator.LoginError, host string) failure {
	status := fmt.Sprintf("(%02x/%02x)", e.Class, e.Detail)
	switch {
	case errors.Is(e, initiator.ErrAuth):
		lines := []string{fmt.Sprintf("discovery login to %s rejected: initiator failed authorization", host)}
		if e.Detail == 1 {
			lines = append([]string{"Login failed to authenticate with target "}, lines...)
		}
		return failure{code: errcode.LoginAuthFailed, lines: lines}
	case e.Class == 3:
		return failure{again: true, lines: []string{fmt.Sprintf("discovery login to %s rejected: target error %s", host, status)}}
	case e.Class == 2:
		return failure{code: errcode.FatalLogin, lines: []string{
			fmt.Sprintf("discovery login to %s rejected: initiator error %s, non-retryable, giving up", host, status),
		}}
	}
	return failure{code: errcode.FatalLogin, lines: []string{fmt.Sprintf("discovery login to %s rejected: %v", host, e)}}
}

// errnoText returns what strerror says of the cause of err: the same words
// that Go has, beginning with a capital.
func errnoText(err error) string {
	text := err.Error()
	var errno syscall.Errno
	if errors.As(err, &errno) {
		text = errno.Error()
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

// resolverText returns what gai_strerror would say of err.
func resolverText(err error) string {
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return "Name or service not known"
	}
	return "Temporary failure in name resolution"
}
