package asr

import (
	"bytes"
	"errors"
	"fmt"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// keeper keeps the lines of one array.
//
// Invariants:
//   - slots has a line for every slot, of a disk that has failed if there is none.
//   - No member has a table with a higher count.
type keeper struct {
	geometry raid.Geometry
	array    []byte   // its line
	lines    []byte   // of its members, in the order in which they lie on disk
	slots    [][]byte // of lines, by slot
	seq      uint16
	count    uint32
	size     uint32    // of which the lines were last written
	members  []*member // by MemberID; nil once forgotten

	// Reused by every Record, which may run while memory is short.
	holders []*member // by slot
	writes  []metadata.Write
	blocks  []metadata.Write
	stages  [2][]metadata.Write
}

// member is an attached device.
type member struct {
	drive uint32
	at    raid.Sectors // of the table
	room  raid.Sectors // in front of the metadata

	image []byte // the table
	lines int    // that it had when it was last written
	// block is the reserved block while that is to be written too, and its place.
	block   []byte
	blockAt raid.Sectors

	// What the table has of others, in front of our lines and behind them, and the
	// two lines of a spare.
	before, after, pair []byte
	spare               bool
}

// countMax leaves room to count up from, whatever a disk says.
const countMax = 1 << 31

var errForeign = errors.New("the superblock is of no array of the format")

// Keep implements [metadata.Format]. Disks of this format have no array in common
// with others: there is never anything to share.
func (Format) Keep(members []metadata.Attachment, _ ...metadata.Keeper) (metadata.Keeper, error) {
	if len(members) == 0 {
		return nil, errors.New("asr: no members to keep")
	}

	k, err := newKeeper(members)
	if err != nil {
		return nil, fmt.Errorf("asr: %w", err)
	}

	return k, nil
}

func newKeeper(members []metadata.Attachment) (*keeper, error) {
	first := members[0].Superblock

	r, ok := first.Raw.(*Raw)
	if !ok || r.group.at < 0 {
		return nil, errForeign
	}

	k := &keeper{geometry: first.Geometry, seq: r.seq(), size: uint32(first.Size)}
	k.array = bytes.Clone(lineOf(r.table, r.group.at))
	k.lines = make([]byte, k.geometry.Disks*lineSize)
	copy(k.lines, r.table[headSize+(r.group.at+1)*lineSize:headSize+r.group.end*lineSize])
	k.holders = make([]*member, k.geometry.Disks)

	for _, i := range r.group.members {
		k.slots = append(k.slots, k.lines[(i-r.group.at-1)*lineSize:][:lineSize])
	}

	for i, a := range members {
		if _, err := k.attach(a); err != nil {
			return nil, fmt.Errorf("member %d: %w", i, err)
		}
	}

	for slot := len(k.slots); slot < k.geometry.Disks; slot++ {
		if err := k.vacate(slot); err != nil {
			return nil, err
		}
	}

	return k, nil
}

// vacate makes a line for a slot that has none, behind all others.
func (k *keeper) vacate(slot int) error {
	line := k.lines[slot*lineSize:][:lineSize]

	drive, err := k.newDrive(order.Uint32(k.array[offMagic:]))
	if err != nil {
		return err
	}

	if slot > 0 {
		before := k.slots[slot-1]
		copy(line, before)
		order.PutUint32(line[offID:], order.Uint32(before[offID:])+1)

		if order.Uint32(line[offID:]) == 0 {
			return errors.New("no place behind that of the last member")
		}
	}

	order.PutUint32(line[offMagic:], drive)
	line[offState] = memberFailed
	k.slots = append(k.slots, line)

	return nil
}

// newDrive returns a magic number for a disk that nobody knows yet, at or behind
// one.
func (k *keeper) newDrive(drive uint32) (uint32, error) {
	for range numbers {
		if drive != unsetMagic && drive != poolMagic && !k.knows(drive, nil) {
			return drive, nil
		}

		drive++
	}

	return 0, fmt.Errorf("all of %d numbers are taken", numbers)
}

// knows reports whether a disk other than m would be taken for the one given.
func (k *keeper) knows(drive uint32, m *member) bool {
	for _, line := range k.slots {
		magic := order.Uint32(line[offMagic:])
		if number(magic) == number(drive) && (m == nil || magic != m.drive) {
			return true
		}
	}

	for _, other := range k.members {
		if other != nil && other != m && number(other.drive) == number(drive) {
			return true
		}
	}

	return false
}

// attach attaches a device.
func (k *keeper) attach(a metadata.Attachment) (metadata.MemberID, error) {
	r, ok := a.Superblock.Raw.(*Raw)

	switch {
	case !ok:
		return 0, errForeign
	case a.Superblock.Unsupported != "":
		return 0, errors.New(a.Superblock.Unsupported)
	case r.group.at >= 0 && r.Lines[r.group.at].Magic != hex(order.Uint32(k.array[offMagic:])):
		return 0, fmt.Errorf("a disk of array %#x among those of %#x",
			uint32(r.Lines[r.group.at].Magic), order.Uint32(k.array[offMagic:]))
	}

	m := &member{
		drive: uint32(r.Reserved.DriveMagic), at: raid.Sectors(r.Reserved.Table), room: r.room(),
		image: bytes.Clone(r.table), lines: int(r.Table.Count), spare: r.group.spare,
	}
	k.divide(m, r)

	if k.knows(m.drive, m) {
		// What a spare is called is of no account: it gets another name.
		if !m.spare {
			return 0, fmt.Errorf("the number of disk %#x cannot be told from that of another", m.drive)
		}

		var err error
		if m, err = k.newMember(a.Source, raid.UUID{3: byte(m.drive + 1)}); err != nil {
			return 0, err
		}
	}

	if events := a.Superblock.Events; r.group.at >= 0 {
		if events > countMax {
			return 0, fmt.Errorf("an event count of %d leaves no room above it", events)
		}

		k.count = max(k.count, uint32(events))
	}

	if len(m.before)+len(m.after) > (int(r.Table.Max)-4-k.geometry.Disks)*lineSize {
		return 0, fmt.Errorf("a table of %d lines has no room for more", r.Table.Count)
	}

	k.members = append(k.members, m)

	return metadata.MemberID(len(k.members) - 1), nil
}

// divide takes what a table has of others from it.
func (k *keeper) divide(m *member, r *Raw) {
	ours := func(i int) bool { return r.group.at >= 0 && i >= r.group.at && i < r.group.end }

	// A pool of spares is a line of its own, in front of those of its disks.
	pool := func(i int) bool {
		return r.group.spare && (i == r.group.own || i == r.group.own-1 && r.Lines[i].Type == typeSpare)
	}

	for i := range r.Lines {
		line := lineOf(r.table, i)

		switch {
		case ours(i):
		case pool(i):
			m.pair = append(m.pair, line...)
		case r.group.at >= 0 && i < r.group.at:
			m.before = append(m.before, line...)
		default:
			m.after = append(m.after, line...)
		}
	}

	if len(m.pair) != 2*lineSize {
		m.pair = newPair(m)
	}
}

// newPair returns the lines of a spare: those of a pool with one disk.
func newPair(m *member) []byte {
	pair := make([]byte, 2*lineSize)
	pool, own := pair[:lineSize], pair[lineSize:]

	order.PutUint16(pool[offMembers:], 1)
	order.PutUint32(pool[offMagic:], poolMagic)
	pool[offLevel] = levelLogical
	order.PutUint32(own[offMagic:], m.drive)
	own[offLevel] = levelPhysical

	for _, line := range [][]byte{pool, own} {
		line[offType] = typeSpare
		order.PutUint32(line[offCapacity:], uint32(m.room))
	}

	return pair
}

// Attach implements [metadata.Keeper].
func (k *keeper) Attach(a metadata.Attachment) (metadata.MemberID, error) {
	id, err := k.attach(a)
	if err != nil {
		return 0, fmt.Errorf("asr: %w", err)
	}

	return id, nil
}

// Add implements [metadata.Keeper].
func (k *keeper) Add(
	src metadata.Source, device raid.UUID,
) (id metadata.MemberID, offset, size raid.Sectors, err error) {
	if !k.geometry.Level.HasRedundancy() {
		return 0, 0, 0, fmt.Errorf("asr: %v has no use for a spare", k.geometry.Level)
	}

	m, err := k.newMember(src, device)

	switch {
	case err != nil:
		return 0, 0, 0, fmt.Errorf("asr: %w", err)
	case m.room < k.geometry.Size:
		return 0, 0, 0, fmt.Errorf("asr: %d sectors are too few: the array uses %d of each member, there are %d",
			src.Size, k.geometry.Size, m.room)
	}

	k.members = append(k.members, m)

	return metadata.MemberID(len(k.members) - 1), 0, m.room, nil
}

// newMember returns a disk that was none of the format.
func (k *keeper) newMember(src metadata.Source, device raid.UUID) (*member, error) {
	at := src.Size - 1 - tableSectors

	switch {
	case src.Block > raid.SectorSize:
		return nil, fmt.Errorf("the format counts in blocks of %d bytes, and the device has blocks of %d",
			raid.SectorSize, src.Block)
	case at < 1 || at > 1<<32-1:
		return nil, fmt.Errorf("%d sectors: the format has room for %d, and takes %d",
			src.Size, uint64(1)<<32, 1+tableSectors)
	}

	// A disk of the format is to be what it was until its reserved block says
	// otherwise: its table has to stay meanwhile, if there is room for another.
	old, err := load(src)

	switch {
	case err == nil && raid.Sectors(old.Reserved.Table) > at-tableSectors && at-tableSectors >= max(k.geometry.Size, 1):
		at -= tableSectors
	case err != nil && !errors.Is(err, metadata.ErrNotFound) && !errors.Is(err, metadata.ErrCorrupt):
		return nil, err
	}

	drive, err := k.newDrive(order.Uint32(device[:]))
	if err != nil {
		return nil, err
	}

	m := &member{
		drive: drive, at: at, room: at, spare: true, lines: linesMax,
		image: make([]byte, tableSectors*raid.SectorSize), block: make([]byte, raid.SectorSize), blockAt: src.Size - 1,
	}
	m.pair = newPair(m)

	order.PutUint32(m.image, magicTable)
	order.PutUint32(m.image[offTableVersion:], tableVersion)
	order.PutUint16(m.image[offMax:], linesMax)
	order.PutUint16(m.image[offLineSize:], lineSize)
	m.image[offPriority] = usualPriority

	order.PutUint32(m.block, magicBlock)
	m.block[offVersion] = blockVersion
	order.PutUint32(m.block[offDrive:], drive)
	order.PutUint32(m.block[offSoftware:], magicSoftware)
	order.PutUint32(m.block[offTable:], uint32(at))

	return m, nil
}

// Forget implements [metadata.Keeper].
func (k *keeper) Forget(id metadata.MemberID) { k.members[id] = nil }

// Grow implements [metadata.Keeper].
func (k *keeper) Grow(size raid.Sectors) (raid.Sectors, error) {
	if !k.geometry.Level.HasRedundancy() {
		return 0, fmt.Errorf("asr: %v does not grow", k.geometry.Level)
	}

	room := raid.Sectors(1<<32 - 1)

	for _, m := range k.members {
		if m != nil {
			room = min(room, m.room)
		}
	}

	if size == 0 {
		size = room
	}

	if size > room || size <= k.geometry.Size {
		return 0, fmt.Errorf("asr: %d sectors of each member, which uses %d and has room for %d",
			size, k.geometry.Size, room)
	}

	k.geometry.Size = size
	order.PutUint32(k.array[offCapacity:], uint32(size))

	for _, line := range k.slots {
		order.PutUint32(line[offCapacity:], uint32(size))
	}

	return size, nil
}

// Events implements [metadata.Keeper].
func (k *keeper) Events() uint64 { return uint64(k.count) }

// BadBlockRoom implements [metadata.Keeper]: the format has no list of them.
func (k *keeper) BadBlockRoom(metadata.MemberID) int { return 0 }

// Log implements [metadata.Keeper].
func (k *keeper) Log(metadata.MemberID) *metadata.PPL { return nil }

// Bitmap implements [metadata.Keeper].
func (k *keeper) Bitmap() metadata.Bitmap { return nil }
