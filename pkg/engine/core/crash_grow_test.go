package core

import (
	"slices"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/raid"
)

// growth is how an array that uses more of its members than at first came to do so.
type growth struct {
	before  raid.Geometry
	small   *geometry.Map // of before
	from    raid.Sectors  // of each member, by the superblocks
	to      raid.Sectors  // 0 if it has not grown
	durable bool          // a record that says so is
	seen    bool          // by a later life
}

// mayGrow decides whether an array that is about to be started is to grow, and has
// its drives be larger than they were, now and then, if their superblocks are found
// there as well.
func (w *world) mayGrow(best found, setup engine.Setup) bool {
	if !w.happens() || w.stopped || w.growth.to > 0 || !w.geo.Level.HasRedundancy() || w.rng.IntN(4) > 0 || setup.HasSuccessor {
		return false
	}

	if slices.ContainsFunc(setup.Members, func(m engine.Member) bool { return m.State != raid.InSync }) {
		return false
	}

	// The copies of far layouts would have to move.
	if layout := w.geo.Layout; w.geo.Level == raid.Level10 && layout>>8&0xff > 1 && layout>>16&1 == 0 {
		return false
	}

	if best.Format != "1.0" && w.rng.IntN(2) == 0 {
		for _, d := range w.drives {
			d.size += 48
		}
	}

	return true
}

// grow has an array that is about to be started use all that its members have. What
// is new may hold anything, and nothing there is redundant.
func (w *world) grow(cfg *Config, use []found) {
	best := use[0]

	size, err := cfg.Keeper.Grow(0)
	if err != nil {
		w.wrong("%v", err)
	}

	w.saw("grow")
	w.say("grows from %d to %d sectors of each member", best.Size, size)
	w.growth = growth{before: w.geo, small: w.g, from: best.Size, to: size}
	w.geo.Size = size

	if w.g, err = geometry.New(w.geo); err != nil {
		w.wrong("%v", err)
	}

	cfg.Geometry = w.g
	cfg.Setup.Resynced = min(cfg.Setup.Resynced, w.growth.small.SyncSectors())
	cfg.Setup.Size = w.used(size)

	for raid.Sectors(len(w.cells)) < w.g.ArraySectors() {
		w.cells = append(w.cells, cell{versions: []uint64{anything}, exact: true})
	}

	for _, f := range use {
		for s := best.Size; s < size; s++ {
			f.write(f.DataOffset+s, content(1+w.rng.Uint64N(3), s)[:], true)
		}
	}
}

// used returns how much of each member is, of a size by the superblocks.
func (w *world) used(size raid.Sectors) raid.Sectors {
	if w.geo.Level.HasParity() || w.geo.Level == raid.Level10 {
		size -= size % w.geo.Chunk
	}

	return size
}

// resize takes the size that an array is found to have after it grew: that which it
// was to have, or the one before if nobody was told otherwise.
func (w *world) resize(best found) {
	switch g := &w.growth; {
	case g.to == 0:
	case best.Size == g.to:
		if !g.seen {
			w.saw("grown")
		}

		g.seen = true
	case best.Size != g.from:
		w.wrong("%d sectors of each member, of an array that grew from %d to %d", best.Size, g.from, g.to)
	case g.durable:
		w.wrong("%d sectors of each member, and it was recorded that it grew to %d", g.from, g.to)
	default:
		w.saw("not-grown")
		w.say("is as large as before it grew")

		small := g.small.ArraySectors()
		for s, c := range w.cells[small:] {
			if c.acked > 0 {
				w.wrong("sector %d was written, and is beyond the end: %v", int(small)+s, w.m)
			}
		}

		w.geo, w.g, w.cells, w.growth = g.before, g.small, w.cells[:small], growth{}
	}
}
