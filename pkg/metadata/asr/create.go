package asr

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// Versions implements [metadata.Format].
func (Format) Versions() []string { return []string{version} }

// What a new array has.
const (
	usualChunk    raid.Sectors = 128
	mirrors                    = 2    // members of a RAID1
	mirrorGranule raid.Sectors = 128  // of its size
	stripesMax                 = 64   // members of a RAID0
	usualPriority              = 0x10 // of what the controller does in the background
	usualTid                   = 0x0202
	usualArrayTid              = 0x8200
)

// Create implements [metadata.Format].
func (Format) Create(p metadata.NewArray, devices []metadata.NewMember) (raid.UUID, [][]metadata.Write, error) {
	k, err := newArray(p, devices)
	if err != nil {
		return raid.UUID{}, nil, fmt.Errorf("asr: %w", err)
	}

	stages := k.Record(p.State(len(k.members), func(i int) bool { return k.members[i] != nil }))

	return uuidOf("array", order.Uint32(k.array[offMagic:])), stages, nil
}

// check verifies what no device is needed to judge.
func check(p metadata.NewArray, devices []metadata.NewMember) error {
	if err := checkLevel(p); err != nil {
		return err
	}

	switch {
	case p.Version != version:
		return fmt.Errorf("no metadata version %q", p.Version)
	case len(devices) < p.Disks:
		return fmt.Errorf("%d devices for %d slots", len(devices), p.Disks)
	case len(devices) > p.Disks && !p.Level.HasRedundancy():
		return fmt.Errorf("%v has no use for a spare", p.Level)
	case p.Bitmap == metadata.BitmapInternal || p.PPL:
		return errors.New("the format has neither bitmaps nor partial parity logs")
	case p.Name == "" || len(p.Name) > nameSize || strings.ContainsAny(p.Name, " /\x00"):
		return fmt.Errorf("name %q: 1 to %d bytes, no space, slash or zero", p.Name, nameSize)
	}

	return checkSizes(p, devices)
}

// checkLevel verifies the level and the number of members.
func checkLevel(p metadata.NewArray) error {
	switch {
	case p.Level != raid.Level0 && p.Level != raid.Level1:
		return fmt.Errorf("%v: raid0 and raid1 are the levels whose layout is known", p.Level)
	case p.Layout != 0 && !p.UsualLayout:
		return fmt.Errorf("%v has no layouts", p.Level)
	case p.Level == raid.Level1 && p.Disks != mirrors:
		return fmt.Errorf("raid1 of %d members: controllers have such of %d", p.Disks, mirrors)
	case p.Level == raid.Level0 && (p.Disks < 2 || p.Disks > stripesMax):
		return fmt.Errorf("raid0 of %d members: 2 to %d", p.Disks, stripesMax)
	default:
		return nil
	}
}

// checkSizes verifies the chunk and the size, and what is asked of devices.
func checkSizes(p metadata.NewArray, devices []metadata.NewMember) error {
	const stripeMax = 1<<16 - 1

	switch {
	case p.Size < 0:
		return fmt.Errorf("size of %d sectors", p.Size)
	case p.Level == raid.Level1 && p.Chunk != 0:
		return errors.New("raid1 has no chunks")
	case p.Level == raid.Level0 && (p.Chunk < 1 || bits.OnesCount64(uint64(p.Chunk)) != 1 ||
		p.Chunk > stripeMax/raid.Sectors(p.Disks)):
		return fmt.Errorf("chunk of %d sectors: a power of two, and those of %d members at most %d together",
			p.Chunk, p.Disks, stripeMax)
	}

	for i, d := range devices {
		switch {
		case d.ReaderAt != nil && (d.WriteMostly || d.FailFast):
			return fmt.Errorf("device %d: the format has no write-mostly or fail-fast members", i)
		case d.ReaderAt == nil && (i >= p.Disks || !p.Level.HasRedundancy()):
			return fmt.Errorf("device %d is missing", i)
		}
	}

	return nil
}

// newArray returns the keeper of a new array, which has yet to write its first
// record.
func newArray(p metadata.NewArray, devices []metadata.NewMember) (*keeper, error) {
	if p.Chunk == 0 && p.Level.HasChunks() {
		p.Chunk = usualChunk
	}

	if err := check(p, devices); err != nil {
		return nil, err
	}

	p.Layout, p.Sizes = 0, nil

	k := &keeper{geometry: p.Geometry, holders: make([]*member, p.Disks), lines: make([]byte, p.Disks*lineSize)}
	room := raid.Sectors(1<<32 - 1)

	for i, d := range devices {
		var m *member

		if d.ReaderAt != nil {
			var err error
			if m, err = k.newMember(d.Source, d.Device); err != nil {
				return nil, fmt.Errorf("device %d: %w", i, err)
			}

			room = min(room, m.room)
		}

		k.members = append(k.members, m)
	}

	size, err := sizeOf(p, room)
	if err != nil {
		return nil, err
	}

	if p.Level.HasRedundancy() {
		k.geometry.Size = size
	}

	return k, k.newLines(p, size)
}

// sizeOf returns what the array uses of each member.
func sizeOf(p metadata.NewArray, room raid.Sectors) (raid.Sectors, error) {
	const arrayMax = 1<<32 - 1

	granule := mirrorGranule
	if p.Level == raid.Level0 {
		granule = p.Chunk
		room = min(room, arrayMax/raid.Sectors(p.Disks))
	}

	size := p.Size
	if size == 0 {
		size = room / granule * granule
	}

	switch {
	case size < 1 || size > room:
		return 0, fmt.Errorf("%d sectors of each member: there are %d, and an array has at most %d",
			max(size, granule), room, uint64(arrayMax))
	case p.Level == raid.Level0 && size%granule != 0:
		return 0, fmt.Errorf("%d sectors of each member are not whole chunks of %d", size, granule)
	}

	return size, nil
}

// newLines makes the lines of the array.
func (k *keeper) newLines(p metadata.NewArray, size raid.Sectors) error {
	name := fmt.Sprintf("%-*s", nameSize, p.Name)
	kind, capacity := byte(typeRAID1), size

	if p.Level == raid.Level0 {
		kind, capacity = typeRAID0, size*raid.Sectors(p.Disks)
	}

	magic := order.Uint32(p.Array[:])
	for magic == unsetMagic || magic == poolMagic {
		magic += 2
	}

	k.seq = 1
	k.array = make([]byte, lineSize)
	order.PutUint16(k.array[offSeq:], k.seq)
	order.PutUint16(k.array[offMembers:], uint16(p.Disks))
	order.PutUint32(k.array[offMagic:], magic)
	k.array[offLevel], k.array[offType] = levelLogical, kind
	order.PutUint32(k.array[offCapacity:], uint32(capacity))
	order.PutUint16(k.array[offStripe:], uint16(p.Chunk*raid.Sectors(p.Disks)))
	order.PutUint16(k.array[offLineTid:], usualArrayTid)
	copy(k.array[offName:], name)

	for slot := range p.Disks {
		line := k.lines[slot*lineSize:][:lineSize]
		line[offLevel], line[offType] = levelPhysical, kind
		order.PutUint16(line[offSeq:], k.seq)
		order.PutUint32(line[offID:], uint32(slot))
		order.PutUint32(line[offCapacity:], uint32(size))
		order.PutUint16(line[offStripe:], uint16(p.Chunk))
		order.PutUint16(line[offLineTid:], usualTid+2*uint16(slot))
		copy(line[offName:], name)

		if m := k.members[slot]; m != nil {
			order.PutUint32(line[offMagic:], m.drive)
			k.slots = append(k.slots, line)

			order.PutUint16(m.block[offStorageTid:], usualArrayTid&^0xff|order.Uint16(line[offLineTid:]))
			order.PutUint16(m.block[offTid:], order.Uint16(line[offLineTid:])+1)

			continue
		}

		drive, err := k.newDrive(magic)
		if err != nil {
			return err
		}

		order.PutUint32(line[offMagic:], drive)
		line[offState] = memberFailed
		k.slots = append(k.slots, line)
	}

	return nil
}
