//go:build linux

package nbd

import (
	"fmt"

	"github.com/mdlayher/netlink"
)

// The generic netlink family of the driver (include/uapi/linux/nbd-netlink.h).
const (
	genlFamily  = "nbd"
	genlVersion = 1
	genlGroup   = "nbd_mc_group"
)

// Commands of the family.
const (
	genlConnect     = 1
	genlDisconnect  = 2
	genlReconfigure = 3
	genlLinkDead    = 4
	genlStatus      = 5
)

// Attributes of the commands, and of the two kinds of nested lists.
const (
	attrIndex           = 1
	attrSizeBytes       = 2
	attrBlockSizeBytes  = 3
	attrTimeout         = 4
	attrServerFlags     = 5
	attrClientFlags     = 6
	attrSockets         = 7
	attrDeadConnTimeout = 8
	attrDeviceList      = 9
	attrBackendID       = 10

	attrSockItem = 1 // in attrSockets
	attrSockFD   = 1 // in attrSockItem

	attrDeviceItem      = 1 // in attrDeviceList
	attrDeviceIndex     = 1 // in attrDeviceItem
	attrDeviceConnected = 2
)

// clientDestroyOnDisconnect makes the driver remove /dev/nbdN with its last
// user after a disconnect.
const clientDestroyOnDisconnect = 1 << 0

// A genlRequest is what CONNECT, RECONFIGURE, DISCONNECT and STATUS are made of.
// Pointers that are nil and empty values are left out.
type genlRequest struct {
	index           *uint32
	size            *uint64
	blockSize       *uint64
	timeout         *uint64 // seconds
	deadConnTimeout *uint64 // seconds
	serverFlags     *uint64
	clientFlags     *uint64
	sockets         []int // file descriptors of this process
	backendID       string
}

func (r *genlRequest) encode() ([]byte, error) {
	ae := netlink.NewAttributeEncoder()
	if r.index != nil {
		ae.Uint32(attrIndex, *r.index)
	}
	for _, a := range []struct {
		typ uint16
		v   *uint64
	}{
		{attrSizeBytes, r.size},
		{attrBlockSizeBytes, r.blockSize},
		{attrTimeout, r.timeout},
		{attrDeadConnTimeout, r.deadConnTimeout},
		{attrServerFlags, r.serverFlags},
		{attrClientFlags, r.clientFlags},
	} {
		if a.v != nil {
			ae.Uint64(a.typ, *a.v)
		}
	}
	if len(r.sockets) > 0 {
		ae.Nested(attrSockets, func(ae *netlink.AttributeEncoder) error {
			for _, fd := range r.sockets {
				ae.Nested(attrSockItem, func(ae *netlink.AttributeEncoder) error {
					ae.Uint32(attrSockFD, uint32(fd))
					return nil
				})
			}
			return nil
		})
	}
	if r.backendID != "" {
		ae.String(attrBackendID, r.backendID)
	}
	return ae.Encode()
}

// DeviceStatus is the driver's answer to STATUS for one device.
type DeviceStatus struct {
	Index     int  // N of nbdN
	Connected bool // it has a configuration; its sockets may be dead all the same
}

// decodeStatus decodes the answer to STATUS.
func decodeStatus(b []byte) ([]DeviceStatus, error) {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return nil, err
	}
	var list []DeviceStatus
	for ad.Next() {
		if ad.Type() != attrDeviceList {
			continue
		}
		ad.Nested(func(ad *netlink.AttributeDecoder) error {
			for ad.Next() {
				if ad.Type() != attrDeviceItem {
					continue
				}
				var s DeviceStatus
				ad.Nested(func(ad *netlink.AttributeDecoder) error {
					for ad.Next() {
						switch ad.Type() {
						case attrDeviceIndex:
							s.Index = int(ad.Uint32())
						case attrDeviceConnected:
							s.Connected = ad.Uint8() != 0
						}
					}
					return nil
				})
				list = append(list, s)
			}
			return nil
		})
	}
	return list, ad.Err()
}

// decodeIndex decodes the answer to CONNECT, and LINK_DEAD.
func decodeIndex(b []byte) (int, error) {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return 0, err
	}
	index := -1
	for ad.Next() {
		if ad.Type() == attrIndex {
			index = int(ad.Uint32())
		}
	}
	if err := ad.Err(); err != nil {
		return 0, err
	}
	if index < 0 {
		return 0, fmt.Errorf("nbd: netlink message without device index")
	}
	return index, nil
}
