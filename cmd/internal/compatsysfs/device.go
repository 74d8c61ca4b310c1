package compatsysfs

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// defaultTimeout is the time of a SCSI command in seconds that the kernel
// starts with.
const defaultTimeout = "30"

// device shows one logical unit.
func (t *tree) device(target string, s *control.Session, d *control.Device) {
	hctl := fmt.Sprintf("%d:0:0:%d", s.Host, d.LUN)
	p := target + "/" + hctl
	code := deviceType(d.Type)

	dir := t.dir(p)
	alias := fmt.Sprintf("scsi:t-0x%02x", uint8(code))
	disk := code == scsi.TypeDisk
	if disk {
		dir.uevent("DEVTYPE=scsi_device", "DRIVER=sd", "MODALIAS="+alias)
	} else {
		dir.uevent("DEVTYPE=scsi_device", "MODALIAS="+alias)
	}
	dir.files(
		"modalias", alias,
		"type", strconv.Itoa(int(code)),
		"vendor", pad(d.Vendor, 8), "model", pad(d.Model, 16), "rev", pad(d.Revision, 4),
		"scsi_level", strconv.Itoa(versionSPC4+1), "queue_type", "simple",
	)
	dir.binary("inquiry", inquiry(code, d))
	if words, page, ok := deviceID(code, d.WWID); ok {
		dir.file("wwid", words)
		dir.binary("vpd_pg83", page)
	}
	if d.Serial != "" {
		dir.binary("vpd_pg80", scsi.AppendVPD(nil, scsi.QualifierConnected, code, scsi.VPDUnitSerial, []byte(d.Serial)))
	}
	unit := func(v verb) action { return action{verb: v, sid: s.SID, lun: d.LUN} }
	dir.trigger("delete", unit(verbDelete))
	dir.trigger("rescan", unit(verbRescan))
	dir.setting("state", deviceState(d), unit(verbState))
	dir.setting("timeout", defaultTimeout, unit(verbTimeout))
	t.member(p, "bus/scsi")
	t.object(p, "scsi_device", hctl)

	if !disk {
		return
	}
	t.link(p+"/driver", "bus/scsi/drivers/sd")
	t.link("bus/scsi/drivers/sd/"+hctl, p)
	t.object(p, "scsi_disk", hctl)
	if name := d.Name; isNBD(name) {
		block := p + "/block/" + name
		t.graft(block, "devices/virtual/block/"+name)
		t.link(block+"/device", p)
		for _, class := range []string{"block", "class/block"} {
			t.link(class+"/"+name, block)
		}
	}
}

// deviceState is the word of the kernel for what a unit is in.
func deviceState(d *control.Device) string {
	if d.State == "" {
		return "running"
	}
	return d.State
}

// isNBD reports whether a name is one of the nbd driver's disks: it becomes
// part of paths.
func isNBD(name string) bool {
	n, ok := strings.CutPrefix(name, "nbd")
	_, err := strconv.ParseUint(n, 10, 31)
	return ok && err == nil
}

// deviceType is the peripheral device type with the name.
func deviceType(name string) scsi.DeviceType {
	for t := range scsi.TypeUnknown {
		if t.String() == name {
			return t
		}
	}
	return scsi.TypeUnknown
}

// pad fills s with blanks to the width of its field in the inquiry data, as the
// kernel shows it. What would break a line is left out.
func pad(s string, width int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	return fmt.Sprintf("%-*.*s", width, width, s)
}

// versionSPC4 is the version of the inquiry data, and the scsi_level, that a unit
// is shown with: iscsid does not keep its own.
const versionSPC4 = 6

// inquiry returns standard inquiry data, of which iscsid has kept the
// identification.
func inquiry(code scsi.DeviceType, d *control.Device) []byte {
	return scsi.InquiryData{
		Type: code, Version: versionSPC4, CmdQueue: true, Vendor: d.Vendor, Product: d.Model, Revision: d.Revision,
	}.Append(nil)
}

// deviceID turns a WWID in the form of scsi_id (scsi.WWID) into the kernel's
// words for it and the page that has it. ok is false where the kernel would have
// neither: the identifier is no designator of the unit's, or none that it knows.
func deviceID(code scsi.DeviceType, wwid string) (words string, page []byte, ok bool) {
	if len(wwid) < 2 {
		return "", nil, false
	}
	id := wwid[1:]
	d := scsi.Designator{Type: scsi.DesignatorType(wwid[0] - '0'), CodeSet: scsi.CodeSetASCII, ID: []byte(id)}
	switch d.Type {
	case scsi.DesignatorNAA, scsi.DesignatorEUI64:
		b, err := hex.DecodeString(id)
		if err != nil {
			return "", nil, false
		}
		d.CodeSet, d.ID = scsi.CodeSetBinary, b
	case scsi.DesignatorT10Vendor:
	default:
		return "", nil, false
	}
	body := scsi.AppendDesignators(nil, d)
	return d.Type.String() + "." + id, scsi.AppendVPD(nil, scsi.QualifierConnected, code, scsi.VPDDeviceID, body), true
}
