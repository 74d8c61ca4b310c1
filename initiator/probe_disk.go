package initiator

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"

	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// Bounds of block sizes that we serve.
const (
	minBlockSize = 512
	maxBlockSize = 64 << 10
)

// A diskState is what a disk says about itself. It is the raw material of
// Features and of the splitting rules.
type diskState struct {
	capacity  scsi.Capacity
	size      int64 // bytes
	blockSize int

	writeProtect bool
	writeCache   bool // also where the device does not say: flushes do no harm
	cachingPage  bool // it does say
	dpofua       bool

	limits  scsi.BlockLimits
	medium  scsi.Characteristics
	prov    scsi.Provisioning
	same16  support // WRITE SAME(16)
	ndob    bool    // WRITE SAME(16) takes NDOB
	compare support // COMPARE AND WRITE
}

// A support says whether a device has a command.
type support uint8

const (
	supportUnknown support = iota // it does not say: try
	supportYes
	supportNo
)

// disk asks a disk for all that a Volume needs to know.
func (p *prober) disk(ctx context.Context, info *LUNInfo) (*diskState, error) {
	d := &diskState{}
	var err error
	if d.capacity, err = p.capacity(ctx, info.LUN); err != nil {
		return nil, err
	}
	if d.size, d.blockSize, err = geometryOf(d.capacity); err != nil {
		return nil, p.fail("read capacity", info.LUN, ErrUnsupported, err)
	}
	if err = p.modes(ctx, info.LUN, d); err != nil {
		return nil, err
	}
	if err = p.limits(ctx, info, d); err != nil {
		return nil, err
	}
	if err = p.opcodes(ctx, info, d); err != nil {
		return nil, err
	}
	return d, nil
}

// geometryOf turns a capacity into bytes, or says why it cannot be served.
func geometryOf(c scsi.Capacity) (size int64, blockSize int, err error) {
	bs := uint64(c.BlockSize)
	if bs < minBlockSize || bs > maxBlockSize || bits.OnesCount64(bs) != 1 {
		return 0, 0, fmt.Errorf("block size %d", bs)
	}
	if c.Blocks() > math.MaxInt64/bs {
		return 0, 0, fmt.Errorf("%d blocks of %d bytes", c.Blocks(), bs)
	}
	return int64(c.Blocks() * bs), int(bs), nil
}

// capacity asks by READ CAPACITY(16) and, where that does not exist, (10).
func (p *prober) capacity(ctx context.Context, lun pdu.LUN) (scsi.Capacity, error) {
	const op = "read capacity"
	b, err := p.read(ctx, op, lun, scsi.Capacity16Length, func(cdb *scsi.CDB) int {
		return scsi.ReadCapacity16(cdb, scsi.Capacity16Length)
	})
	var c scsi.Capacity
	if err == nil {
		if c, err = scsi.ParseCapacity16(b); err == nil {
			return c, nil
		}
	}
	if !lacking(err) {
		return c, err
	}
	b, err = p.read(ctx, op, lun, scsi.Capacity10Length, scsi.ReadCapacity10)
	if err != nil {
		return c, err
	}
	if c, err = scsi.ParseCapacity10(b); err != nil {
		return c, p.fail(op, lun, ErrDevice, err)
	}
	return c, nil
}

// modes asks whether the device is write protected, has a write cache and
// takes the FUA bit. MODE SENSE(6) comes first because every device has it; the
// caching page is asked for by itself because some devices fail on all pages
// together, and all pages where the caching page does not exist, because the
// header is still of interest.
func (p *prober) modes(ctx context.Context, lun pdu.LUN, d *diskState) error {
	d.writeProtect, d.dpofua, d.writeCache, d.cachingPage = false, false, true, false
	for _, page := range []scsi.ModePage{scsi.ModeCaching, scsi.ModeAll} {
		for _, long := range []bool{false, true} {
			h, b, err := p.modeSense(ctx, lun, page, long)
			if err != nil {
				var se *scsi.StatusError
				if lacking(err) || errors.As(err, &se) {
					continue // it answered: no reason not to use the disk
				}
				return err
			}
			d.writeProtect, d.dpofua = h.WriteProtect, h.DPOFUA
			if c, err := scsi.ParseCachingPage(h.Page(b, scsi.ModeCaching)); err == nil {
				d.writeCache, d.cachingPage = c.WriteCache, true
			}
			return nil
		}
	}
	p.log.Debug("no mode pages: taken to be writable and to have a write cache", "target", p.target, "lun", lun)
	return nil
}

func (p *prober) modeSense(ctx context.Context, lun pdu.LUN, page scsi.ModePage, long bool) (scsi.ModeHeader, []byte, error) {
	const alloc = 192 // what Linux asks for, to which devices are used
	b, err := p.read(ctx, "mode sense", lun, alloc, func(cdb *scsi.CDB) int {
		if long {
			return scsi.ModeSense10(cdb, page, 0, alloc)
		}
		return scsi.ModeSense6(cdb, page, 0, alloc)
	})
	if err != nil {
		return scsi.ModeHeader{}, nil, err
	}
	var h scsi.ModeHeader
	if long {
		h, err = scsi.ParseModeHeader10(b)
	} else {
		h, err = scsi.ParseModeHeader6(b)
	}
	return h, b, err
}

// limits reads the pages about block limits, the medium and provisioning, as
// far as the device has them.
func (p *prober) limits(ctx context.Context, info *LUNInfo, d *diskState) error {
	pages := []struct {
		page  scsi.VPDPage
		parse func([]byte) error
	}{
		{scsi.VPDBlockLimits, func(b []byte) (err error) { d.limits, err = scsi.ParseBlockLimits(b); return }},
		{scsi.VPDCharacteristics, func(b []byte) (err error) { d.medium, err = scsi.ParseCharacteristics(b); return }},
		{scsi.VPDLogicalProvisioning, func(b []byte) (err error) { d.prov, err = scsi.ParseProvisioning(b); return }},
	}
	for _, pg := range pages {
		if !info.Pages.Has(pg.page) {
			continue
		}
		b, err := p.vpd(ctx, info.LUN, pg.page)
		if err == nil {
			err = pg.parse(b)
		}
		if err = p.excuse(info.LUN, pg.page, err); err != nil {
			return err
		}
	}
	return nil
}

// spc3 is the version in INQUIRY data from which on REPORT SUPPORTED OPERATION
// CODES exists. Older devices are not asked.
const spc3 = 5

// opcodes asks whether the device has the commands that VPD does not tell of.
func (p *prober) opcodes(ctx context.Context, info *LUNInfo, d *diskState) error {
	if d.limits.MaxCompareAndWrite == 0 && info.Pages.Has(scsi.VPDBlockLimits) {
		d.compare = supportNo // SBC-4 section 6.6.3: zero says so
	}
	if info.Version < spc3 {
		return nil
	}
	const alloc = 64
	b, err := p.read(ctx, "report supported operation codes", info.LUN, alloc, func(cdb *scsi.CDB) int {
		return scsi.ReportSupportedOpcode(cdb, scsi.OpWriteSame16, alloc)
	})
	if err == nil {
		var s scsi.OpcodeSupport
		if s, err = scsi.ParseOpcodeSupport(b); err == nil {
			switch {
			case s.Supported:
				d.same16 = supportYes
				d.ndob = len(s.Usage) > 1 && s.Usage[1]&byte(scsi.SameNDOB) != 0
			case s.Known:
				d.same16 = supportNo
			}
		}
	}
	if err != nil && !lacking(err) {
		return err
	}
	return nil
}
