package scsi

import (
	"encoding/hex"
	"strings"
)

// wwidOrder is the order in which identifiers of the logical unit are
// preferred, that of udev's scsi_id: NAA registered extended, NAA registered,
// any other NAA, EUI-64, T10 vendor ID, vendor specific. naa 0 stands for any.
var wwidOrder = [...]struct {
	typ DesignatorType
	naa uint8
}{
	{DesignatorNAA, 6},
	{DesignatorNAA, 5},
	{DesignatorNAA, 0},
	{DesignatorEUI64, 0},
	{DesignatorT10Vendor, 0},
	{DesignatorVendor, 0},
}

// WWID returns the world wide identifier of a logical unit in the form udev's
// scsi_id gives ID_SERIAL, so that /dev/disk/by-id/scsi-<WWID> and multipath
// agree with it: the designator type as a digit and then the identifier, in
// hexadecimal for binary ones; vendor-specific identifiers are preceded by the
// vendor and the product. Where page 0x83 names no logical unit, the letter S,
// vendor, product and the unit serial number (page 0x80) serve, and where that
// is empty too the result is "".
//
// Only identifiers associated with the logical unit count: those of ports
// differ from path to path.
func WWID(ds []Designator, inq InquiryData, serial string) string {
	for _, want := range wwidOrder {
		for _, set := range []uint8{CodeSetBinary, CodeSetASCII} {
			for _, d := range ds {
				if d.Association != AssocUnit || d.Type != want.typ || d.CodeSet != set || len(d.ID) == 0 {
					continue
				}
				if want.naa != 0 && d.NAA() != want.naa {
					continue
				}
				return wwid(d, inq)
			}
		}
	}
	if serial == "" {
		return ""
	}
	return underscores("S" + vendorProduct(inq) + serial)
}

func wwid(d Designator, inq InquiryData) string {
	s := string(rune('0' + d.Type))
	if d.Type == DesignatorVendor {
		s += vendorProduct(inq)
	}
	if d.CodeSet == CodeSetBinary {
		return underscores(s + hex.EncodeToString(d.ID))
	}
	return underscores(s + string(d.ID))
}

// vendorProduct is both names in their full width, as scsi_id prepends them.
func vendorProduct(inq InquiryData) string {
	return string(appendPadded(appendPadded(make([]byte, 0, 24), inq.Vendor, 8), inq.Product, 16))
}

// underscores does what udev does to identifiers before they become a name:
// white space at the ends is dropped, runs of it within become one '_', and
// characters that udev does not allow in a name become '_' each.
func underscores(s string) string {
	var b strings.Builder
	for i, f := range strings.Fields(strings.TrimRight(s, "\x00")) {
		if i > 0 {
			b.WriteByte('_')
		}
		for _, c := range []byte(f) {
			if !allowed(c) {
				c = '_'
			}
			b.WriteByte(c)
		}
	}
	return b.String()
}

// allowed is udev's set for names: alphanumerics and "#+-.:=@_". Slashes are
// not in it here: an identifier is one component of a path.
func allowed(c byte) bool {
	switch {
	case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		return true
	}
	return strings.IndexByte("#+-.:=@_", c) >= 0
}
