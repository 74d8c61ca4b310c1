package initiator

import (
	"context"
	"fmt"

	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// An Identity is what tells a logical unit from all others, whatever path leads
// to it.
type Identity struct {
	// WWID is the world wide identifier as udev's scsi_id and multipath form
	// it (scsi.WWID): "36001405…". It may be empty.
	WWID string

	// Serial is the unit serial number, VPD page 0x80. It may be empty.
	Serial string

	// Vendor and Product are from the INQUIRY data.
	Vendor, Product string
}

// IsZero reports whether nothing is known that identifies a device.
func (i Identity) IsZero() bool { return i.WWID == "" && i.Serial == "" }

// Same reports whether both identities are of the same device as far as can be
// told: by the WWID where both have one, else by serial number, vendor and
// product. Devices that tell nothing about themselves are taken for the same
// if vendor and product agree.
func (i Identity) Same(o Identity) bool {
	if i.WWID != "" && o.WWID != "" {
		return i.WWID == o.WWID
	}
	return i.Serial == o.Serial && i.Vendor == o.Vendor && i.Product == o.Product
}

// String returns the WWID, or else what there is.
func (i Identity) String() string {
	switch {
	case i.WWID != "":
		return i.WWID
	case i.Serial != "":
		return fmt.Sprintf("%s %s serial %s", i.Vendor, i.Product, i.Serial)
	}
	return fmt.Sprintf("%s %s without a serial number", i.Vendor, i.Product)
}

// LUNInfo is what a logical unit says about itself in answer to INQUIRY.
type LUNInfo struct {
	LUN pdu.LUN
	scsi.InquiryData
	Identity Identity

	// Designators is VPD page 0x83 in full.
	Designators []scsi.Designator

	// Pages are the VPD pages the device has.
	Pages scsi.VPDPages
}

// IsDisk reports whether a disk is there that OpenVolume opens.
func (i *LUNInfo) IsDisk() bool {
	return i.Present() && i.Type == scsi.TypeDisk
}

// maxReportLUNs bounds the list we ask for: SAM has no limit, our memory has.
// 64 Ki logical units are 512 KiB.
const maxReportLUNs = scsi.ReportLUNsHeaderLength + 8*(1<<16)

// LUNs returns the logical units of the target in the order in which it lists
// them, by REPORT LUNS to LUN 0 (SPC-5 section 6.33). Well known logical units
// are not among them. A list longer than 65536 entries is cut.
func (s *Session) LUNs(ctx context.Context) ([]pdu.LUN, error) {
	return reportLUNs(ctx, s.prober())
}

func reportLUNs(ctx context.Context, p *prober) ([]pdu.LUN, error) {
	const first = scsi.ReportLUNsHeaderLength + 8*256
	data, err := p.readAll(ctx, "report LUNs", 0, first, maxReportLUNs,
		func(cdb *scsi.CDB, n int) int { return scsi.ReportLUNs(cdb, scsi.SelectAddressable, uint32(n)) },
		func(b []byte) uint64 { n, _ := scsi.ReportLUNsLength(b); return n })
	if err != nil {
		return nil, err
	}
	raw, err := scsi.ParseReportLUNs(data)
	if err != nil {
		return nil, p.fail("report LUNs", 0, nil, err)
	}
	luns := make([]pdu.LUN, len(raw))
	for i, l := range raw {
		luns[i] = pdu.LUN(l)
	}
	return luns, nil
}

// Inquire asks a logical unit what it is. That works for all types and also
// where there is nothing: LUNInfo.Present tells. Pages that the device does not
// have or that make no sense are left out.
func (s *Session) Inquire(ctx context.Context, lun pdu.LUN) (*LUNInfo, error) {
	return s.prober().inquire(ctx, lun)
}
