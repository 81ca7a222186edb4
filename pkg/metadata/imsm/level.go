package imsm

import (
	"fmt"

	"raid-assembler/pkg/raid"
)

// nearTwo is the layout of all that is mirrored and striped.
const nearTwo raid.Layout = 0x102

// levelUnknown is the level of volumes whose level nobody knows here.
const levelUnknown raid.Level = 1000

// shape returns the geometry that a map says, but for its size, or why it cannot
// be told. Level 1 stands for RAID10 where there are more than two members.
func (m *Map) shape() (raid.Geometry, error) {
	g := raid.Geometry{Level: levelUnknown + raid.Level(m.Level), Disks: int(m.Members)}

	level := raid.Level(m.Level)
	if level == raid.Level1 && m.Members > 2 {
		level = raid.Level10
	}

	switch {
	case level == raid.Level1 && m.Members == 2:
		g.Level = level

		return g, nil
	case m.Strip == 0:
		return g, fmt.Errorf("strips of %d sectors", m.Strip)
	case level == raid.Level0:
	case level == raid.Level5 && m.Members > 2:
		g.Layout = raid.LeftAsymmetric
	case level == raid.Level10 && m.Members%2 == 0 && m.Members > 2:
		g.Layout = nearTwo
	default:
		return g, fmt.Errorf("level %d with %d members", m.Level, m.Members)
	}

	g.Level, g.Chunk = level, raid.Sectors(m.Strip)

	return g, nil
}

// mirrored reports whether a level keeps two copies of all.
func mirrored(level raid.Level) bool { return level == raid.Level1 || level == raid.Level10 }

// dataDisks returns how many members hold as much as an array does.
func dataDisks(g raid.Geometry) int {
	switch {
	case mirrored(g.Level):
		return g.Disks / 2
	case g.Level == raid.Level5:
		return g.Disks - 1
	default:
		return g.Disks
	}
}

// component returns how much of each member a volume uses. Where the number of
// stripes and the size of the volume are far apart, it was made larger and the
// former left as it was.
func (v *Volume) component(g raid.Geometry) raid.Sectors {
	m := &v.Maps[0]
	data := uint64(dataDisks(g))

	size := m.Stripes * uint64(m.Strip)
	if mirrored(g.Level) {
		size *= 2
	}

	if all := size * data; max(all, v.Size)-min(all, v.Size) > uint64(regionSectors)*data {
		size = v.Size / data
	}

	if g.Chunk > 0 {
		size -= size % uint64(g.Chunk)
	}

	return raid.Sectors(size)
}

// size returns how much of each member a volume uses, such that the array has
// the size that the metadata says. Returns what is there, and an error, if
// there is no such.
func (v *Volume) size(g raid.Geometry) (raid.Sectors, error) {
	size, data := v.component(g), raid.Sectors(dataDisks(g))

	want := raid.Sectors(v.Size) / data
	if want > 0 && want <= size && want*data == raid.Sectors(v.Size) && want%max(g.Chunk, 1) == 0 {
		return want, nil
	}

	return size, fmt.Errorf("an array of %d sectors on members that use %d each", v.Size, size)
}

// pace is how many sectors of a member one unit of a checkpoint stands for: as
// mdadm counts, and as FreeBSD and maybe others do.
type pace struct{ mdadm, least uint64 }

func newPace(mdadm uint64, m *Map) pace {
	return pace{mdadm, min(mdadm, uint64(m.Strip)*uint64(max(m.Domains, 1)))}
}

// units returns the number of units that are done for sure.
func (p pace) units(done raid.Sectors) uint64 { return uint64(done) / p.mdadm }

// done returns what is done for sure by so many units.
func (p pace) done(units uint64, size raid.Sectors) raid.Sectors {
	if p.least == 0 || units > uint64(size)/p.least {
		return 0 // nobody knows what was meant
	}

	return raid.Sectors(units * p.least)
}

// usualStrip is what mdadm counts in where strips do not matter.
const usualStrip = 256

// rebuildPace is the pace of a rebuild.
func (m *Map) rebuildPace(level raid.Level) pace {
	switch {
	case mirrored(level):
		return newPace(usualStrip*uint64(max(m.Domains, 1)), m)
	case level == raid.Level5:
		return newPace(max(usualStrip/2, uint64(m.Strip)), m)
	default:
		return newPace(usualStrip, m)
	}
}

// resyncPace is the pace of an initialisation or a repair: one unit is a stripe
// of data, and what mdadm makes of it on a member counts all members.
func (m *Map) resyncPace(level raid.Level) pace {
	strip, copies := uint64(max(m.Strip, 1)), uint64(max(m.Domains, 1))

	switch {
	case level == raid.Level1:
		strips, rest := usualStrip/strip, usualStrip%strip // of a unit

		return newPace(max(strips*strip*copies+rest, 1), m)
	case mirrored(level):
		return newPace(strip*copies, m)
	default:
		return newPace(strip*uint64(m.Members), m)
	}
}
