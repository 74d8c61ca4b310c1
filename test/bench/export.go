package main

// export compares iscsid with qemu-nbd on one unit of our own target.
func (b *bench) export() error {
	t, err := b.ownTarget()
	if err != nil {
		return err
	}
	defer t.stop()
	return b.exportOf(t, 1, b.oneUnit)
}

// units compares eight units at once with one.
func (b *bench) units() error {
	t, err := b.ownTarget()
	if err != nil {
		return err
	}
	defer t.stop()
	return b.exportOf(t, units, b.allUnits)
}

// exportTgt compares both on tgt with a store that forgets.
func (b *bench) exportTgt() error { return b.exportOnTgt(false) }

// exportTgtMemory compares both on tgt with a store in memory.
func (b *bench) exportTgtMemory() error { return b.exportOnTgt(true) }

func (b *bench) exportOnTgt(memory bool) error {
	t, err := b.tgtTarget(memory)
	if err != nil {
		return err
	}
	defer t.stop()
	return b.exportOf(t, units, func(e *exports) error {
		if err := b.oneUnit(e); err != nil {
			return err
		}
		return b.allUnits(e)
	})
}

// exports are units of a target, each served by both.
type exports struct {
	t            *target
	d            *daemon
	procs        []*process // qemu-nbd, one a unit
	ours, theirs []string   // sockets
}

// exportOf serves the first n units of a target while f runs.
func (b *bench) exportOf(t *target, n int, f func(*exports) error) error {
	d, err := b.daemon()
	if err != nil {
		return err
	}
	e := &exports{t: t, d: d}
	defer func() {
		for _, p := range append(e.procs, d.proc) {
			p.stop()
		}
	}()
	if err := d.discover(t); err != nil {
		return err
	}
	if e.ours, err = d.login(t, plainName); err != nil {
		return err
	}
	for lun := 1; lun <= n; lun++ {
		p, socket, err := b.qemuNBD(t.url(plainName, lun))
		if err != nil {
			return err
		}
		e.procs, e.theirs = append(e.procs, p), append(e.theirs, socket)
	}
	return f(e)
}

// oneUnit is part A of the comparison.
func (b *bench) oneUnit(e *exports) error {
	return b.table(table{
		title: "NBD export on " + e.t.kind + ", one unit",
		contenders: []contender{
			b.overFio("iscsid", e.t.span, e.ours[:1], e.d.proc),
			b.overFio("qemu-nbd", e.t.span, e.theirs[:1], e.procs[0]),
		},
		goal: exportGoal, cpuGoal: exportCPUGoal,
	}, workloads(b.quick))
}

// allUnits spreads the workload over all units.
func (b *bench) allUnits(e *exports) error {
	return b.table(table{
		title: "NBD exports on " + e.t.kind + ", eight units at once, which share the depth",
		contenders: []contender{
			b.overFio("iscsid, 8 units", e.t.span, e.ours, e.d.proc),
			b.overFio("iscsid, 1 unit", e.t.span, e.ours[:1], e.d.proc),
			b.overFio("qemu-nbd, 8 units", e.t.span, e.theirs, e.procs...),
		},
		goal: func(workload) float64 { return 1 },
	}, fewWorkloads())
}

// fewWorkloads are those of tables with more contenders.
func fewWorkloads() []workload {
	return []workload{
		{rw: "randread", size: 4 << 10, depth: 32},
		{rw: "randwrite", size: 4 << 10, depth: 32},
		{rw: "read", size: 1 << 20, depth: 8},
		{rw: "write", size: 1 << 20, depth: 8},
	}
}

// exportGoal is the least ratio to qemu-nbd's IOPS.
func exportGoal(w workload) float64 {
	switch {
	case w.rw == "read":
		return 1.8
	case w.rw == "write":
		return 2.5
	case w.rw == "randread" && w.depth == 32:
		return 2.5
	case w.size == 4<<10:
		return 1.5
	}
	return 0
}

// exportCPUGoal is the greatest ratio to qemu-nbd's CPU time for an I/O.
func exportCPUGoal(w workload) float64 {
	return pick(w.size == 4<<10 && w.depth == 32, 0.5, 0)
}

// digests shows what digests cost.
func (b *bench) digests() error {
	t, err := b.ownTarget()
	if err != nil {
		return err
	}
	defer t.stop()
	d, err := b.daemon()
	if err != nil {
		return err
	}
	defer d.proc.stop()
	if err := d.discover(t); err != nil {
		return err
	}
	plain, err := d.login(t, plainName)
	if err != nil {
		return err
	}
	digest, err := d.login(t, digestName, crc32c...)
	if err != nil {
		return err
	}
	return b.table(table{
		title: "header and data digests",
		contenders: []contender{
			b.overFio("CRC32C", t.span, digest[:1], d.proc),
			b.overFio("none", t.span, plain[:1], d.proc),
		},
		goal: func(w workload) float64 { return pick(w.size == 1<<20, 0.85, 0) },
	}, fewWorkloads())
}
