package md1

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// An entry of the bad block log: 54 bits of the sector, from the start of the
// device, and 10 of the length. The log ends before the first entry of ones.
const (
	badEntrySize  = 8
	badEntryMax   = 512 // sectors
	badLengthBits = 10
	badSectorEnd  = 1 << (64 - badLengthBits)
	badEntryNone  = ^uint64(0)
)

// badLogMax is how many entries the largest log has.
const badLogMax = blockSize / badEntrySize

func badEntry(from, to raid.Sectors) uint64 { return uint64(from)<<badLengthBits | uint64(to-from) }

// badRange returns what an entry says, from the start of the device.
func badRange(entry uint64) raid.Range {
	from := raid.Sectors(entry >> badLengthBits)

	return raid.Range{From: from, To: from + raid.Sectors(entry&(1<<badLengthBits-1))}
}

// badPlace returns the sector of the bad block log of a member, and false if
// it has none that can be kept: none at all, one whose units nobody uses, or
// one that lies over something else.
func badPlace(raw *Raw, src metadata.Source) (raid.Sectors, bool) {
	at := raid.Sectors(raw.SuperOffset) + raid.Sectors(raw.BblogOffset)
	end := at + raid.Sectors(raw.BblogSize)
	block := int64(max(src.Block, raid.SectorSize))

	super := raid.Sectors(raw.SuperOffset)
	superEnd := super + raid.Sectors(written(int(raw.MaxDev), src.Block)/raid.SectorSize)
	first, last := raid.Sectors(raw.DataOffset), raid.Sectors(raw.DataOffset+raw.DataSize)

	switch {
	case raw.BblogOffset == 0 || raw.BblogSize == 0 || raw.BblogSize > blockSize/raid.SectorSize || raw.BblogShift != 0:
		return 0, false
	case at < 0 || end > src.Size || at.Bytes()%block != 0 || end.Bytes()%block != 0:
		return 0, false
	case at < superEnd && super < end, at < last && first < end:
		return 0, false
	default:
		return at, true
	}
}

// readBadLog returns the entries of the bad block log of a member that has
// FeatureBadBlocks. Preconditions: raw was checked.
func readBadLog(raw *Raw, src metadata.Source) ([]uint64, error) {
	at := raid.Sectors(raw.SuperOffset) + raid.Sectors(raw.BblogOffset)
	size := raid.Sectors(raw.BblogSize)

	if at < 0 || size > src.Size-at {
		return nil, fmt.Errorf("bad block log of %d sectors at %d, on %d: %w", size, at, src.Size, metadata.ErrCorrupt)
	}

	buf := make([]byte, size.Bytes())
	if n, err := src.ReadAt(buf, at.Bytes()); n < len(buf) {
		return nil, fmt.Errorf("read sector %d: %w", at, err)
	}

	var entries []uint64

	for ; len(buf) > 0; buf = buf[badEntrySize:] {
		entry := binary.LittleEndian.Uint64(buf)
		if entry == badEntryNone {
			break
		}

		if entry&(1<<badLengthBits-1) == 0 {
			return nil, fmt.Errorf("bad block log has an entry of no length: %w", metadata.ErrCorrupt)
		}

		entries = append(entries, entry)
	}

	return entries, nil
}

// badBlocks splits the entries of a log into those of the data, as sectors of
// the component, and those of what is no part of it, as they are.
func badBlocks(raw *Raw, entries []uint64) (inside []raid.Range, outside []uint64) {
	data := raid.Range{From: raid.Sectors(raw.DataOffset), To: raid.Sectors(raw.DataOffset + raw.DataSize)}

	for _, entry := range entries {
		r := badRange(entry)
		if from, to := r.From, min(r.To, data.From); from < to {
			outside = append(outside, badEntry(from, to))
		}

		if from, to := max(r.From, data.To), r.To; from < to {
			outside = append(outside, badEntry(from, to))
		}

		if from, to := max(r.From, data.From), min(r.To, data.To); from < to {
			inside = append(inside, raid.Range{From: from - data.From, To: to - data.From})
		}
	}

	return joined(inside), outside
}

// joined sorts ranges and makes one of those that overlap or touch.
func joined(ranges []raid.Range) []raid.Range {
	slices.SortFunc(ranges, func(a, b raid.Range) int { return cmp.Compare(a.From, b.From) })

	n := 0

	for _, r := range ranges {
		if n > 0 && r.From <= ranges[n-1].To {
			ranges[n-1].To = max(ranges[n-1].To, r.To)

			continue
		}

		ranges[n] = r
		n++
	}

	return ranges[:n]
}

// badLog is the bad block log of an attached device.
//
// Entries keep their places, so that a write of the log that is torn between
// its sectors loses none of them: new ones are appended, and those that went
// are overwritten with the last ones before these are cut off.
type badLog struct {
	at      raid.Sectors
	offset  raid.Sectors // of the data
	on      bool         // the member's superblock on disk says that there are entries
	outside []uint64     // entries that are not of the data; they stay
	count   int
	entries [badLogMax]uint64 // on disk, in their order, while it is on
	room    int
	images  [3][]byte // of the stages of a change
}

// newBadLog returns the log of a member, or nil if it has none.
func newBadLog(raw *Raw, src metadata.Source, entries []uint64) *badLog {
	at, ok := badPlace(raw, src)
	if !ok {
		return nil
	}

	l := &badLog{
		at: at, offset: raid.Sectors(raw.DataOffset),
		on: raw.FeatureMap&FeatureBadBlocks != 0, room: int(raw.BblogSize) * raid.SectorSize / badEntrySize,
	}

	_, l.outside = badBlocks(raw, entries)
	l.count = copy(l.entries[:], entries)

	for i := range l.images {
		l.images[i] = make([]byte, l.room*badEntrySize)
	}

	return l
}

// available returns how many entries there are for bad blocks of the data.
func (l *badLog) available() int {
	if l == nil {
		return 0
	}

	return max(l.room-len(l.outside), 0)
}

// has reports whether the first count entries have one.
func (l *badLog) has(count int, entry uint64) bool { return slices.Contains(l.entries[:count], entry) }

// set makes the log say ranges, and returns the images to be written one after
// the other, the last of which is what it says then.
// Preconditions: there is room.
func (l *badLog) set(ranges []raid.Range) [][]byte {
	var (
		wanted [badLogMax]uint64
		n      = copy(wanted[:], l.outside)
	)

	for _, r := range ranges {
		for from := r.From; from < r.To; from += badEntryMax {
			if n == l.room {
				panic(fmt.Sprintf("md1: bad blocks %v exceed a log of %d entries", ranges, l.room))
			}

			wanted[n] = badEntry(l.offset+from, l.offset+min(from+badEntryMax, r.To))
			n++
		}
	}

	// Nobody reads it before the superblock says that there are entries.
	if !l.on {
		l.on, l.count = n > 0, copy(l.entries[:], wanted[:n])
		if n == 0 {
			return nil
		}

		l.fill(0)

		return l.images[:1]
	}

	// That there are none is for the superblock to say, the entries stay.
	if l.on = n > 0; !l.on {
		return nil
	}

	return l.change(wanted[:n])
}

// change makes the entries those wanted.
func (l *badLog) change(wanted []uint64) [][]byte {
	stages, old := 0, l.count

	for _, entry := range wanted {
		if l.has(old, entry) {
			continue
		}

		// Without room for what was and what will be it is written at once.
		if l.count == l.room {
			l.count = copy(l.entries[:], wanted)
			l.fill(0)

			return l.images[:1]
		}

		l.entries[l.count] = entry
		l.count++
	}

	if l.count > old {
		l.fill(stages)
		stages++
	}

	if left := l.fillHoles(wanted); left < l.count {
		l.fill(stages)
		l.count = left
		l.fill(stages + 1)
		stages += 2
	}

	return l.images[:stages]
}

// fillHoles overwrites entries that are not wanted with wanted ones from the
// end, and returns how many entries are left then.
func (l *badLog) fillHoles(wanted []uint64) int {
	left := l.count
	for i := 0; i < left; i++ {
		if slices.Contains(wanted, l.entries[i]) {
			continue
		}

		for left--; left > i && !slices.Contains(wanted, l.entries[left]); left-- {
		}

		l.entries[i] = l.entries[left]
	}

	return left
}

// fill makes image i say the entries.
func (l *badLog) fill(i int) {
	for n := range l.room {
		entry := badEntryNone
		if n < l.count {
			entry = l.entries[n]
		}

		binary.LittleEndian.PutUint64(l.images[i][n*badEntrySize:], entry)
	}
}
