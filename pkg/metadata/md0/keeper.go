package md0

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// keeper keeps the superblocks of one array.
//
// A member that is in sync has its slot for a number, and numbers tell devices
// apart: who had a slot must be at least two event counts behind when another
// has it, or it would be taken for that one. A record that gives a slot from one
// device to another counts twice, first without saying anything else.
//
// A power cut can tear a superblock whose table changes, and not one whose first
// sector changes alone. One member that is torn is made up for by the others,
// where the array has redundancy left.
//
// A bitmap of md's is not kept. md does not believe one whose event count is
// below the array's, which this never lets it reach.
type keeper struct {
	like   *Raw // the freshest: what it says of the array, all say
	events uint64
	resync raid.Sectors // by the last record
	bitmap []byte       // the superblock of a bitmap, for members that have none; or nil

	members []*member                   // by MemberID; nil once forgotten
	holders [maxDisks]metadata.MemberID // of each slot, by the last record

	// Reused by every Record, which may run while memory is short.
	table  [maxDisks]Disk // by the last record
	before [maxDisks]Disk // by the one before it
	counts Raw            // of the devices in the table
	stages [][]metadata.Write
}

// What holders has where it is no attached device.
const (
	nobody   metadata.MemberID = -1
	stranger metadata.MemberID = -2 // one that is not attached
)

// The images of a superblock, which may be on their way to disk at once.
const (
	counted   = iota // of the last record, with the next event count
	announced        // by a member that got a slot, before the others say so
	final
	images
)

// member is an attached device.
type member struct {
	images [images][]byte // its superblock
	entry  Disk           // by the last record; without the flags of its state
	flags  uint32         // of its state that are the administrator's
	at     raid.Sectors
	room   raid.Sectors      // for its data
	first  []metadata.Write  // before its next superblock, once
	late   [2]metadata.Write // after first, once, one by one: its superblock as it should have been
	inSync bool              // by its own superblock
}

// eventsMax leaves room to count up from, whatever a disk says.
const eventsMax = 1 << 62

// Keep implements [metadata.Format].
func (Format) Keep(members []metadata.Attachment, _ ...metadata.Keeper) (metadata.Keeper, error) {
	if len(members) == 0 {
		return nil, errors.New("md0: no members to keep")
	}

	like, ok := members[0].Superblock.Raw.(*Raw)
	if !ok {
		return nil, errors.New("md0: the superblock is of another format")
	}

	own := *like // Grow changes it
	k := &keeper{like: &own, events: like.events(), resync: resyncOffset(like)}
	copy(k.table[:], like.Disks)
	k.counts.Header = like.Header

	raws := make([]*Raw, len(members))

	for i, a := range members {
		var err error
		if raws[i], err = k.attach(a, true); err != nil {
			return nil, fmt.Errorf("md0: member %d: %w", i, err)
		}
	}

	if k.events > eventsMax {
		return nil, fmt.Errorf("md0: event count %d leaves no room above it", k.events)
	}

	k.findHolders()
	k.catchUp(raws)

	return k, nil
}

// attach attaches a device by its superblock, which may be current.
func (k *keeper) attach(a metadata.Attachment, current bool) (*Raw, error) {
	raw, ok := a.Superblock.Raw.(*Raw)
	if !ok || raw.ArrayUUID != k.like.ArrayUUID {
		return nil, fmt.Errorf("superblock %s of array %v among those of 0.90 of %v",
			a.Superblock.Format, a.Superblock.Array, raid.UUID(k.like.ArrayUUID))
	}

	if why := a.Superblock.Unsupported; why != "" {
		return nil, errors.New(why)
	}

	m := newMember(raw, a.Source)
	m.entry = raw.ThisDisk
	m.flags = raw.Disks[raw.ThisDisk.Number].State & diskFlags
	m.inSync = current && k.confirms(raw)

	if err := k.room(m, k.like); err != nil {
		return nil, err
	}

	k.noteBitmap(raw, a.Source)
	k.members = append(k.members, m)

	return raw, nil
}

// newMember returns the device that a superblock is of, or is to be of.
func newMember(raw *Raw, src metadata.Source) *member {
	m := &member{}
	m.at, _ = place(src.Size)
	m.room = dataSize(raid.Level(raw.Level), m.at)

	for i := range m.images {
		m.images[i] = append([]byte(nil), raw.image...)
	}

	return m
}

// room verifies that m has room for its data, and that there is a number for it
// even if all that are not in sync have one beside the slots.
func (k *keeper) room(m *member, of *Raw) error {
	numbers := int(of.RaidDisks)

	for _, other := range append([]*member{m}, k.members...) {
		if other != nil && !other.inSync {
			numbers++
		}
	}

	switch need := component(of); {
	case numbers > maxDisks:
		return fmt.Errorf("the array has no number left: %d slots, and %d devices at most", of.RaidDisks, maxDisks)
	case raid.Level(of.Level).HasRedundancy() && m.room < need:
		return fmt.Errorf("%d sectors are too few: the array uses %d of each member", m.room, need)
	default:
		return nil
	}
}

// confirms reports whether a superblock gives its own device a slot, and the
// freshest does too.
func (k *keeper) confirms(raw *Raw) bool {
	number := raw.ThisDisk.Number
	own, ok := raw.Disks[number].role(raw.RaidDisks).Slot()
	slot, confirmed := k.like.Disks[number].role(k.like.RaidDisks).Slot()

	return ok && confirmed && own == slot && raw.events()+1 >= k.like.events()
}

// findHolders notes who has each slot.
func (k *keeper) findHolders() {
	for slot := range k.holders {
		k.holders[slot] = nobody

		if _, held := k.like.Disks[slot].role(k.like.RaidDisks).Slot(); held {
			k.holders[slot] = stranger
		}

		for i, m := range k.members {
			if m.inSync && m.entry.Number == uint32(slot) {
				k.holders[slot] = metadata.MemberID(i)
			}
		}
	}
}

// catchUp has members that are not where the freshest one is brought there
// before the first record. Power may have failed when some of them had been
// written; if it fails again in the midst of the first record, those that had
// not would be two records behind, which is how a member looks that was away
// while the array was written to.
func (k *keeper) catchUp(raws []*Raw) {
	for i, m := range k.members {
		number := raws[i].ThisDisk.Number
		entry := k.like.Disks[number]
		disks := k.like.RaidDisks

		// Only the next record says what a device is that does not know yet what
		// it was made.
		if entry.Number != number || entry.role(disks) != raws[i].Disks[number].role(disks) {
			continue
		}

		level := func(n int, events uint64) {
			image := append([]byte(nil), raws[i].image...)
			k.fill(image, entry, k.like.Disks, status{events, resyncOffset(k.like), timeOf(k.like.Utime)})
			putCounts(image, k.like)
			putSum(image)

			m.late[n] = metadata.Write{Member: metadata.MemberID(i), Sector: m.at, Data: image}
		}

		if raws[i].events() != k.like.events() {
			level(0, k.like.events())
		}

		if k.events != k.like.events() { // a bitmap is ahead
			level(1, k.events)
		}
	}
}

// Record implements [metadata.Keeper]. It does not allocate once every device
// was written.
func (k *keeper) Record(st metadata.State) [][]metadata.Write {
	k.stages = k.stages[:0]
	k.prepare(st)

	handover := k.handsOver(st)
	if handover {
		k.count(st)
	}

	k.round(st, handover)

	if last := len(k.stages) - 1; last >= 0 && len(k.stages[last]) == 0 {
		k.stages = k.stages[:last]
	}

	return k.stages
}

// stage begins another stage of writes.
func (k *keeper) stage() {
	last := len(k.stages) - 1

	switch {
	case last >= 0 && len(k.stages[last]) == 0: // which has none yet
	case last+1 < cap(k.stages):
		k.stages = k.stages[:last+2]
		k.stages[last+1] = k.stages[last+1][:0]
	default:
		k.stages = append(k.stages, nil)
	}
}

func (k *keeper) write(w metadata.Write) {
	last := len(k.stages) - 1
	k.stages[last] = append(k.stages[last], w)
}

// prepare has written what must be before the first superblock that is new.
func (k *keeper) prepare(st metadata.State) {
	k.stage()

	for i, m := range k.members {
		if k.working(st, metadata.MemberID(i)) {
			for _, w := range m.first {
				k.write(w)
			}

			m.first = nil
		}
	}

	for n := range len(member{}.late) {
		k.stage()

		for i, m := range k.members {
			if k.working(st, metadata.MemberID(i)) && m.late[n].Data != nil {
				k.write(m.late[n])
			}

			if m != nil {
				m.late[n] = metadata.Write{}
			}
		}
	}
}

// working reports whether the superblock of a device is to be written.
func (k *keeper) working(st metadata.State, id metadata.MemberID) bool {
	record, ok := st.Members[id]

	return ok && k.members[id] != nil && record.State != raid.Faulty
}

// hasSlot reports whether a device is in sync and alone in its slot. One that is
// to replace another is a spare until the other is gone.
func hasSlot(record metadata.MemberRecord) bool {
	return record.State == raid.InSync && !record.Replacement
}

// handsOver reports whether st gives a slot to a device while another had it by
// the last record.
func (k *keeper) handsOver(st metadata.State) bool {
	for id, record := range st.Members {
		if hasSlot(record) && k.holders[record.Slot] != id && k.holders[record.Slot] != nobody {
			return true
		}
	}

	return false
}

// status is what changes from record to record but for the devices.
type status struct {
	events uint64
	resync raid.Sectors
	now    time.Time
}

// count has every working member say what it does, with the next event count.
func (k *keeper) count(st metadata.State) {
	k.events++
	k.stage()

	for i, m := range k.members {
		if id := metadata.MemberID(i); k.working(st, id) && k.table[m.entry.Number] == m.entry {
			k.image(m, counted, status{k.events, k.resync, st.Now})
			k.write(metadata.Write{Member: id, Sector: m.at, Data: m.images[counted]})
		}
	}
}

// round has every working member say st, with the next event count.
func (k *keeper) round(st metadata.State, handover bool) {
	k.events++
	k.before = k.table
	k.setTable(st)

	now := status{k.events, st.ResyncOffset, st.Now}
	if !raid.Level(k.like.Level).HasRedundancy() {
		now.resync = raid.MaxSectors // there is nothing to resync
	}

	for i, m := range k.members {
		if k.working(st, metadata.MemberID(i)) {
			k.image(m, final, now)
		}
	}

	alone := k.alone(st)
	if !handover && alone {
		k.announce(st)
	}

	k.submit(st, handover || alone)
	k.resync = now.resync
	k.note(st)
}

// alone reports whether there is one member at most that has a slot already.
func (k *keeper) alone(st metadata.State) bool {
	others := 0

	for i, m := range k.members {
		if k.working(st, metadata.MemberID(i)) && m.inSync {
			others++
		}
	}

	return others < 2
}

// announce has those that get a slot say so with the event count that all have,
// so that one is left whatever happens to the only member there is when it is
// written. Where there are others, these would contradict each other about the
// new one, and it is the last to be written.
//
// Not so where somebody else has the slot yet: he could not be told from it.
func (k *keeper) announce(st metadata.State) {
	k.stage()

	for i, m := range k.members {
		if id := metadata.MemberID(i); k.working(st, id) && k.promoted(m) {
			k.image(m, announced, status{k.events - 1, k.resync, st.Now})
			k.write(metadata.Write{Member: id, Sector: m.at, Data: m.images[announced]})
		}
	}
}

// promoted reports whether a device has a slot and did not by the last record.
func (k *keeper) promoted(m *member) bool { return m.entry.State&diskSync != 0 && !m.inSync }

// image makes an image of m say what the table does.
func (k *keeper) image(m *member, which int, now status) {
	k.fill(m.images[which], m.entry, k.table[:], now)
	putCounts(m.images[which], &k.counts)
	putSum(m.images[which])
}

// submit has the superblocks written. One is before all others where more than
// the first sector of them changes: a power cut can then tear one of them, or
// all but one, and the others tell what the array is. Those that get a slot are
// the next ones, or the last.
func (k *keeper) submit(st metadata.State, promotedFirst bool) {
	lead := nobody

	for i, m := range k.members {
		if id := metadata.MemberID(i); lead == nobody && k.working(st, id) && m.inSync && k.table != k.before {
			lead = id
			k.stage()
			k.submitOne(id)
		}
	}

	for _, promoted := range [...]bool{promotedFirst, !promotedFirst} {
		k.stage()

		for i, m := range k.members {
			if id := metadata.MemberID(i); id != lead && k.working(st, id) && k.promoted(m) == promoted {
				k.submitOne(id)
			}
		}
	}
}

func (k *keeper) submitOne(id metadata.MemberID) {
	m := k.members[id]
	k.write(metadata.Write{Member: id, Sector: m.at, Data: m.images[final]})
}

// note keeps in mind what a round said.
func (k *keeper) note(st metadata.State) {
	for slot := range k.holders {
		k.holders[slot] = nobody
	}

	for i, m := range k.members {
		id := metadata.MemberID(i)

		record, ok := st.Members[id]
		if m == nil || !ok {
			continue
		}

		m.inSync = k.working(st, id) && m.entry.State&diskSync != 0

		if m.inSync {
			k.holders[record.Slot] = id
		}
	}
}

// setTable computes the entries that st asks for, and how many there are of each
// kind.
func (k *keeper) setTable(st metadata.State) {
	k.table, k.counts = [maxDisks]Disk{}, Raw{}
	next := k.like.RaidDisks

	enter := func(m *member, number, raidDisk, state uint32) {
		m.entry.Number, m.entry.RaidDisk, m.entry.State = number, raidDisk, state|m.flags
		k.table[number] = m.entry
		k.counts.NrDisks++
	}

	// Those that are not written come last, and not at all where there are more
	// than there is room for.
	for _, faulty := range []bool{false, true} {
		for i, m := range k.members {
			id := metadata.MemberID(i)

			record, ok := st.Members[id]
			if m == nil || !ok || (record.State == raid.Faulty) != faulty {
				continue
			}

			switch {
			case hasSlot(record):
				if k.table[record.Slot].State != 0 {
					panic(fmt.Sprintf("md0: two members in slot %d", record.Slot))
				}

				enter(m, uint32(record.Slot), uint32(record.Slot), diskActive|diskSync)
				k.counts.ActiveDisks++
				k.counts.WorkingDisks++
			case faulty && next < maxDisks:
				enter(m, next, next, diskFaulty)
				next++
			case !faulty:
				enter(m, next, next, 0)
				k.counts.SpareDisks++
				k.counts.WorkingDisks++
				next++
			}
		}
	}

	for slot := range k.like.RaidDisks {
		if k.table[slot].State == 0 {
			k.table[slot] = Disk{Number: slot, RaidDisk: slot, State: diskFaulty | diskRemoved}
			k.counts.FailedDisks++
		}
	}
}

// fill makes an image say what entry its device has and what else there is. The
// counts and the checksum are for the caller to put.
func (k *keeper) fill(image []byte, entry Disk, table []Disk, now status) {
	le := binary.LittleEndian
	put := func(word int, value uint32) { le.PutUint32(image[4*word:], value) }

	// The array is what the freshest says; a stale member's own view of it is of
	// no account.
	copy(image[:32*4], k.like.image[:32*4])
	copy(image[64*4:offDisks], k.like.image[64*4:offDisks])
	put(8, k.like.Size)

	state, checkpoint, offset := k.like.State&^bitClean, now.events, uint32(resyncedAll)

	switch now.resync {
	case raid.MaxSectors:
		state |= bitClean
	case 0:
		checkpoint, offset = 0, 0
	default: // never more than what was said
		offset = uint32(min(now.resync, resyncedAll-1))
	}

	put(32, uint32(max(now.now.Unix(), 0)))
	put(33, state)
	le.PutUint64(image[39*4:], now.events)
	le.PutUint64(image[41*4:], checkpoint)
	put(43, offset)

	for i, d := range table {
		putDisk(image[offDisks+i*descriptor:], d)
	}

	putDisk(image[offThis:], entry)
}

// putDisk writes an entry, of which md keeps the rest zero.
func putDisk(buf []byte, d Disk) {
	clear(buf[:descriptor])

	for i, word := range [...]uint32{d.Number, d.Major, d.Minor, d.RaidDisk, d.State} {
		binary.LittleEndian.PutUint32(buf[4*i:], word)
	}
}

// putCounts writes how many devices there are of each kind.
func putCounts(image []byte, of *Raw) {
	binary.LittleEndian.PutUint32(image[9*4:], of.NrDisks)

	for i, count := range [...]uint32{of.ActiveDisks, of.WorkingDisks, of.FailedDisks, of.SpareDisks} {
		binary.LittleEndian.PutUint32(image[(34+i)*4:], count)
	}
}

func putSum(image []byte) {
	binary.LittleEndian.PutUint32(image[offSum:], checksum(image, binary.LittleEndian))
}

// Add implements [metadata.Keeper]. The identity is ignored: devices have none.
func (k *keeper) Add(src metadata.Source, _ raid.UUID) (id metadata.MemberID, offset, size raid.Sectors, err error) {
	m, err := k.add(src)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("md0: %w", err)
	}

	id = metadata.MemberID(len(k.members))
	for i := range m.first {
		m.first[i].Member = id
	}

	k.members = append(k.members, m)

	return id, 0, m.room, nil
}

func (k *keeper) add(src metadata.Source) (*member, error) {
	level := raid.Level(k.like.Level)

	switch at, ok := place(src.Size); {
	case !level.HasRedundancy():
		return nil, fmt.Errorf("%v has no use for a spare", level)
	case !ok || src.Block > blockSize:
		return nil, fmt.Errorf("no room for a superblock on %d sectors in blocks of %d", src.Size, src.Block)
	default:
		// What cannot be read is not to be made a member.
		if n, err := src.ReadAt(make([]byte, blockSize), at.Bytes()); n < blockSize {
			return nil, fmt.Errorf("read sector %d: %w", at, err)
		}
	}

	m := newMember(k.like, src)
	if err := k.room(m, k.like); err != nil {
		return nil, err
	}

	if k.like.State&bitBitmap != 0 && k.bitmap != nil {
		m.first = []metadata.Write{{Sector: m.at + bitmapOffset, Data: staleBitmap(k.bitmap, src.Block)}}
	}

	return m, nil
}

// Attach implements [metadata.Keeper].
func (k *keeper) Attach(a metadata.Attachment) (metadata.MemberID, error) {
	if _, err := k.attach(a, false); err != nil { // it missed what it was away for
		return 0, fmt.Errorf("md0: %w", err)
	}

	return metadata.MemberID(len(k.members) - 1), nil
}

// Forget implements [metadata.Keeper].
func (k *keeper) Forget(id metadata.MemberID) { k.members[id] = nil }

// Grow implements [metadata.Keeper]. A device that is larger than it was would
// have its superblock elsewhere: members have room for what they have.
func (k *keeper) Grow(size raid.Sectors) (raid.Sectors, error) {
	level := raid.Level(k.like.Level)
	room := sizeMax

	for _, m := range k.members {
		if m != nil {
			room = min(room, m.room)
		}
	}

	if size == 0 {
		size = room
	}

	size &^= 1 // it is kept in KiB
	if level.HasChunks() {
		size -= size % raid.Sectors(max(k.like.ChunkSize/raid.SectorSize, 1))
	}

	switch old := component(k.like); {
	case !level.HasRedundancy():
		return 0, fmt.Errorf("md0: %v uses all of its members", level)
	// The copies of far layouts would have to move.
	case level == raid.Level10 && k.like.Layout>>8&0xff > 1 && k.like.Layout>>16&1 == 0:
		return 0, fmt.Errorf("md0: a RAID10 of layout %#x cannot grow", k.like.Layout)
	case k.like.State&bitBitmap != 0:
		return 0, errors.New("md0: the array has a bitmap, which would have to grow too: remove it with mdadm first")
	case size <= old || size > room:
		return 0, fmt.Errorf("md0: %d sectors of each member, of which it uses %d and has room for %d", size, old, room)
	}

	k.like.Size = uint32(size / 2)

	return size, nil
}

// BadBlockRoom implements [metadata.Keeper]: there is no log of bad blocks.
func (k *keeper) BadBlockRoom(metadata.MemberID) int { return 0 }

// Log implements [metadata.Keeper]: there are no logs of partial parity.
func (k *keeper) Log(metadata.MemberID) *metadata.PPL { return nil }

// Bitmap implements [metadata.Keeper].
func (k *keeper) Bitmap() metadata.Bitmap { return nil }

// Events implements [metadata.Keeper].
func (k *keeper) Events() uint64 { return k.events }
