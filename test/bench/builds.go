package main

// builds compares two builds of ours, without and with digests, on our own target,
// which is that of -bin.
func (b *bench) builds() error {
	t, err := b.ownTarget()
	if err != nil {
		return err
	}
	defer t.stop()
	if err := b.buildsOn(t, plainName); err != nil {
		return err
	}
	return b.buildsOn(t, digestName, crc32c...)
}

// buildsTgt does so on tgt with a store that forgets.
func (b *bench) buildsTgt() error {
	t, err := b.tgtTarget(false)
	if err != nil {
		return err
	}
	defer t.stop()
	return b.buildsOn(t, plainName)
}

func (b *bench) buildsOn(t *target, name string, settings ...string) error {
	title := "two builds, NBD export on " + t.kind + pick(len(settings) > 0, ", with digests", "")
	if !b.only.MatchString(title) {
		return nil
	}
	var list []contender
	for _, c := range []struct {
		name, bin string
		settings  []string
	}{
		{"this", b.bin, append(settings[:len(settings):len(settings)], b.variant...)},
		{"base", b.base, settings},
	} {
		d, err := b.daemonOf(c.bin, c.name)
		if err != nil {
			return err
		}
		defer d.proc.stop()
		if err := d.discover(t); err != nil {
			return err
		}
		sockets, err := d.login(t, name, c.settings...)
		if err != nil {
			return err
		}
		list = append(list, b.overFio(c.name, t.span, sockets[:1], d.proc))
	}
	return b.table(table{title: title, contenders: list}, workloads(b.quick))
}
