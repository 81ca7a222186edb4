package imsm

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"slices"
	"sync"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// container is what the running arrays of one container have in common, which is
// all: the record.
//
// Invariants:
//   - No entry of the table changes its place: members are numbered by it, and one
//     that was left behind by a crash is numbered as before.
//   - A disk that several keepers have attached is one disk.
type container struct {
	mu      sync.Mutex
	block   int // size in bytes
	uuid    raid.UUID
	head    [headSize]byte
	table   []entry
	volumes []*volume
	rest    []byte
	log     []run
	found   int // entries of the log at first
	keepers []*keeper

	// The record as it was written last: what is in front of its first block on a
	// disk, and that. version counts the former's changes.
	mpb, image []byte
	extension  int
	version    uint64
}

// entry is an entry of the disk table.
type entry struct {
	raw    [diskSize]byte
	failed uint32 // the generation that called it failed first; 0 if it has not, or had at first
}

// run is an entry of the log of bad blocks, in sectors.
type run struct {
	disk   int
	from   raid.Sectors
	length raid.Sectors
}

// volume is an array of the container.
type volume struct {
	head     [volSize]byte
	maps     [mapsOfEach][]byte // the second counts only while the volume migrates
	geometry raid.Geometry
	fresh    bool // it was never in sync
}

// disk is a device of the container, or a spare of any.
type disk struct {
	serial  Serial
	index   int // in the table; -1 if it is not there
	size    raid.Sectors
	entry   [diskSize]byte
	spare   []byte // the record that a spare has, in its block
	lost    bool   // it has failed for an array
	version uint64 // of what is in front of the record's first block
}

// newContainer returns the container that r is of.
func newContainer(r *Raw) *container {
	c := &container{block: r.block, uuid: r.container(), rest: bytes.Clone(r.rest)}
	copy(c.head[:], r.mpb)

	for i := range r.Disks {
		c.table = append(c.table, entry{raw: [diskSize]byte(r.mpb[headSize+i*diskSize:])})
	}

	for i := range r.Volumes {
		c.volumes = append(c.volumes, newVolume(r, &r.Volumes[i]))
	}

	for _, b := range r.BadBlocks {
		c.log = append(c.log, run{int(b.Disk), raid.Sectors(b.Start), raid.Sectors(b.Length)})
	}

	c.found = len(c.log)
	c.reserve()

	// Until the first record it is not known what is on disks.
	c.version = 1

	return c
}

func newVolume(r *Raw, found *Volume) *volume {
	v := &volume{head: [volSize]byte(r.mpb[found.at:])}
	size := mapSize + 4*int(found.Maps[0].Members)
	v.maps[0] = bytes.Clone(r.mpb[found.at+volSize:][:size])
	v.maps[1] = make([]byte, size)

	if len(found.Maps) > 1 {
		last := mapSize + 4*int(found.Maps[1].Members)
		v.maps[1] = bytes.Clone(r.mpb[found.at+volSize+size:][:last])
	}

	// Of those that run both are known.
	v.geometry, _ = found.Maps[0].shape()

	if v.geometry.Level < levelUnknown {
		v.geometry.Size, _ = found.size(v.geometry)
	} else {
		v.geometry.Size = raid.Sectors(min(found.Maps[0].Blocks, 1<<54))
	}

	v.fresh = found.current().State == stateUninitialized

	return v
}

// reserve makes room for all that the record can hold, so that none has to be
// made when it is written.
func (c *container) reserve() {
	size := headSize + disksMax*diskSize + len(c.rest) + logHead + logMax*logEntry
	for _, v := range c.volumes {
		size += volSize + mapsOfEach*len(v.maps[0]) + len(v.maps[1])
	}

	size = recordBlocks(size, c.block) * c.block
	c.mpb, c.image = make([]byte, size), make([]byte, size)
	c.table = append(make([]entry, 0, disksMax), c.table...)
	c.log = append(make([]run, 0, logMax), c.log...)
}

func (c *container) get(at int) uint32    { return order.Uint32(c.head[at:]) }
func (c *container) set(at int, n uint32) { order.PutUint32(c.head[at:], n) }

// sectors returns how many sectors a block has.
func (c *container) sectors() raid.Sectors { return raid.Sectors(c.block / raid.SectorSize) }

// array returns the UUID of a volume.
func (c *container) array(index int) raid.UUID {
	family := c.head[offOrigFamily:][:4]
	if c.get(offOrigFamily) == 0 {
		family = c.head[offFamily:][:4]
	}

	return uuidOf(family, order.AppendUint32(nil, uint32(index)), c.volumes[index].head[:nameSize])
}

func (e *entry) status() uint32     { return order.Uint32(e.raw[offStatus:]) }
func (e *entry) setStatus(s uint32) { order.PutUint32(e.raw[offStatus:], s) }
func (e *entry) works() bool        { return e.status()&diskFailed == 0 }

// find returns the place of a disk that works, or -1.
func (c *container) find(serial Serial) int {
	for i := range c.table {
		if c.table[i].works() && Serial(c.table[i].raw[:]).same(serial) {
			return i
		}
	}

	return -1
}

// attached returns the disk with a serial that a running array has, or nil.
func (c *container) attached(serial Serial) *disk {
	for _, k := range c.keepers {
		for _, m := range k.members {
			if m != nil && !m.disk.lost && m.disk.serial.same(serial) {
				return m.disk
			}
		}
	}

	return nil
}

// newDisk returns the disk that src is.
func (c *container) newDisk(src metadata.Source) *disk {
	d := &disk{serial: SerialOf(src.Serial), size: src.Size}
	d.index = c.find(d.serial)

	if d.index >= 0 {
		d.entry = c.table[d.index].raw
	} else {
		copy(d.entry[:], d.serial[:])
		putWide(d.entry[offTotal:], d.entry[offTotalHigh:], uint64(src.Size/c.sectors()))
		order.PutUint32(d.entry[offStatus:], diskSpare)
	}

	d.spare = spareRecord(d.entry, c.block)

	return d
}

// putWide puts a number into its two words.
func putWide(low, high []byte, n uint64) {
	order.PutUint32(low, uint32(n))
	order.PutUint32(high, uint32(n>>32))
}

// spareRecord returns the block that a disk has that is in no container.
func spareRecord(e [diskSize]byte, block int) []byte {
	buf := make([]byte, block)
	copy(buf, signature+newestVersion)
	order.PutUint32(buf[offSize:], headSize+diskSize)
	order.PutUint32(buf[offGeneration:], 1)
	order.PutUint32(buf[offCycles:], 1)
	buf[offDiskCount] = 1
	order.PutUint32(e[offStatus:], diskSpare)
	copy(buf[headSize:], e[:])

	if order.Uint32(e[offTotalHigh:]) != 0 {
		order.PutUint32(buf[offAttributes:], attrBigDisks)
	}

	record := buf[:headSize+diskSize]
	order.PutUint32(buf[offFamily:], sum(record))
	order.PutUint32(buf[offSum:], sum(record))

	return buf
}

// newestVersion is what mdadm says, whatever a record holds.
const newestVersion = "1.3.00"

// ord returns what is in a slot of a map: -1 if no disk ever was.
func (c *container) ord(m []byte, slot int) (index int, rebuild bool) {
	ord := order.Uint32(m[mapSize+4*slot:])

	index = int(ord & ordIndex)
	if index >= len(c.table) {
		index = -1
	}

	return index, ord&ordRebuild != 0
}

func putOrd(m []byte, slot, index int, rebuild bool) {
	ord := uint32(index) & ordIndex
	if rebuild {
		ord |= ordRebuild
	}

	order.PutUint32(m[mapSize+4*slot:], ord)
}

func (v *volume) migrates() bool { return v.head[offMigrating] != 0 }

// fail has the record say that a disk has failed, which it then has for all
// volumes. gone says that it is not there at all.
func (c *container) fail(index int, gone bool) {
	e := &c.table[index]
	if gone {
		order.PutUint32(e.raw[offSCSI:], ^uint32(0))
	}

	if e.works() {
		// No disk has such a serial: when this one is seen again it is another.
		text := append(append(make([]byte, 0, serialSize+2), cut(e.raw[:serialSize])...), ":0"...)
		text = text[max(0, len(text)-serialSize+1):]
		clear(e.raw[:serialSize])
		copy(e.raw[:], text)
		e.setStatus(e.status()&^diskSpare | diskFailed)
		e.failed = c.get(offGeneration)
	}

	c.clearLog(index, 0, raid.MaxSectors)

	for _, k := range c.keepers {
		for _, m := range k.members {
			if m != nil && m.disk.index == index {
				m.disk.index = -1
			}
		}
	}

	for _, v := range c.volumes {
		for slot := range v.geometry.Disks {
			c.failSlot(v, slot, index)
		}
	}
}

// failSlot notes in a volume that the disk in a slot has failed, if it is index.
func (c *container) failSlot(v *volume, slot, index int) {
	if i, rebuild := c.ord(v.maps[0], slot); i != index || rebuild {
		return
	}

	putOrd(v.maps[0], slot, index, true)
	v.maps[0][offFailedSlot] = min(v.maps[0][offFailedSlot], uint8(slot))
	v.maps[0][offState] = c.state(v, v.maps[0])

	if !v.migrates() {
		return
	}

	if i, _ := c.ord(v.maps[1], slot); i == index {
		putOrd(v.maps[1], slot, index, true)
		v.maps[1][offState] = c.state(v, v.maps[1])
	}
}

// state returns what mdadm calls a volume with a map.
func (c *container) state(v *volume, m []byte) uint8 {
	works, missing := func(slot raid.Slot) bool {
		i, rebuild := c.ord(m, int(slot))

		return i >= 0 && !rebuild && c.table[i].works()
	}, 0

	for slot := range v.geometry.Disks {
		if !works(raid.Slot(slot)) {
			missing++
		}
	}

	switch {
	case missing > 0 && !v.geometry.Survives(works):
		return stateFailed
	case missing > 0:
		return stateDegraded
	case v.fresh:
		return stateUninitialized
	default:
		return stateNormal
	}
}

// used reports whether any volume has an entry of the table in a slot, but for
// the one given.
func (c *container) used(index int, but *volume, butSlot int) bool {
	for _, v := range c.volumes {
		for slot := range v.geometry.Disks {
			if i, _ := c.ord(v.maps[0], slot); i == index && (v != but || slot != butSlot) {
				return true
			}
		}
	}

	return false
}

// vacancy returns the place in the table for a disk that gets a slot, or -1. It is
// that of one that has failed, if some record has said so before: a disk that was
// left behind by a crash would else take the place of the new one for its own.
func (c *container) vacancy(v *volume, slot int) int {
	free := func(i int) bool {
		e := &c.table[i]

		return !e.works() && (e.failed == 0 || e.failed != c.get(offGeneration)) && !c.used(i, v, slot)
	}

	if was, _ := c.ord(v.maps[0], slot); was >= 0 && free(was) {
		return was
	}

	for i := range c.table {
		if free(i) {
			return i
		}
	}

	if len(c.table) == disksMax {
		return -1
	}

	c.table = append(c.table, entry{})

	return len(c.table) - 1
}

// enlist gives a disk a place in the table, if it has none. mdadm counts on a
// family that is another than before.
func (c *container) enlist(d *disk, v *volume, slot int) bool {
	if d.index >= 0 {
		e := &c.table[d.index]
		e.setStatus(e.status()&^(diskSpare|diskFailed) | diskConfigured)

		return true
	}

	index := c.vacancy(v, slot)
	if index < 0 {
		return false
	}

	if order.Uint32(d.entry[offTotalHigh:]) != 0 {
		c.setWide()
	}

	c.table[index] = entry{raw: d.entry}
	c.table[index].setStatus(diskConfigured)
	d.index = index

	if c.get(offGeneration) > 1 {
		c.set(offFamily, c.get(offFamily)+(crc32.ChecksumIEEE(d.serial[:])^c.get(offGeneration)|1))
	}

	return true
}

// setWide has the high words of numbers count, which may hold anything up to then.
func (c *container) setWide() {
	if c.get(offAttributes)&attrBigDisks != 0 {
		return
	}

	c.set(offAttributes, c.get(offAttributes)|attrBigDisks)

	for i := range c.table {
		order.PutUint32(c.table[i].raw[offTotalHigh:], 0)
	}

	for _, v := range c.volumes {
		for _, m := range v.maps {
			clear(m[offStartHigh : offStripesHigh+4])
		}
	}
}

// clearLog drops what the log says of a part of a disk.
func (c *container) clearLog(index int, from, to raid.Sectors) {
	kept := c.log[:0]

	for _, r := range c.log {
		if r.disk != index || r.from >= to || r.from+r.length <= from {
			kept = append(kept, r)
		}
	}

	c.log = kept
}

// addLog notes bad sectors of a disk. Returns false if there is no room.
func (c *container) addLog(index int, from, to raid.Sectors) bool {
	from -= from % c.sectors()
	to += (c.sectors() - to%c.sectors()) % c.sectors()

	for from < to {
		if len(c.log) == logMax {
			return false
		}

		length := min(to-from, logRunMax*c.sectors())
		c.log = append(c.log, run{index, from, length})
		from += length
	}

	return true
}

// build puts the record together, and what a disk has of it: its first block last.
func (c *container) build() {
	mpb := append(c.mpb[:0], c.head[:]...)
	for i := range c.table {
		mpb = append(mpb, c.table[i].raw[:]...)
	}

	for _, v := range c.volumes {
		mpb = append(append(mpb, v.head[:]...), v.maps[0]...)
		if v.migrates() {
			mpb = append(mpb, v.maps[1]...)
		}
	}

	mpb = append(mpb, c.rest...)
	size := len(mpb)
	attributes := c.get(offAttributes) &^ attrBadBlocks

	if len(c.log) > 0 {
		attributes |= attrBadBlocks
		mpb = c.appendLog(mpb)
	}

	order.PutUint32(mpb[offAttributes:], attributes)
	order.PutUint32(mpb[offLogSize:], uint32(len(mpb)-size))
	order.PutUint32(mpb[offSize:], uint32(len(mpb)))
	mpb[offDiskCount], mpb[offVolCount] = uint8(len(c.table)), uint8(len(c.volumes))
	putMark(mpb, len(mpb) > c.block || slices.ContainsFunc(c.volumes, (*volume).migrates))
	order.PutUint32(mpb[offSum:], sum(mpb))

	whole := recordBlocks(len(mpb), c.block) * c.block
	tail := c.mpb[len(mpb):whole]
	clear(tail)

	c.mpb = c.mpb[:cap(c.mpb)]
	extension := whole - c.block

	if extension != c.extension || !bytes.Equal(c.image[:extension], c.mpb[c.block:whole]) {
		c.version++
	}

	c.extension = extension
	copy(c.image, c.mpb[c.block:whole])
	copy(c.image[extension:], c.mpb[:c.block])
}

// appendLog appends the log of bad blocks.
func (c *container) appendLog(mpb []byte) []byte {
	mpb = order.AppendUint32(order.AppendUint32(mpb, logMagic), uint32(len(c.log)))

	for _, r := range c.log {
		start := uint64(r.from / c.sectors())
		mpb = append(mpb, uint8(r.length/c.sectors()-1), uint8(r.disk))
		mpb = order.AppendUint16(mpb, uint16(start))
		mpb = order.AppendUint32(mpb, uint32(start>>16))
	}

	return mpb
}

// check verifies that a disk can be one of the container.
func (c *container) check(src metadata.Source) error {
	switch {
	case blockOf(src) != c.block:
		return fmt.Errorf("a disk with blocks of %d bytes among those with %d", blockOf(src), c.block)
	case SerialOf(src.Serial) == Serial{}:
		return errNoSerial
	default:
		return nil
	}
}
