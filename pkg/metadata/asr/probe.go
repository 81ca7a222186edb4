package asr

import (
	"errors"
	"fmt"
	"slices"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// Probe implements [metadata.Format]. It reads the last block of a device, and
// the table if there is one.
func (Format) Probe(src metadata.Source) (*metadata.Superblock, error) {
	r, err := load(src)
	if err != nil {
		return nil, fmt.Errorf("asr: %w", err)
	}

	sb, err := r.superblock(src)
	if err != nil {
		return nil, fmt.Errorf("asr: %w: %w", err, metadata.ErrCorrupt)
	}

	return sb, nil
}

// blockOf returns the size of a block in sectors.
func blockOf(src metadata.Source) raid.Sectors {
	return raid.Sectors(max(src.Block, raid.SectorSize) / raid.SectorSize)
}

// read reads sectors, in whole blocks.
func read(src metadata.Source, from, count raid.Sectors) ([]byte, error) {
	block := blockOf(src)
	start := from / block * block
	end := min((from+count+block-1)/block*block, src.Size)
	data := make([]byte, (end - start).Bytes())

	if n, err := src.ReadAt(data, start.Bytes()); n < len(data) {
		return nil, fmt.Errorf("read sector %d: %w", start, err)
	}

	return data[(from - start).Bytes():][:count.Bytes()], nil
}

// load reads what is on src, and verifies its form.
func load(src metadata.Source) (*Raw, error) {
	if src.Size < 1 {
		return nil, metadata.ErrNotFound
	}

	block, err := read(src, src.Size-1, 1)
	if err != nil {
		return nil, err
	}

	r := &Raw{Reserved: decodeBlock(block), block: block}

	// What wipefs leaves has no longer both.
	if r.Reserved.Code != magicBlock || r.Reserved.SoftwareCode != magicSoftware {
		return nil, metadata.ErrNotFound
	}

	at := raid.Sectors(r.Reserved.Table)

	switch {
	case r.Reserved.Version != blockVersion:
		return nil, fmt.Errorf("reserved block of version %d, and %d is known: %w",
			r.Reserved.Version, blockVersion, metadata.ErrCorrupt)
	case at < 1 || at+tableSectors > src.Size-1:
		return nil, fmt.Errorf("table at sector %d of %d: %w", at, src.Size, metadata.ErrCorrupt)
	}

	if r.table, err = read(src, at, tableSectors); err != nil {
		return nil, err
	}

	if err := r.decode(); err != nil {
		return nil, fmt.Errorf("table at sector %d: %w: %w", at, err, metadata.ErrCorrupt)
	}

	return r, nil
}

// decode decodes the table and verifies all that does not take its meaning.
func (r *Raw) decode() error {
	r.Table = decodeTable(r.table)
	t := r.Table

	switch {
	case t.Code != magicTable:
		return fmt.Errorf("magic number %#x", uint32(t.Code))
	case t.LineSize != lineSize || t.Max > linesMax || t.Count > t.Max:
		return fmt.Errorf("%d lines of at most %d, of %d bytes", t.Count, t.Max, t.LineSize)
	case uint16(t.Sum) != sum(r.table):
		return fmt.Errorf("checksum %#x of the lines, and they have %#x", uint32(t.Sum), sum(r.table))
	case t.Open != openNo && t.Open != openYes:
		return fmt.Errorf("open state %d", t.Open)
	}

	var sound bool
	if r.Table.Stamp, sound = readStamp(r.table, uint32(r.Reserved.DriveMagic)); !sound {
		return errors.New("reserved bytes hold a count whose checksum is wrong")
	}

	for i := range int(t.Count) {
		l := decodeLine(lineOf(r.table, i))
		// Some controllers name the first line alone.
		if l.Name == "" && i > 0 {
			l.Name = r.Lines[0].Name
		}

		r.Lines = append(r.Lines, l)
	}

	return r.find()
}

// find finds the lines that this disk is concerned with.
func (r *Raw) find() error {
	own := r.lineOf(r.Reserved.DriveMagic)
	if own < 0 {
		return fmt.Errorf("no line of this disk, which is %#x", uint32(r.Reserved.DriveMagic))
	}

	if r.Lines[own].Type == typeSpare {
		return r.findSpare(own)
	}

	at := own
	for at >= 0 && r.Lines[at].member() {
		at--
	}

	if at < 0 {
		return fmt.Errorf("line %d is of no array", own)
	}

	r.group = r.groupAt(at)
	r.group.own = own

	return r.checkGroup()
}

// lineOf returns the last line of a disk.
func (r *Raw) lineOf(drive hex) int {
	for i := len(r.Lines) - 1; i >= 0; i-- {
		if r.Lines[i].member() && r.Lines[i].Magic == drive {
			return i
		}
	}

	return -1
}

// findSpare finds the array that a spare is for, if it is for one.
func (r *Raw) findSpare(own int) error {
	r.group = group{at: -1, own: own, spare: true}

	for i, l := range r.Lines {
		if l.Level == levelLogical && l.Type != typeSpare && l.Magic == r.Table.ArrayMagic {
			r.group = r.groupAt(i)
			r.group.own, r.group.spare = own, true

			return r.checkGroup()
		}
	}

	if r.Table.Stamp != nil {
		return fmt.Errorf("no line of array %#x", uint32(r.Table.ArrayMagic))
	}

	return nil
}

// groupAt returns the lines of the array whose own line is given.
func (r *Raw) groupAt(at int) group {
	g := group{at: at, end: at + 1}
	for ; g.end < len(r.Lines) && r.Lines[g.end].member(); g.end++ {
		g.members = append(g.members, g.end)
	}

	slices.SortStableFunc(g.members, func(a, b int) int {
		x, y := r.Lines[a].place(), r.Lines[b].place()
		if x < y {
			return -1
		}

		return min(int(x-y), 1)
	})

	return g
}

// checkGroup verifies the lines of the array.
func (r *Raw) checkGroup() error {
	array, seen := r.Lines[r.group.at], map[hex]bool{}

	if array.Members == 0 || len(r.group.members) > int(array.Members) || array.Magic == unsetMagic {
		return fmt.Errorf("array %#x of %d members has %d", uint32(array.Magic), array.Members, len(r.group.members))
	}

	for _, i := range r.group.members {
		l := r.Lines[i]
		if l.Magic == unsetMagic || l.Type == typeSpare || seen[l.Magic] {
			return fmt.Errorf("line %d, of disk %#x, has no place in the array", i, uint32(l.Magic))
		}

		seen[l.Magic] = true
	}

	return nil
}
