package intent

import (
	"slices"

	"raid-assembler/pkg/raid"
)

// BadBlocksMax is how many entries a log of bad blocks holds at most: as many
// as fit on the page that md keeps them on.
const BadBlocksMax = 512

// badRunMax is how many sectors one entry of the log covers.
const badRunMax raid.Sectors = 512

// BadBlocks is the set of component sectors of one member that hold no valid
// data: they are neither read nor counted as a copy until they were written
// again. It is bounded as the log is that it will be kept in.
//
// Invariants:
//   - Ranges are not empty, ascend, and neither overlap nor touch.
//   - The entries that they take are at most capacity.
//
// It allocates nothing. It is not safe for concurrent use.
type BadBlocks struct {
	ranges   [BadBlocksMax]raid.Range
	count    int // of ranges
	entries  int // that the log needs for them
	capacity int
}

// NewBadBlocks returns an empty set that a log with room for capacity entries
// holds, BadBlocksMax at most.
func NewBadBlocks(capacity int) *BadBlocks {
	return &BadBlocks{capacity: min(capacity, BadBlocksMax)}
}

// entriesOf returns how many entries of the log a range takes.
func entriesOf(r raid.Range) int { return int((r.To - r.From + badRunMax - 1) / badRunMax) }

// Ranges returns what is bad, ascending. It is valid until the next change.
func (b *BadBlocks) Ranges() []raid.Range { return b.ranges[:b.count] }

// Empty reports whether nothing is bad.
func (b *BadBlocks) Empty() bool { return b.count == 0 }

// after returns the index of the first range that ends after sector s.
func (b *BadBlocks) after(s raid.Sectors) int {
	i, _ := slices.BinarySearchFunc(b.ranges[:b.count], s, func(r raid.Range, s raid.Sectors) int {
		if r.To <= s {
			return -1
		}

		return 1
	})

	return i
}

// Has reports whether a sector of [from, to) is bad.
func (b *BadBlocks) Has(from, to raid.Sectors) bool {
	_, ok := b.First(from, to)

	return ok
}

// First returns the first run of bad sectors in [from, to), or false if there
// is none.
func (b *BadBlocks) First(from, to raid.Sectors) (raid.Range, bool) {
	if b.count == 0 { // as nearly always, and asked for each member with each request
		return raid.Range{}, false
	}

	i := b.after(from)
	if from >= to || i == b.count || b.ranges[i].From >= to {
		return raid.Range{}, false
	}

	return raid.Range{From: max(from, b.ranges[i].From), To: min(to, b.ranges[i].To)}, true
}

// Add makes [from, to) bad. It returns false, and changes nothing, if the log
// has no room for that: the member must then be failed.
// Preconditions: 0 <= from.
func (b *BadBlocks) Add(from, to raid.Sectors) bool {
	if from >= to {
		return true
	}

	// Those from first to last overlap or touch it, and become one with it.
	first := b.after(from)
	if first > 0 && b.ranges[first-1].To == from {
		first--
	}

	last, merged, freed := first, raid.Range{From: from, To: to}, 0
	for last < b.count && b.ranges[last].From <= to {
		merged.From = min(merged.From, b.ranges[last].From)
		merged.To = max(merged.To, b.ranges[last].To)
		freed += entriesOf(b.ranges[last])
		last++
	}

	return b.splice(first, last, freed, merged, raid.Range{})
}

// Remove makes [from, to) good: it was written. It returns false, and changes
// nothing, if what would be left on both sides of it takes more entries than
// the log has: it then stays bad, which is safe.
func (b *BadBlocks) Remove(from, to raid.Sectors) bool {
	if !b.Has(from, to) {
		return true
	}

	first := b.after(from)
	last, freed := first, 0

	for last < b.count && b.ranges[last].From < to {
		freed += entriesOf(b.ranges[last])
		last++
	}

	return b.splice(first, last, freed,
		raid.Range{From: b.ranges[first].From, To: from}, raid.Range{From: to, To: b.ranges[last-1].To})
}

// Clear makes everything good.
func (b *BadBlocks) Clear() { b.count, b.entries = 0, 0 }

// splice puts those of x and y that are not empty in place of the ranges
// [first, last), which take freed entries.
func (b *BadBlocks) splice(first, last, freed int, x, y raid.Range) bool {
	var put [2]raid.Range

	n, needed := 0, 0

	for _, r := range [...]raid.Range{x, y} {
		if r.From < r.To {
			put[n] = r
			n++
			needed += entriesOf(r)
		}
	}

	if b.entries-freed+needed > b.capacity {
		return false
	}

	// Every range takes an entry at least, so that they fit as well.
	copy(b.ranges[first+n:], b.ranges[last:b.count])
	copy(b.ranges[first:], put[:n])
	b.count += n - (last - first)
	b.entries += needed - freed

	return true
}
