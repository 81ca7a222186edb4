package imsm

import (
	"errors"
	"fmt"
	"slices"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// keeper keeps the record of one volume, and with those of the other running
// volumes of its container what they have in common.
type keeper struct {
	*container

	volume  *volume
	members []*member // by MemberID; nil once forgotten
	empty   []byte    // what a log of partial parity begins with that has nothing in it; or nil

	// Reused by every Record, which may run while memory is short.
	holders []*member // by slot
	writes  []metadata.Write
	stages  [][]metadata.Write
	pace    Map
}

// member is an attached device.
type member struct {
	disk  *disk
	found int  // runs of bad blocks that it had at first
	added bool // its log of partial parity is to be emptied

	// By the last Record.
	filled    bool // not yet in sync
	recovered raid.Sectors
}

// Keep implements [metadata.Format].
func (f Format) Keep(members []metadata.Attachment, beside ...metadata.Keeper) (metadata.Keeper, error) {
	if len(members) == 0 {
		return nil, errors.New("imsm: no members to keep")
	}

	k, err := newKeeper(members, beside)
	if err != nil {
		return nil, fmt.Errorf("imsm: %w", err)
	}

	return k, nil
}

func newKeeper(members []metadata.Attachment, beside []metadata.Keeper) (*keeper, error) {
	latest, array := latest(members)
	if latest == nil {
		return nil, errNoArray
	}

	k := &keeper{container: newContainer(latest)}

	for _, other := range beside {
		o, ok := other.(*keeper)
		if !ok || o.container.uuid != k.container.uuid {
			return nil, errors.New("an array of another container")
		}

		k.container = o.container
	}

	k.mu.Lock()
	defer k.mu.Unlock()

	for i, v := range k.volumes {
		if k.array(i) == array {
			k.volume = v
		}
	}

	if k.volume == nil {
		return nil, fmt.Errorf("the container has no volume %v", array)
	}

	before := k.keepers
	k.keepers = append(slices.Clip(before), k)

	for i, a := range members {
		if _, err := k.attach(a); err != nil {
			k.keepers = before

			return nil, fmt.Errorf("member %d: %w", i, err)
		}
	}

	k.start()
	k.retire(beside)

	return k, nil
}

// latest returns the newest record of those of the members of a volume, and which
// volume that is.
func latest(members []metadata.Attachment) (*Raw, raid.UUID) {
	var (
		best  *Raw
		array raid.UUID
	)

	for _, a := range members {
		r, ok := a.Superblock.Raw.(*Raw)
		if ok && !a.Superblock.Array.IsZero() && (best == nil || r.Generation > best.Generation) {
			best, array = r, a.Superblock.Array
		}
	}

	return best, array
}

// start makes room for what Record needs.
func (k *keeper) start() {
	k.holders = make([]*member, k.volume.geometry.Disks)

	if log := k.partialParity(); log != nil {
		k.empty = log.Empty()
	}
}

// retire forgets the keepers of volumes that do not run any more.
func (k *keeper) retire(beside []metadata.Keeper) {
	k.keepers = nil

	for _, other := range beside {
		if o, ok := other.(*keeper); ok { // which was seen before
			k.keepers = append(k.keepers, o)
		}
	}

	k.keepers = append(k.keepers, k)
}

// generationMax leaves room to count up from, whatever a disk says.
const generationMax = 1 << 31

// attach attaches a device.
func (k *keeper) attach(a metadata.Attachment) (metadata.MemberID, error) {
	sb := a.Superblock

	r, ok := sb.Raw.(*Raw)
	if !ok || !sb.Container.IsZero() && sb.Container != k.uuid {
		return 0, fmt.Errorf("a superblock of container %v among those of %v", sb.Container, k.uuid)
	}

	if err := k.check(a.Source); err != nil {
		return 0, err
	}

	switch {
	case sb.Unsupported != "":
		return 0, errors.New(sb.Unsupported)
	case r.Generation > generationMax:
		return 0, fmt.Errorf("generation %d leaves no room above it", r.Generation)
	}

	for i := range k.volumes {
		if _, end := k.extent(i); end > a.Source.Size-k.mostRecord() {
			return 0, fmt.Errorf("a volume ends at sector %d of %d: no room to grow", end, a.Source.Size)
		}
	}

	d := k.attached(SerialOf(a.Source.Serial))
	if d == nil {
		d = k.newDisk(a.Source)
	}

	if slices.ContainsFunc(k.members, func(m *member) bool { return m != nil && m.disk == d }) {
		return 0, fmt.Errorf("two disks with serial number %q", d.serial.String())
	}

	if !sb.Container.IsZero() {
		k.set(offGeneration, max(k.get(offGeneration), r.Generation))
	}

	k.members = append(k.members, &member{disk: d, found: len(sb.BadBlocks)})

	return metadata.MemberID(len(k.members) - 1), nil
}

// Attach implements [metadata.Keeper].
func (k *keeper) Attach(a metadata.Attachment) (metadata.MemberID, error) {
	k.mu.Lock()
	defer k.mu.Unlock()

	id, err := k.attach(a)
	if err != nil {
		return 0, fmt.Errorf("imsm: %w", err)
	}

	return id, nil
}

// Add implements [metadata.Keeper]. The device gets no UUID: it has that which
// follows from its serial number.
func (k *keeper) Add(
	src metadata.Source, _ raid.UUID,
) (id metadata.MemberID, offset, size raid.Sectors, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()

	d, err := k.add(src)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("imsm: %w", err)
	}

	k.members = append(k.members, &member{disk: d, added: true})

	return metadata.MemberID(len(k.members) - 1), k.origin(), k.roomOn(d), nil
}

func (k *keeper) add(src metadata.Source) (*disk, error) {
	if !k.volume.geometry.Level.HasRedundancy() {
		return nil, fmt.Errorf("%v has no use for a spare", k.volume.geometry.Level)
	}

	if err := k.check(src); err != nil {
		return nil, err
	}

	at, ok := anchorAt(src)
	if !ok {
		return nil, fmt.Errorf("%d sectors in blocks of %d bytes", src.Size, blockOf(src))
	}

	if _, err := readBlocks(src, at, k.block); err != nil {
		return nil, err
	}

	serial := SerialOf(src.Serial)

	for _, m := range k.members {
		if m != nil && !m.disk.lost && m.disk.serial.same(serial) {
			return nil, fmt.Errorf("the array has a disk with serial number %q", serial.String())
		}
	}

	d := k.attached(serial)
	if d == nil {
		d = k.newDisk(src)
	}

	for i := range k.volumes {
		if _, end := k.extent(i); end > src.Size-k.mostRecord() {
			return nil, fmt.Errorf("%d sectors are too few: the volumes end at sector %d", src.Size, end)
		}
	}

	return d, nil
}

// mostRecord returns how many sectors at the end of a disk a record may take, with
// the block behind it.
func (c *container) mostRecord() raid.Sectors {
	return raid.Sectors(len(c.image)/raid.SectorSize) + c.sectors()
}

// extent returns where a volume lies on its members, with what it has behind its
// data.
func (c *container) extent(index int) (from, to raid.Sectors) {
	v := c.volumes[index]
	from = c.wide(v.maps[0], offStart, offStartHigh)
	to = from + v.geometry.Size

	if p := v.head[offPolicy]; p == policyLog || p == policyLogs {
		to += regionSectors
	}

	return from, to
}

// wide returns a number of sectors of a map.
func (c *container) wide(m []byte, low, high int) raid.Sectors {
	n := uint64(order.Uint32(m[low:]))
	if c.get(offAttributes)&attrBigDisks != 0 {
		n |= uint64(order.Uint32(m[high:])) << 32
	}

	return raid.Sectors(min(n, 1<<50)) * c.sectors()
}

// roomOn returns how much of a disk the volume could use, up to what follows.
func (k *keeper) roomOn(d *disk) raid.Sectors {
	start := k.origin()
	end := d.size - recordSectors

	if least := start + k.volume.geometry.Size; end < least {
		end = least // an old volume may reach further
	}

	for i, v := range k.volumes {
		if from, _ := k.extent(i); v != k.volume && from > start {
			end = min(end, from)
		}
	}

	if k.partialParity() != nil {
		end = min(end, start+k.volume.geometry.Size)
	}

	return end - start
}

// Forget implements [metadata.Keeper].
func (k *keeper) Forget(id metadata.MemberID) {
	k.mu.Lock()
	defer k.mu.Unlock()

	k.members[id] = nil
}

// Leave implements [metadata.Sharing]. What its disks are stays as it was recorded.
func (k *keeper) Leave() {
	k.mu.Lock()
	defer k.mu.Unlock()

	k.keepers = slices.DeleteFunc(k.keepers, func(other *keeper) bool { return other == k })
}

// Events implements [metadata.Keeper].
func (k *keeper) Events() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()

	return uint64(k.get(offGeneration))
}

// BadBlockRoom implements [metadata.Keeper]. All disks share one log, of which
// each slot of each volume gets a part. Where blocks are larger than sectors the
// log cannot say which of their sectors are bad.
func (k *keeper) BadBlockRoom(id metadata.MemberID) int {
	k.mu.Lock()
	defer k.mu.Unlock()

	if k.block != raid.SectorSize {
		return 0
	}

	slots := 0
	for _, v := range k.volumes {
		slots += v.geometry.Disks
	}

	// What it has was found in entries of half the size.
	const halves = 2

	return max(logMax-halves*k.found, 0)/halves/slots + k.members[id].found
}

// partialParity returns where members keep partial parity, or nil.
func (k *keeper) partialParity() *metadata.PPL {
	policy := k.volume.head[offPolicy]
	if policy != policyLog && policy != policyLogs || k.volume.geometry.Level != raid.Level5 {
		return nil
	}

	m := k.volume.maps[0]
	strip := raid.Sectors(order.Uint16(m[offStrip:])) * k.sectors()
	log := &metadata.PPL{
		Sector: k.origin() + k.wide(m, offStripes, offStripesHigh)/k.sectors()*strip,
		Size:   singleLog, Signature: k.get(offOrigFamily),
	}

	if log.Signature == 0 {
		log.Signature = k.get(offFamily)
	}

	if policy == policyLogs {
		log.Size, log.Ring = regionSectors, true
	}

	return log
}

// origin returns where the data of the volume begins on each member.
func (k *keeper) origin() raid.Sectors { return k.wide(k.volume.maps[0], offStart, offStartHigh) }

// Log implements [metadata.Keeper].
func (k *keeper) Log(metadata.MemberID) *metadata.PPL {
	k.mu.Lock()
	defer k.mu.Unlock()

	return k.partialParity()
}

// Bitmap implements [metadata.Keeper].
func (k *keeper) Bitmap() metadata.Bitmap { return nil }

// Grow implements [metadata.Keeper].
func (k *keeper) Grow(size raid.Sectors) (raid.Sectors, error) {
	k.mu.Lock()
	defer k.mu.Unlock()

	g := &k.volume.geometry

	switch {
	case !g.Level.HasRedundancy():
		return 0, fmt.Errorf("imsm: %v does not grow", g.Level)
	case k.partialParity() != nil:
		return 0, errors.New("imsm: the logs of partial parity are where the volume would grow to")
	}

	room := raid.MaxSectors

	for _, m := range k.members {
		if m != nil {
			room = min(room, k.roomOn(m.disk))
		}
	}

	if size == 0 {
		size = room
	}

	size -= size % granule(*g)
	if size > room || size <= g.Size {
		return 0, fmt.Errorf("imsm: %d sectors of each member, which uses %d and has room for %d", size, g.Size, room)
	}

	g.Size = size
	k.putSize(k.volume)

	return size, nil
}

// granule is what the size of a volume is a multiple of: 1 MiB of each member, and
// the stripes that the metadata counts.
func granule(g raid.Geometry) raid.Sectors {
	const copies = 2

	return max(regionSectors, copies*g.Chunk)
}

// putSize puts the size of a volume's geometry into it.
func (c *container) putSize(v *volume) {
	g := v.geometry
	all := g.Size * raid.Sectors(dataDisks(g))
	putWide(v.head[offVolSize:], v.head[offVolSizeHigh:], uint64(all/c.sectors()))

	blocks := uint64((g.Size + regionSectors) / c.sectors())
	if blocks>>32 != 0 {
		c.setWide()
	}

	if uint64(all/c.sectors())>>32 != 0 {
		c.set(offAttributes, c.get(offAttributes)|attrBigVols)
	}

	for _, m := range v.maps {
		stripes := g.Size / max(raid.Sectors(order.Uint16(m[offStrip:]))*c.sectors(), 1)
		if mirrored(g.Level) {
			stripes /= 2
		}

		putMap(m, offBlocks, offBlocksHigh, blocks)
		putMap(m, offStripes, offStripesHigh, uint64(stripes))
	}
}

func putMap(m []byte, low, high int, n uint64) { putWide(m[low:], m[high:], n) }
