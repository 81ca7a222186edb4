package md1

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// keeper keeps the superblocks of one array.
//
// Invariants:
//   - No two attached devices have one number.
//   - Every number is below maxDev, which is at most roleMax.
//   - No event count on any member, nor in a bitmap, is above events, once the
//     first Record has been written.
//
// An internal bitmap that is not kept must not be believed by md. It is not if
// the bitmap's event count is below the array's: md then takes every bit as
// set, and after an unclean stop resyncs everything. The bitmap superblock is
// written before the superblocks, so its count may be ahead of theirs by a
// write that a crash cut off. events starts from the highest of all, and the
// first Record passes it before the first data write is let through.
type keeper struct {
	minor   minor
	like    *Raw // the freshest: what it says of the array, all say
	events  uint64
	maxDev  int
	roleMax int         // how many roles every member has room for
	bitmap  *bitmap     // to be copied to members that have none; nil if there is none
	intent  *keptBitmap // nil if there is no bitmap that can be kept

	members []*member // by MemberID; nil once forgotten
	absent  [maxRoles]bool

	// Reused by every Record, which may run while memory is short.
	roles       [maxRoles]raid.Role
	before      [maxRoles]raid.Role // by the last record
	first       []metadata.Write
	late        [2][]metadata.Write
	logs        [3][]metadata.Write
	bitmapStale []metadata.Write
	bitmapBody  []metadata.Write
	bitmapHead  []metadata.Write
	early       []metadata.Write
	supers      []metadata.Write
	stages      [][]metadata.Write
}

// member is an attached device.
type member struct {
	image  []byte // its superblock, blockSize bytes
	number int
	block  int
	at     raid.Sectors
	first  []metadata.Write    // before its next superblock, once
	late   [2][]metadata.Write // after first, once: its superblock as it should have been
	known  bool                // by its number, to a superblock somewhere
	inSync bool                // by its own superblock
	below  raid.Sectors        // which it is right by that, if it is not in sync
	log    *badLog             // nil if it has none
	size   int                 // bytes of its superblock on disk; 0 if it has none
	room   raid.Sectors        // that its data may have
	found  *Raw                // its superblock as it is on disk; nil if there is none, or image is it

	slotted    bool // by the last Record
	hasBitmap  bool // the same as all
	bitmapAt   raid.Sectors
	bitmapRoom int64 // bytes from there on that are the bitmap's to have
}

// eventsMax leaves room to count up from, whatever a disk says.
const eventsMax = 1 << 62

// Keep implements [metadata.Format]. Members may be in sync, stale or spare:
// all get what the freshest says of the array, and a number of their own.
func (f Format) Keep(members []metadata.Attachment, _ ...metadata.Keeper) (metadata.Keeper, error) {
	if len(members) == 0 {
		return nil, errors.New("md1: no members to keep")
	}

	like, ok := members[0].Superblock.Raw.(*Raw)
	if !ok {
		return nil, errors.New("md1: the superblock is of another format")
	}

	own := *like // Grow changes it
	like = &own

	k := &keeper{like: like, minor: minorOf(members[0].Superblock), maxDev: int(like.MaxDev), roleMax: maxRoles}
	k.events = like.Events

	for number, role := range like.DevRoles {
		k.absent[number] = role != raid.RoleSpare
	}

	raws := make([]*Raw, len(members))

	for i, a := range members {
		var err error
		if raws[i], err = k.attach(a); err != nil {
			return nil, fmt.Errorf("md1: member %d: %w", i, err)
		}
	}

	if k.events > eventsMax {
		return nil, fmt.Errorf("md1: event count %d leaves no room above it", k.events)
	}

	// Numbers are settled when it is known which ones are taken: of two members
	// with one number the fresher keeps it.
	for i, m := range k.members {
		if m.number != unnumbered {
			continue
		}

		var err error
		if m.number, err = k.freeNumber(); err != nil {
			return nil, fmt.Errorf("md1: member %d: %w", i, err)
		}
	}

	k.addBitmaps(raws, members)
	k.loadBitmap(raws, members)
	k.catchUp(raws)

	return k, nil
}

// minorOf returns the minor version of a superblock that Probe returned.
func minorOf(sb *metadata.Superblock) minor {
	for _, m := range minors() {
		if sb.Format == m.String() {
			return m
		}
	}

	panic("md1: a superblock of version " + sb.Format)
}

// unnumbered is the number of a member that has yet to get one.
const unnumbered = -1

func (k *keeper) attach(a metadata.Attachment) (*Raw, error) {
	raw, ok := a.Superblock.Raw.(*Raw)
	if !ok || raw.SetUUID != k.like.SetUUID || minorOf(a.Superblock) != k.minor {
		return nil, fmt.Errorf("superblock %s of array %v among those of %v of %v",
			a.Superblock.Format, a.Superblock.Array, k.minor, raid.UUID(k.like.SetUUID))
	}

	if why := a.Superblock.Unsupported; why != "" {
		return nil, errors.New(why)
	}

	k.roleMax = min(k.roleMax, k.inArray(raw).roleMax())

	if k.roleMax < k.maxDev {
		return nil, fmt.Errorf("room for %d roles, the array has %d", k.roleMax, k.maxDev)
	}

	if raw.FeatureMap&FeatureBitmapOffset != 0 {
		k.findBitmap(raw, a.Source)
	}

	// It failed, perhaps, as it was to say what room it has, and has come back.
	room := dataRoom(raw, k.minor, a.Source.Size)
	if used := raid.Sectors(k.like.Size); raid.Sectors(raw.DataSize) < used && room < used {
		return nil, fmt.Errorf("room for %d sectors of data, the array uses %d", room, used)
	}

	number := int(raw.DevNumber)
	if k.inUse(number) || number >= k.maxDev {
		number = unnumbered
	} else {
		k.absent[number] = false
	}

	m := &member{
		image:  image(raw, k.like),
		number: number,
		block:  a.Source.Block,
		at:     raid.Sectors(raw.SuperOffset),
		known:  true,
		inSync: inSyncBy(raw),
		below:  raid.Sectors(min(raw.RecoveryOffset, uint64(raid.MaxSectors))),
		log:    newBadLog(raw, a.Source, raw.badEntries),
		size:   written(int(raw.MaxDev), a.Source.Block),
		room:   room,
		found:  raw,
	}

	if raw.DataSize < k.like.Size {
		binary.LittleEndian.PutUint64(m.image[offDataSize:], uint64(room))
	}

	k.members = append(k.members, m)

	return raw, nil
}

// findBitmap takes what the bitmap of a member says of events, and its superblock
// if that is the first one to be of use.
func (k *keeper) findBitmap(raw *Raw, src metadata.Source) {
	b, err := readBitmap(raw, src)
	if err != nil {
		// It can be ahead by one write.
		k.events = max(k.events, raw.Events+1)

		return
	}

	k.events = max(k.events, b.events())

	sectors := syncSectors(k.like)
	if k.bitmap == nil || k.bitmap.valid(sectors) != nil && b.valid(sectors) == nil {
		k.bitmap = b
	}
}

// inArray returns raw with the bitmap that the array has by now.
func (k *keeper) inArray(raw *Raw) *Raw {
	now := *raw
	now.FeatureMap, now.BitmapOffset = k.like.FeatureMap, k.like.BitmapOffset

	return &now
}

// addBitmaps has a bitmap written to the members that md may read it from once
// they are in sync, and that have none.
func (k *keeper) addBitmaps(raws []*Raw, members []metadata.Attachment) {
	if k.bitmap == nil || k.like.FeatureMap&FeatureBitmapOffset == 0 {
		return
	}

	for i, a := range members {
		raw := k.inArray(raws[i])
		if _, err := readBitmap(raw, a.Source); !errors.Is(err, errNoBitmap) {
			continue
		}

		// Where there is no room for it md would not look either.
		if w, err := bitmapWrite(raw, k.bitmap, a.Source.Block); err == nil {
			w.Member = metadata.MemberID(i)
			k.members[i].first = append(k.members[i].first, w)
		}
	}
}

// inUse reports whether an attached device has the number.
func (k *keeper) inUse(number int) bool {
	for _, m := range k.members {
		if m != nil && m.number == number {
			return true
		}
	}

	return false
}

// freeNumber returns the lowest number that no device has. Those of devices
// that are absent or were removed come last: one may turn up again and must not
// be taken for the new one.
func (k *keeper) freeNumber() (int, error) {
	for number := range k.maxDev {
		if !k.absent[number] && !k.inUse(number) {
			return number, nil
		}
	}

	if number := k.maxDev; number < k.roleMax {
		k.maxDev = min(rolesIn(number+1), k.roleMax)

		return number, nil
	}

	for number := range k.maxDev {
		if !k.inUse(number) {
			k.absent[number] = false

			return number, nil
		}
	}

	return 0, fmt.Errorf("all of %d device numbers are taken", k.maxDev)
}

// Record implements [metadata.Keeper]. It does not allocate once every device
// was written.
func (k *keeper) Record(st metadata.State) [][]metadata.Write {
	k.events++
	k.before = k.roles
	k.setRoles(st)

	k.first, k.early, k.supers = k.first[:0], k.early[:0], k.supers[:0]
	k.late[0], k.late[1] = k.late[0][:0], k.late[1][:0]

	for i := range k.logs {
		k.logs[i] = k.logs[i][:0]
	}

	for i, m := range k.members {
		if m == nil {
			continue
		}

		id := metadata.MemberID(i)
		record, ok := st.Members[id]

		m.slotted = ok && (record.State == raid.InSync || record.State == raid.Recovering)
		if ok && record.State != raid.Faulty {
			k.recordMember(id, record, st)
		}
	}

	var bitmap [3][]metadata.Write
	if k.intent != nil && k.intent.kept {
		bitmap = k.intent.record()
	}

	// A member must not be one while it has another superblock as well, or no
	// bitmap where all have one, nor ever be two records behind; what a
	// superblock says is there must be.
	k.lead()

	k.stages = k.stages[:0]
	for _, stage := range [...][]metadata.Write{
		k.first, k.late[0], k.late[1], k.logs[0], k.logs[1], k.logs[2],
		bitmap[0], bitmap[1], bitmap[2], k.early, k.supers,
	} {
		if len(stage) > 0 {
			k.stages = append(k.stages, stage)
		}
	}

	return k.stages
}

// lead has one member written before all others, where more than the first
// sector of the superblocks changes: a power cut can then tear one of them, or
// all but one, and the others tell what the array is.
func (k *keeper) lead() {
	const roles = (raid.SectorSize - headerSize) / 2

	if len(k.early) > 0 || len(k.supers) < 2 || slices.Equal(k.roles[roles:], k.before[roles:]) {
		return
	}

	k.early = append(k.early, k.supers[0])
	k.supers = slices.Delete(k.supers, 0, 1)
}

// recordMember prepares the writes of a device that is to be written.
func (k *keeper) recordMember(id metadata.MemberID, record metadata.MemberRecord, st metadata.State) {
	m := k.members[id]

	k.first = append(k.first, m.first...)
	for i := range k.late {
		k.late[i] = append(k.late[i], m.late[i]...)
	}

	m.first, m.late, m.known, m.found = nil, [2][]metadata.Write{}, true, nil

	if m.log != nil && record.BadBlocks != nil {
		for i, image := range m.log.set(record.BadBlocks) {
			k.logs[i] = append(k.logs[i], metadata.Write{Member: id, Sector: m.log.at, Data: image})
		}
	} else if m.log == nil && len(record.BadBlocks) > 0 {
		panic(fmt.Sprintf("md1: bad blocks %v of a device without a log", record.BadBlocks))
	}

	k.update(m, record, st)

	w := metadata.Write{Member: id, Sector: m.at, Data: m.image[:written(k.maxDev, m.block)]}
	k.first = append(k.first, m.grow(w)...)

	// Only its own superblock says how much of a member is right. If that is all, it
	// must say so before that of another counts on it; and if it is less than it
	// was, before another calls the array clean.
	full := record.State == raid.InSync && !m.inSync
	less := record.State == raid.Recovering && (m.inSync || record.Recovered < m.below)

	if full || less {
		k.early = append(k.early, w)
	} else {
		k.supers = append(k.supers, w)
	}

	m.inSync, m.below = record.State == raid.InSync, record.Recovered
}

// grow returns what is to be written of a superblock before it is one, where it
// is larger than one block and than what is there. Its checksum cannot tell
// zeros from ones, and what a write leaves out that is torn may be either.
func (m *member) grow(super metadata.Write) []metadata.Write {
	block := max(m.block, raid.SectorSize)

	old := max(m.size, block)
	if m.size = len(super.Data); m.size <= old {
		return nil
	}

	return []metadata.Write{{
		Member: super.Member, Sector: super.Sector + raid.Sectors(old/raid.SectorSize), Data: super.Data[old:],
	}}
}

// setRoles computes the role table that st asks for. A number that no device
// has is a spare's, as md writes it.
func (k *keeper) setRoles(st metadata.State) {
	var taken [maxRoles][2]bool // by a member and by its replacement

	roles := k.roles[:k.maxDev]
	for number := range roles {
		roles[number] = raid.RoleSpare
	}

	for i, m := range k.members {
		record, ok := st.Members[metadata.MemberID(i)]
		if m == nil || !ok {
			continue
		}

		roles[m.number] = role(record)

		slot, ok := role(record).Slot()
		if !ok {
			continue
		}

		as := 0
		if record.Replacement {
			as = 1
		}

		// md would take one of them for the replacement of the other.
		if taken[slot][as] {
			panic(fmt.Sprintf("md1: two members in slot %d", slot))
		}

		taken[slot][as] = true
	}
}

func role(record metadata.MemberRecord) raid.Role {
	switch record.State {
	case raid.InSync, raid.Recovering:
		return raid.Role(record.Slot)
	case raid.Faulty:
		return raid.RoleFaulty
	case raid.Spare:
		return raid.RoleSpare
	case raid.Missing, raid.Stale:
	}

	panic(fmt.Sprintf("md1: an attached device cannot be recorded as %s", record.State))
}

// update makes the image of m say st.
func (k *keeper) update(m *member, record metadata.MemberRecord, st metadata.State) {
	le := binary.LittleEndian

	features := k.like.FeatureMap & (FeatureBitmapOffset | FeatureRAID0Layout | FeaturePPL | FeatureMultiplePPLs)
	recovered := uint64(0)

	if record.State == raid.Recovering {
		features |= FeatureRecoveryOffset
		recovered = diskOffset(record.Recovered)

		// md keeps in mind which slot it had only if this is set.
		if record.ByBitmap {
			features |= FeatureRecoveryBitmap
		}
	}

	if record.Replacement && m.slotted {
		features |= FeatureReplacement
	}

	if m.log != nil && m.log.on {
		features |= FeatureBadBlocks
	}

	// Without redundancy there is nothing to resync, and the field keeps what
	// md put there.
	resync := k.like.ResyncOffset
	if raid.Level(k.like.Level).HasRedundancy() {
		resync = diskOffset(st.ResyncOffset)
	}

	le.PutUint32(m.image[offFeatureMap:], uint32(features))
	le.PutUint64(m.image[offSize:], k.like.Size)
	le.PutUint64(m.image[offRecoveryOffset:], recovered)
	le.PutUint32(m.image[offDevNumber:], uint32(m.number))
	le.PutUint64(m.image[offUtime:], diskTime(st.Now))
	le.PutUint64(m.image[offEvents:], k.events)
	le.PutUint64(m.image[offResyncOffset:], resync)
	le.PutUint32(m.image[offMaxDev:], uint32(k.maxDev))

	for number, role := range k.roles[:k.maxDev] {
		le.PutUint16(m.image[superSize(number):], uint16(role))
	}

	putChecksum(m.image[:superSize(k.maxDev)])
}

// Add implements [metadata.Keeper].
func (k *keeper) Add(
	src metadata.Source, device raid.UUID,
) (id metadata.MemberID, offset, size raid.Sectors, err error) {
	fresh, err := newMember(k.like, k.minor, src, device)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("md1: %w", err)
	}

	m := &member{
		room:  dataRoom(fresh, k.minor, src.Size),
		image: image(fresh, k.like),
		block: src.Block,
		at:    raid.Sectors(fresh.SuperOffset),
		log:   newBadLog(fresh, src, nil),
	}

	m.placeBitmap(fresh, src)

	if err := k.bitmapRoom(m); err != nil {
		return 0, 0, 0, fmt.Errorf("md1: %w", err)
	}

	if m.number, err = k.freeNumber(); err != nil {
		return 0, 0, 0, fmt.Errorf("md1: %w", err)
	}

	id = metadata.MemberID(len(k.members))

	first, err := preparations(fresh, k.minor, src, k.bitmap)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("md1: %w", err)
	}

	for i := range first {
		first[i].Member = id
	}

	m.first = first
	k.members = append(k.members, m)

	return id, raid.Sectors(fresh.DataOffset), raid.Sectors(fresh.DataSize), nil
}

// Forget implements [metadata.Keeper]. The device keeps its superblock. Until
// that is well behind the array's, nobody else may have its number: for the
// device would be taken for whoever has.
func (k *keeper) Forget(id metadata.MemberID) {
	if m := k.members[id]; m.known {
		k.absent[m.number] = true
	}

	k.members[id] = nil
}

// Events implements [metadata.Keeper].
func (k *keeper) Events() uint64 { return k.events }

// BadBlockRoom implements [metadata.Keeper].
func (k *keeper) BadBlockRoom(id metadata.MemberID) int { return k.members[id].log.available() }

// Log implements [metadata.Keeper].
func (k *keeper) Log(id metadata.MemberID) *metadata.PPL {
	raw := *k.like
	raw.SuperOffset = uint64(k.members[id].at)

	return pplPlace(&raw)
}

// Attach implements [metadata.Keeper].
func (k *keeper) Attach(a metadata.Attachment) (metadata.MemberID, error) {
	roleMax, events, bitmap := k.roleMax, k.events, k.bitmap

	raw, err := k.attach(a)
	if err == nil {
		err = k.admit(raw, a)
	}

	if err != nil {
		k.roleMax, k.events, k.bitmap = roleMax, events, bitmap

		return 0, fmt.Errorf("md1: %w", err)
	}

	return metadata.MemberID(len(k.members) - 1), nil
}

// admit finds a number and the place of the bitmap for the device that was
// attached last, or detaches it.
func (k *keeper) admit(raw *Raw, a metadata.Attachment) error {
	last := len(k.members) - 1
	m := k.members[last]

	m.placeBitmap(k.inArray(raw), a.Source)

	err := k.bitmapRoom(m)
	if err == nil && k.events > eventsMax {
		err = fmt.Errorf("event count %d leaves no room above it", k.events)
	}

	if err == nil && m.number == unnumbered {
		m.number, err = k.freeNumber()
	}

	if err != nil {
		k.members = k.members[:last]
	}

	return err
}

// bitmapRoom verifies that the bitmap of the array can be kept on m as well.
func (k *keeper) bitmapRoom(m *member) error {
	if k.intent != nil && m.bitmapRoom < k.intent.bytes() {
		return fmt.Errorf("no room for a bitmap of %d bytes, but for %d", k.intent.bytes(), m.bitmapRoom)
	}

	return nil
}
