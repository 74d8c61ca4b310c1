//go:build linux

package nbdtest

import (
	"errors"
	"iter"
	"os"
	"slices"
	"sync"
	"syscall"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nlenc"
	"golang.org/x/sys/unix"
)

// Numbers that a kernel would assign.
const (
	familyID = 0x1d
	groupID  = 7
)

// attrs are the attributes of a command.
type attrs struct {
	index                    *int
	size, blockSize          *uint64
	timeout, deadConnTimeout *uint64
	serverFlags, clientFlags *uint64
	fds                      []int
	backendID                string
}

// parseAttrs decodes the attributes by the numbers of
// include/uapi/linux/nbd-netlink.h.
func parseAttrs(b []byte) (*attrs, error) {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return nil, err
	}
	a := &attrs{}
	number := func(p **uint64) {
		v := ad.Uint64()
		*p = &v
	}
	for ad.Next() {
		switch ad.Type() {
		case 1:
			i := int(ad.Uint32())
			a.index = &i
		case 2:
			number(&a.size)
		case 3:
			number(&a.blockSize)
		case 4:
			number(&a.timeout)
		case 5:
			number(&a.serverFlags)
		case 6:
			number(&a.clientFlags)
		case 7:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					ad.Nested(func(ad *netlink.AttributeDecoder) error {
						for ad.Next() {
							a.fds = append(a.fds, int(ad.Uint32()))
						}
						return nil
					})
				}
				return nil
			})
		case 8:
			number(&a.deadConnTimeout)
		case 10:
			a.backendID = ad.String()
		}
	}
	return a, ad.Err()
}

func indexAttr(index int) func(*netlink.AttributeEncoder) {
	return func(ae *netlink.AttributeEncoder) { ae.Uint32(1, uint32(index)) }
}

// A netlinkSocket is a netlink socket whose kernel is a Kernel.
type netlinkSocket struct {
	k      *Kernel
	groups map[uint32]bool // guarded by Kernel.mu

	mu     sync.Mutex // protects what follows
	cond   *sync.Cond // signals queue and closed
	queue  [][]netlink.Message
	closed bool
}

func (k *Kernel) dial() *genetlink.Conn {
	s := &netlinkSocket{k: k, groups: make(map[uint32]bool)}
	s.cond = sync.NewCond(&s.mu)
	k.mu.Lock()
	k.sockets[s] = struct{}{}
	k.mu.Unlock()
	return genetlink.NewConn(netlink.NewConn(s, 1))
}

// Close implements netlink.Socket. A Receive that waits returns.
func (s *netlinkSocket) Close() error {
	s.k.mu.Lock()
	delete(s.k.sockets, s)
	s.k.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.cond.Broadcast()
	return nil
}

// JoinGroup makes the socket receive multicasts.
func (s *netlinkSocket) JoinGroup(group uint32) error {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	s.groups[group] = true
	return nil
}

// LeaveGroup undoes JoinGroup.
func (s *netlinkSocket) LeaveGroup(group uint32) error {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	delete(s.groups, group)
	return nil
}

// Send implements netlink.Socket; the answer is there when it returns.
func (s *netlinkSocket) Send(m netlink.Message) error {
	answers, err := s.k.handle(m)
	if errno := syscall.Errno(0); errors.As(err, &errno) || err == nil && m.Header.Flags&netlink.Acknowledge != 0 {
		answers = append(answers, netlink.Message{
			Header: netlink.Header{Type: netlink.Error, Sequence: m.Header.Sequence, PID: m.Header.PID},
			Data:   append(nlenc.Int32Bytes(-int32(errno)), make([]byte, 16)...),
		})
		err = nil
	}
	if err != nil {
		return err
	}
	// Each in a datagram of its own, as the kernel sends them.
	for _, a := range answers {
		s.push(a)
	}
	return nil
}

// SendMessages implements netlink.Socket.
func (s *netlinkSocket) SendMessages(ms []netlink.Message) error {
	for _, m := range ms {
		if err := s.Send(m); err != nil {
			return err
		}
	}
	return nil
}

func (s *netlinkSocket) push(m netlink.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, []netlink.Message{m})
	s.cond.Broadcast()
}

// Receive implements netlink.Socket.
func (s *netlinkSocket) Receive() ([]netlink.Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) == 0 && !s.closed {
		s.cond.Wait()
	}
	if s.closed {
		return nil, os.ErrClosed
	}
	ms := s.queue[0]
	s.queue = s.queue[1:]
	return ms, nil
}

// ReceiveIter implements netlink.Socket.
func (s *netlinkSocket) ReceiveIter() iter.Seq2[netlink.Message, error] {
	return func(yield func(netlink.Message, error) bool) {
		ms, err := s.Receive()
		if err != nil {
			yield(netlink.Message{}, err)
			return
		}
		for _, m := range ms {
			if !yield(m, nil) {
				return
			}
		}
	}
}

// handle does one request; an error that is an errno goes into the answer.
func (k *Kernel) handle(m netlink.Message) ([]netlink.Message, error) {
	var g genetlink.Message
	if err := g.UnmarshalBinary(m.Data); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.unloaded {
		return nil, syscall.ENOENT
	}
	answer := func(cmd uint8, encode func(*netlink.AttributeEncoder)) ([]netlink.Message, error) {
		a, err := message(cmd, encode)
		a.Header.Sequence, a.Header.PID = m.Header.Sequence, m.Header.PID
		return []netlink.Message{a}, err
	}
	if m.Header.Type == unix.GENL_ID_CTRL {
		return answer(unix.CTRL_CMD_NEWFAMILY, func(ae *netlink.AttributeEncoder) {
			ae.Uint16(unix.CTRL_ATTR_FAMILY_ID, familyID)
			ae.String(unix.CTRL_ATTR_FAMILY_NAME, "nbd")
			ae.Uint32(unix.CTRL_ATTR_VERSION, 1)
			ae.Nested(unix.CTRL_ATTR_MCAST_GROUPS, func(ae *netlink.AttributeEncoder) error {
				ae.Nested(1, func(ae *netlink.AttributeEncoder) error {
					ae.String(unix.CTRL_ATTR_MCAST_GRP_NAME, "nbd_mc_group")
					ae.Uint32(unix.CTRL_ATTR_MCAST_GRP_ID, groupID)
					return nil
				})
				return nil
			})
		})
	}
	op := Op(g.Header.Command)
	k.calls[op]++
	k.called.Broadcast()
	if f := k.failures[op]; len(f) > 0 {
		k.failures[op] = f[1:]
		if f[0] != 0 {
			return nil, f[0]
		}
	}
	a, err := parseAttrs(g.Data)
	if err != nil {
		return nil, syscall.EINVAL
	}
	switch op {
	case OpConnect:
		index, err := k.connect(a)
		if err != nil {
			return nil, err
		}
		return answer(uint8(OpConnect), indexAttr(index))
	case OpDisconnect:
		return nil, k.disconnect(a)
	case OpReconfigure:
		return nil, k.reconfigure(a)
	case OpStatus:
		return answer(uint8(OpStatus), k.status(a))
	}
	return nil, syscall.EOPNOTSUPP
}

// status encodes the answer to STATUS.
func (k *Kernel) status(a *attrs) func(*netlink.AttributeEncoder) {
	var list []int
	for i := range k.devices {
		if a.index == nil || *a.index == i {
			list = append(list, i)
		}
	}
	slices.Sort(list)
	return func(ae *netlink.AttributeEncoder) {
		ae.Nested(9, func(ae *netlink.AttributeEncoder) error {
			for _, i := range list {
				ae.Nested(1, func(ae *netlink.AttributeEncoder) error {
					ae.Uint32(1, uint32(i))
					connected := uint8(0)
					if k.devices[i].Connected {
						connected = 1
					}
					ae.Uint8(2, connected)
					return nil
				})
			}
			return nil
		})
	}
}

// multicast sends a message to the sockets in the family's group. The caller
// holds mu.
func (k *Kernel) multicast(op Op, encode func(*netlink.AttributeEncoder)) {
	m, err := message(uint8(op), encode)
	if err != nil {
		panic("nbdtest: " + err.Error()) // encoders here cannot fail
	}
	for s := range k.sockets {
		if s.groups[groupID] {
			s.push(m)
		}
	}
}

// message encodes a message of the family.
func message(cmd uint8, encode func(*netlink.AttributeEncoder)) (netlink.Message, error) {
	ae := netlink.NewAttributeEncoder()
	encode(ae)
	b, err := ae.Encode()
	if err != nil {
		return netlink.Message{}, err
	}
	g := genetlink.Message{Header: genetlink.Header{Command: cmd, Version: 1}, Data: b}
	data, err := g.MarshalBinary()
	return netlink.Message{Header: netlink.Header{Type: familyID}, Data: data}, err
}
