package main

// export compares iscsid with qemu-nbd.
func (b *bench) export() error {
	own, err := b.ownTarget()
	if err != nil {
		return err
	}
	err = b.exportOf(own, workloads(b.quick))
	if err == nil {
		err = b.exportOwn(own)
	}
	own.stop()
	if err != nil || b.quick {
		return err
	}
	for _, memory := range []bool{false, true} {
		t, err := b.tgtTarget(memory)
		if err != nil {
			return err
		}
		err = b.exportOf(t, workloads(false))
		t.stop()
		if err != nil {
			return err
		}
	}
	return nil
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

// exportOf compares one unit of a target, and all of them.
func (b *bench) exportOf(t *target, list []workload) error {
	d, err := b.daemon()
	if err != nil {
		return err
	}
	defer d.proc.stop()
	if err := d.discover(t); err != nil {
		return err
	}
	sockets, err := d.login(t, plainName)
	if err != nil {
		return err
	}
	nice, err := d.proc.nice()
	if err != nil {
		return err
	}
	var procs []*process
	var peers []string
	defer func() {
		for _, p := range procs {
			p.stop()
		}
	}()
	for lun := 1; lun <= units; lun++ {
		p, socket, err := b.qemuNBD(t.url(plainName, lun), nice)
		if err != nil {
			return err
		}
		procs, peers = append(procs, p), append(peers, socket)
	}
	if err := b.table(table{
		title: "NBD export on " + t.kind + ", one unit",
		contenders: []contender{
			b.overFio("iscsid", t.span, sockets[:1], d.proc),
			b.overFio("qemu-nbd", t.span, peers[:1], procs[0]),
		},
		goal: exportGoal, cpuGoal: exportCPUGoal,
	}, list); err != nil {
		return err
	}
	return b.table(table{
		title: "NBD exports on " + t.kind + ", eight units at once, which share the depth",
		contenders: []contender{
			b.overFio("iscsid, 8 units", t.span, sockets, d.proc),
			b.overFio("qemu-nbd, 8 units", t.span, peers, procs...),
			b.overFio("iscsid, 1 unit", t.span, sockets[:1], d.proc),
		},
	}, []workload{
		{rw: "randread", size: 4 << 10, depth: 32},
		{rw: "randwrite", size: 4 << 10, depth: 32},
		{rw: "read", size: 1 << 20, depth: 8},
	})
}

// exportOwn shows what digests cost.
func (b *bench) exportOwn(t *target) error {
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
	}, []workload{
		{rw: "randread", size: 4 << 10, depth: 32},
		{rw: "randwrite", size: 4 << 10, depth: 32},
		{rw: "read", size: 1 << 20, depth: 8},
		{rw: "write", size: 1 << 20, depth: 8},
	})
}
