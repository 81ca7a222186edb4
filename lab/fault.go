package lab

import "fmt"

// Sectors is a range of 512-byte sectors. The zero value means the whole disk.
type Sectors struct{ First, Count int64 }

// fault makes requests of one kind fail.
type fault struct {
	kind    string // QEMU's name for it
	sectors Sectors
}

// faultSectorsMax bounds the sectors with faults, of which each is a rule that
// QEMU looks at for every request.
const faultSectorsMax = 4096

// errnoMedium is ENODATA, which QEMU turns into the sense data of a disk that
// cannot read a sector (medium error). Any other errno would be an aborted
// command, which the guest's kernel tries again five times.
const errnoMedium = 61

// InjectReadError makes reads of any of the sectors fail, from now on, with a
// medium error.
func (d *GuestDisk) InjectReadError(s Sectors) error { return d.addFault(fault{"read", s}) }

// InjectWriteError makes writes to any of the sectors fail in the same way.
func (d *GuestDisk) InjectWriteError(s Sectors) error { return d.addFault(fault{"write", s}) }

// InjectFlushError makes flushes fail.
func (d *GuestDisk) InjectFlushError() error { return d.addFault(fault{"flush", Sectors{}}) }

// ClearErrors ends all injected errors.
func (d *GuestDisk) ClearErrors() error {
	d.faults = nil

	return d.setFaults()
}

func (d *GuestDisk) addFault(f fault) error {
	count := f.sectors.Count
	for _, other := range d.faults {
		count += other.sectors.Count
	}

	if count > faultSectorsMax {
		return fmt.Errorf("lab: %d sectors with errors on disk %s, at most %d", count, d.d.Serial, faultSectorsMax)
	}

	d.faults = append(d.faults, f)

	return d.setFaults()
}

// setFaults puts a node that makes the faults below the disk's topmost one, in
// the place of the one before. They come and go with the disk.
func (d *GuestDisk) setFaults() error {
	if d.node == "" {
		return nil
	}

	m, old, below := d.g.m, d.filter, d.bottom(d.node)
	d.filter = ""

	if len(d.faults) > 0 {
		d.g.names++
		d.filter = fmt.Sprintf("%s-faults%d", d.node, d.g.names)

		node := args{
			"driver": "blkdebug", "node-name": d.filter, "image": below, "inject-error": rules(d.faults),
		}
		if err := m.Execute("blockdev-add", node, nil); err != nil {
			return err
		}

		below = d.filter
	}

	if err := m.Execute("blockdev-reopen", args{"options": []args{d.top(d.node, below)}}, nil); err != nil {
		return err
	}

	if old == "" {
		return nil
	}

	return m.Execute("blockdev-del", args{"node-name": old}, nil)
}

// rules are the faults in QEMU's terms, which have no range.
func rules(faults []fault) []args {
	var all []args

	for _, f := range faults {
		rule := func() args {
			all = append(all, args{"event": "none", "iotype": f.kind, "errno": errnoMedium, "once": false})

			return all[len(all)-1]
		}

		if f.sectors.Count == 0 {
			rule()
		}

		for i := range f.sectors.Count {
			rule()["sector"] = f.sectors.First + i
		}
	}

	return all
}

// Speed limits a disk. Zero is no limit.
type Speed struct {
	IOPS           int64 // requests a second: at 5, a lone one takes 200 ms
	BytesPerSecond int64
}

// Throttle makes the disk as slow as that, from now on. Its zero value makes it
// fast again, and lets go what was waiting.
func (d *GuestDisk) Throttle(s Speed) error {
	d.speed = s

	return d.setSpeed()
}

func (d *GuestDisk) setSpeed() error {
	if d.node == "" {
		return nil
	}

	return d.limit(d.speed)
}

// limit tells QEMU how fast a disk that is attached may be.
func (d *GuestDisk) limit(s Speed) error {
	return d.g.m.Execute("qom-set", args{
		"path": "/objects/" + d.node + "-speed", "property": "limits",
		"value": args{"iops-total": s.IOPS, "bps-total": s.BytesPerSecond},
	}, nil)
}
