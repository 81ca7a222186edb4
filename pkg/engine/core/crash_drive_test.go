package core

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// block is the content of a sector. It is never changed, only replaced.
type block [raid.SectorSize]byte

// cached is what a drive has completed and would lose.
type cached struct {
	seq     int
	content *block
}

// drive is a disk in memory with a volatile cache: what was written and not
// flushed is lost in a power cut, any subset of it, sector by sector.
type drive struct {
	name  int
	size  raid.Sectors
	media map[raid.Sectors]*block
	cache map[raid.Sectors][]cached // oldest first
	seq   int                       // of the newest in the cache
	bad   map[raid.Sectors]bool     // cannot be read, until they are written
	worn  map[raid.Sectors]bool     // can be neither read nor written
	dead  bool
}

func newDrive(name int, size raid.Sectors) *drive {
	return &drive{
		name: name, size: size, media: make(map[raid.Sectors]*block), cache: make(map[raid.Sectors][]cached),
		bad: make(map[raid.Sectors]bool), worn: make(map[raid.Sectors]bool),
	}
}

// read returns the content of a sector, as the drive answers it.
func (d *drive) read(s raid.Sectors) *block {
	if c := d.cache[s]; len(c) > 0 {
		return c[len(c)-1].content
	}

	if b := d.media[s]; b != nil {
		return b
	}

	return &block{}
}

// readable reports whether n sectors can be read.
func (d *drive) readable(at, n raid.Sectors) bool { return !touches(d.bad, at, n) && d.writable(at, n) }

// writable reports whether n sectors can be written.
func (d *drive) writable(at, n raid.Sectors) bool { return !touches(d.worn, at, n) }

func touches(set map[raid.Sectors]bool, at, n raid.Sectors) bool {
	for s := range set {
		if s >= at && s < at+n {
			return true
		}
	}

	return false
}

// sound reports whether all of a drive can be read and written.
func (d *drive) sound() bool { return len(d.bad)+len(d.worn) == 0 }

// repair makes it so.
func (d *drive) repair() {
	clear(d.bad)
	clear(d.worn)
}

// write completes a write, through the cache if it is to be durable.
func (d *drive) write(at raid.Sectors, data []byte, durable bool) {
	d.seq++

	for ; len(data) > 0; at, data = at+1, data[raid.SectorSize:] {
		content := block(data[:raid.SectorSize])
		delete(d.bad, at)

		if durable {
			d.media[at] = &content
			delete(d.cache, at)
		} else {
			d.cache[at] = append(d.cache[at], cached{d.seq, &content})
		}
	}
}

// flush makes durable what was complete at seq.
func (d *drive) flush(seq int) {
	for s, c := range d.cache {
		for len(c) > 0 && c[0].seq <= seq {
			d.media[s], c = c[0].content, c[1:]
		}

		if d.cache[s] = c; len(c) == 0 {
			delete(d.cache, s)
		}
	}
}

// cut takes the power. Of each sector one of the contents survives that the
// drive had seen and not made durable, or none of them; keep of 100 times it is
// the newest.
func (d *drive) cut(rng *rand.Rand, keep int) {
	for _, s := range slices.Sorted(maps.Keys(d.cache)) {
		c := d.cache[s]

		if n := rng.IntN(len(c) + 1); rng.IntN(100) < keep {
			d.media[s] = c[len(c)-1].content
		} else if n < len(c) && keep > 0 {
			d.media[s] = c[n].content
		}
	}

	clear(d.cache)
}

func (d *drive) source() metadata.Source {
	return metadata.Source{ReaderAt: d, Size: d.size, Block: raid.SectorSize}
}

var errDead = errors.New("the drive is dead")

// ReadAt implements io.ReaderAt.
func (d *drive) ReadAt(p []byte, off int64) (int, error) {
	if d.dead {
		return 0, errDead
	}

	for n := 0; n < len(p); {
		at := off + int64(n)
		n += copy(p[n:], d.read(raid.Sectors(at / raid.SectorSize))[at%raid.SectorSize:])
	}

	return len(p), nil
}
