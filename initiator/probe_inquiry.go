package initiator

import (
	"context"
	"errors"
	"fmt"

	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// Allocation lengths. Devices older than SPC-3 take the length of an INQUIRY
// from one byte, so 252 is asked for first and more only where the answer says
// that there is more.
const (
	vpdFirst = 252
	vpdMost  = 4 + 0xffff
)

// inquire asks a logical unit what it is.
func (p *prober) inquire(ctx context.Context, lun pdu.LUN) (*LUNInfo, error) {
	const op = "inquiry"
	b, err := p.read(ctx, op, lun, scsi.InquiryLength, func(cdb *scsi.CDB) int {
		return scsi.Inquiry(cdb, scsi.InquiryLength)
	})
	if err != nil {
		return nil, err
	}
	info := &LUNInfo{LUN: lun}
	if err := info.describe(b); err != nil {
		return nil, p.fail(op, lun, ErrDevice, err)
	}
	if !info.Present() {
		return info, nil
	}
	if err := p.identify(ctx, info); err != nil {
		return nil, err
	}
	return info, nil
}

// describe takes what INQUIRY says.
func (i *LUNInfo) describe(inquiry []byte) (err error) {
	i.InquiryData, err = scsi.ParseInquiry(inquiry)
	i.Identity = Identity{Vendor: i.Vendor, Product: i.Product}
	return err
}

// identify fills in what the vital product data say about who the device is:
// page 0x00 first, as a device may take amiss a page that it does not list.
func (p *prober) identify(ctx context.Context, info *LUNInfo) error {
	b, err := p.vpd(ctx, info.LUN, scsi.VPDSupportedPages)
	if err == nil {
		info.Pages, err = scsi.ParseSupportedPages(b)
	}
	if err != nil {
		return p.excuse(info.LUN, scsi.VPDSupportedPages, err)
	}
	if info.Pages.Has(scsi.VPDUnitSerial) {
		if b, err = p.vpd(ctx, info.LUN, scsi.VPDUnitSerial); err == nil {
			info.Identity.Serial, err = scsi.ParseUnitSerial(b)
		}
		if err = p.excuse(info.LUN, scsi.VPDUnitSerial, err); err != nil {
			return err
		}
	}
	if info.Pages.Has(scsi.VPDDeviceID) {
		if b, err = p.vpd(ctx, info.LUN, scsi.VPDDeviceID); err == nil {
			info.Designators, err = scsi.ParseDeviceID(b)
		}
		if err = p.excuse(info.LUN, scsi.VPDDeviceID, err); err != nil {
			return err
		}
	}
	info.Identity.WWID = scsi.WWID(info.Designators, info.InquiryData, info.Identity.Serial)
	return nil
}

// vpd reads a vital product data page.
func (p *prober) vpd(ctx context.Context, lun pdu.LUN, page scsi.VPDPage) ([]byte, error) {
	return p.readAll(ctx, "inquiry", lun, vpdFirst, vpdMost,
		func(cdb *scsi.CDB, n int) int { return scsi.InquiryVPD(cdb, page, uint16(min(n, 0xffff))) },
		func(b []byte) uint64 { return uint64(scsi.VPDLength(b)) })
}

// excuse turns the lack of a page into nil and passes on other errors.
func (p *prober) excuse(lun pdu.LUN, page scsi.VPDPage, err error) error {
	if err == nil || !lacking(err) {
		return err
	}
	p.log.Debug("no vital product data", "target", p.target, "lun", lun, "page", fmt.Sprintf("0x%02x", uint8(page)), "cause", err)
	return nil
}

// lacking reports whether a device answered a question in a way that means it
// has no answer. Devices do so in many ways; all that matters is whether they
// could be asked at all.
func lacking(err error) bool {
	var fe *scsi.FormatError
	var se *scsi.StatusError
	return errors.As(err, &fe) ||
		errors.As(err, &se) && se.Status == scsi.StatusCheckCondition && se.Sense.Key == scsi.KeyIllegalRequest
}

// awaitReady sends TEST UNIT READY until the device has no more unit attentions
// and is ready. A device that wants to be started is started once (SBC-4
// section 5.31).
func (p *prober) awaitReady(ctx context.Context, lun pdu.LUN) error {
	for started := false; ; started = true {
		t := &Task{LUN: lun, Replay: true}
		scsi.TestUnitReady(&t.CDB)
		err := p.run(ctx, "test unit ready", t)
		sense, _ := Sense(err)
		if err == nil || started || !sense.Is(scsi.KeyNotReady, 0x04, 0x02) {
			return err
		}
		t = &Task{LUN: lun, Timeout: flushTimeout, Replay: true}
		scsi.StartStopUnit(&t.CDB, true, false, true)
		if err := p.run(ctx, "start unit", t); err != nil {
			return err
		}
	}
}
