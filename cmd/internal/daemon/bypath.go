package daemon

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/goiscsi/goiscsi/pdu"
)

// kernelLUN returns the number that Linux gives a logical unit: the four
// two-byte levels of the LUN, the first one lowest (scsilun_to_int of the
// kernel's SCSI layer). It is what open-iscsi prints after "Lun:" and what udev makes the
// by-path name of; for LUNs below 256 it is the LUN itself.
func kernelLUN(l pdu.LUN) uint64 {
	v := uint64(l)
	return v>>48 | v>>32&0xffff<<16 | v>>16&0xffff<<32 | v&0xffff<<48
}

// byPathName returns the name udev's path_id gives the disk of an iSCSI
// session: ip-ADDRESS:PORT-iscsi-TARGET-lun-N, the address without brackets,
// as the record has it, and LUNs above 255 in hexadecimal. The parts come
// from records and from the wire; an error says which one cannot be part of
// a file name.
func byPathName(address string, port int, target string, lun pdu.LUN) (string, error) {
	address = strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
	if err := validHost(address); err != nil {
		return "", err
	}
	if port < 1 || port > 65535 {
		return "", fmt.Errorf("port %d is not within 1 and 65535", port)
	}
	if err := pdu.ValidateName(target); err != nil {
		return "", fmt.Errorf("target name: %w", err)
	}
	name := "ip-" + address + ":" + strconv.Itoa(port) + "-iscsi-" + target + "-lun-"
	if n := kernelLUN(lun); n < 256 {
		name += strconv.FormatUint(n, 10)
	} else {
		name += fmt.Sprintf("0x%04x%04x00000000", n&0xffff, n>>16&0xffff)
	}
	if len(name) > maxLinkName {
		return "", fmt.Errorf("link name of %d bytes is longer than %d", len(name), maxLinkName)
	}
	return name, nil
}

// maxLinkName leaves room for "-part123" and the temporary prefix within the
// 255 bytes of a directory entry.
const maxLinkName = 255 - 16

// validHost accepts an IP address, with or without a zone, and a host name.
func validHost(h string) error {
	addr, zone, zoned := strings.Cut(h, "%")
	if _, err := netip.ParseAddr(addr); err == nil {
		if zoned && (zone == "" || !plain(zone)) {
			return fmt.Errorf("%q is no zone of an address", zone)
		}
		return nil
	}
	if h == "" || len(h) > 253 || h[0] == '-' || h[0] == '.' || !plain(h) {
		return fmt.Errorf("%q is no host name", h)
	}
	return nil
}

// plain reports whether s has nothing but letters, digits, '-', '.' and '_'.
func plain(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_':
		default:
			return false
		}
	}
	return true
}
