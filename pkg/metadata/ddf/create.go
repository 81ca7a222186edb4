package ddf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// Versions implements [metadata.Format].
func (Format) Versions() []string { return []string{version} }

// What mdadm makes of a new container, in sectors and entries.
const (
	newPrimary   raid.Sectors = 16 << 11 // before the end
	newSecondary raid.Sectors = 32 << 11
	usualChunk   raid.Sectors = 1024
)

// tables is how many entries the tables of a new container have: disks, arrays,
// arrays on a disk, and members of an array.
type tables struct{ disks, arrays, partitions, elements int }

// usualTables are mdadm's.
var usualTables = tables{1023, 255, 64, 256}

// Create implements [metadata.Format].
func (Format) Create(p metadata.NewArray, devices []metadata.NewMember) (raid.UUID, [][]metadata.Write, error) {
	return create(p, usualTables, devices)
}

// create is Create with the tables given, if the container is new.
func create(p metadata.NewArray, t tables, devices []metadata.NewMember) (raid.UUID, [][]metadata.Write, error) {
	k, err := newArray(p, t, devices)
	if err != nil {
		return raid.UUID{}, nil, fmt.Errorf("ddf: %w", err)
	}

	stages := k.Record(p.State(len(k.members), func(i int) bool { return k.members[i] != nil }))

	// What LSI's firmware wrote has another identity.
	controller := k.like.areas[0].section(k.header.Controller)
	raw := &Raw{Header: k.header, Controller: GUID(controller[offGUID:]), form: k.form}
	entry := k.array(k.guid)
	index := (cap(k.virtual) - cap(entry) - headSize) / entrySize

	return raw.arrayUUID(&VirtualDisk{GUID: k.guid, Index: index}, entry[offName:offName+nameSize]), stages, nil
}

// check verifies what no device is needed to judge.
func check(p metadata.NewArray, devices []metadata.NewMember, slotsMax int) error {
	switch {
	case p.Version != version:
		return fmt.Errorf("no metadata version %q", p.Version)
	case p.Disks < 1 || p.Disks > slotsMax || len(devices) < p.Disks:
		return fmt.Errorf("%d slots of at most %d, and %d devices for them", p.Disks, slotsMax, len(devices))
	case len(devices) > p.Disks && !p.Level.HasRedundancy():
		return fmt.Errorf("%v has no use for a spare", p.Level)
	case p.Bitmap == metadata.BitmapInternal || p.PPL:
		return errors.New("the format has neither bitmaps nor partial parity logs")
	case p.Name == "" || len(p.Name) > nameSize || strings.ContainsAny(p.Name, " /\x00"):
		return fmt.Errorf("name %q: 1 to %d bytes, no space, slash or zero", p.Name, nameSize)
	}

	return checkSizes(p, devices)
}

// checkSizes verifies the chunk and the size, and what is asked of devices.
func checkSizes(p metadata.NewArray, devices []metadata.NewMember) error {
	const chunkMax = 1 << 20

	power := p.Chunk > 0 && p.Chunk <= chunkMax && bits.OnesCount64(uint64(p.Chunk)) == 1
	if p.Size < 0 || p.Level.HasChunks() && !power {
		return fmt.Errorf("chunk of %d, size of %d sectors: a chunk is a power of two, at most %d",
			p.Chunk, p.Size, chunkMax)
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
func newArray(p metadata.NewArray, t tables, devices []metadata.NewMember) (*keeper, error) {
	if p.UsualLayout {
		p.Layout = usualLayout(p.Level)
	}

	if p.Chunk == 0 && p.Level.HasChunks() {
		p.Chunk = usualChunk
	}

	if err := check(p, devices, t.elements); err != nil {
		return nil, err
	}

	words, err := arrange(p.Geometry)
	if err != nil {
		return nil, err
	}

	k := &keeper{geometry: p.Geometry, piece: createMax}
	if err := k.gather(p, t, devices); err != nil {
		return nil, err
	}

	k.keepers = append(k.keepers, k)

	if err := k.enter(p); err != nil {
		return nil, err
	}

	if err := k.room(p); err != nil {
		return nil, err
	}

	k.newRecord(p, words)

	return k, nil
}

// gather makes devices the members: those of a container, or of a new one.
func (k *keeper) gather(p metadata.NewArray, t tables, devices []metadata.NewMember) error {
	var raws []*Raw

	for i, d := range devices {
		if d.ReaderAt == nil {
			continue
		}

		r, err := load(d.Source)

		switch {
		case err == nil && len(raws) > 0 && raws[0].Header.GUID != r.Header.GUID:
			return fmt.Errorf("device %d is of another container", i)
		case err == nil:
			raws = append(raws, r)
		case !errors.Is(err, metadata.ErrNotFound) && !errors.Is(err, metadata.ErrCorrupt):
			return fmt.Errorf("device %d: %w", i, err)
		}
	}

	if len(raws) == 0 {
		return k.found(p, t, devices)
	}

	return k.join(raws, devices)
}

// join makes devices the members, on which raws were found, of one container.
func (k *keeper) join(raws []*Raw, devices []metadata.NewMember) error {
	best := slices.MaxFunc(raws, func(a, b *Raw) int { return int(a.Header.Seq) - int(b.Header.Seq) })
	k.container = newContainer(best)

	if len(raws) != len(devices) || len(raws) != len(best.PhysicalDisks) {
		return fmt.Errorf("%d of %d devices are of a container of %d: a further array needs all of those and no others",
			len(raws), len(devices), len(best.PhysicalDisks))
	}

	for i, r := range raws {
		d, err := k.newDisk(r, devices[i].Source)
		if err != nil {
			return fmt.Errorf("device %d: %w", i, err)
		}

		if p := r.physical(r.Refnum); p == nil || !p.working() || r.remapped() {
			return fmt.Errorf("device %d has failed in its container", i)
		}

		k.members = append(k.members, &member{disk: d})
	}

	k.like = k.members[0].disk

	return nil
}

// found makes a new container of devices.
func (k *keeper) found(p metadata.NewArray, t tables, devices []metadata.NewMember) error {
	k.container = emptyContainer(p, t)

	for i, d := range devices {
		if d.ReaderAt == nil {
			k.members = append(k.members, nil)

			continue
		}

		disk, err := k.addDisk(d.Source, guidOf(d.Device))
		if err != nil {
			return fmt.Errorf("device %d: %w", i, err)
		}

		k.members = append(k.members, &member{disk: disk})
	}

	return nil
}

// emptyContainer returns a container without disks, modelled on one that is not
// there.
func emptyContainer(p metadata.NewArray, t tables) *container {
	f := form{order: binary.BigEndian}
	record := 1 + (t.elements*12+raid.SectorSize-1)/raid.SectorSize
	lengths := []int{
		1, tableSectors(t.disks), tableSectors(t.arrays), record * (t.partitions + 1), 1,
	}

	head := bytes.Repeat([]byte{0xff}, raid.SectorSize)
	f.order.PutUint32(head, magicHeader)
	copy(head[offGUID:], newGUID(p, 0))
	copy(head[offRevision:], "01.02.00")
	f.order.PutUint32(head[offTimestamp:], diskTime(p.Now))
	copy(head[offOpen:], []byte{0, 0, 0})
	f.order.PutUint32(head[116:], uint32(newPrimary))

	// The disk on which all are modelled is as large as an empty one may be.
	const size = 2 * newSecondary

	f.order.PutUint64(head[offPrimaryLBA:], uint64(size-newPrimary))
	f.order.PutUint64(head[offSecondaryLBA:], uint64(size-newSecondary))
	f.order.PutUint64(head[offWorkspaceLBA:], uint64(size-newSecondary))

	for i, n := range []int{t.disks, t.arrays, t.partitions, record, t.elements} {
		f.order.PutUint16(head[offCounts+2*i:], uint16(n))
	}

	at := 1

	for i := range 8 {
		offset, length := none32, uint32(0)
		if i < len(lengths) {
			offset, length = uint32(at), uint32(lengths[i])
			at += lengths[i]
		}

		f.order.PutUint32(head[offSections+8*i:], offset)
		f.order.PutUint32(head[offSections+8*i+4:], length)
	}

	f.seal(head)

	h, _, err := decodeHeader(head)
	if err != nil {
		panic("ddf: " + err.Error())
	}

	d := &disk{size: size}

	for _, kind := range []byte{typePrimary, typeSecondary} {
		place, _ := h.place(kind)
		a := &area{kind: kind, at: place, start: place, block: raid.SectorSize, header: h, form: f}
		a.image = make([]byte, at*raid.SectorSize)
		copy(a.image, head)
		putController(f, a.section(h.Controller), p.Host)
		d.areas = append(d.areas, a)
	}

	return &container{
		form: f, header: *h, guid: h.GUID, like: d,
		physical: table(f, magicPhysical, t.disks), virtual: table(f, magicVirtual, t.arrays),
	}
}

func tableSectors(entries int) int {
	return (headSize + entries*entrySize + raid.SectorSize - 1) / raid.SectorSize
}

// table returns a section without any entries.
func table(f form, magic uint32, entries int) []byte {
	section := bytes.Repeat([]byte{0xff}, tableSectors(entries)*raid.SectorSize)
	f.order.PutUint32(section, magic)
	f.order.PutUint16(section[offUsed:], 0)
	f.order.PutUint16(section[offMax:], uint16(entries))

	return section
}

// newGUID returns one as mdadm makes them up: who did it, the time, and four
// bytes that chance gave to the array, from an offset.
func newGUID(p metadata.NewArray, from int) []byte {
	guid := append(make([]byte, 0, guidSize), vendorMD...)
	guid = append(guid, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0)
	guid = binary.BigEndian.AppendUint32(guid, diskTime(p.Now))

	return append(guid, p.Array[from:from+4]...)
}

// putController makes the record of the controller.
func putController(f form, record []byte, host string) {
	for i := range record {
		record[i] = 0xff
	}

	f.order.PutUint32(record, magicController)
	copy(record[offGUID:], fmt.Sprintf("%-24s", vendorMD))
	copy(record[32:], []byte{0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0})
	copy(record[40:], "raid-assembler  ")

	if host != "" && len(host) < 440 {
		copy(record[headSize:], host+"\x00")
	}

	f.seal(record)
}

// enter gives the array an entry among those of the container.
func (k *keeper) enter(p metadata.NewArray) error {
	k.guid = GUID(newGUID(p, 4))

	name := make([]byte, nameSize)
	copy(name, p.Name)

	var entry []byte

	for i := range int(k.form.order.Uint16(k.virtual[offMax:])) {
		e := k.virtual[headSize+i*entrySize:][:entrySize]

		switch {
		case !unset(e) && (bytes.Equal(e[offName:offName+nameSize], name) || GUID(e) == k.guid):
			return fmt.Errorf("the container has an array of the name %q", p.Name)
		case unset(e) && entry == nil:
			entry = e
			k.form.order.PutUint16(e[offUnit:], uint16(i))
		}
	}

	if entry == nil {
		return fmt.Errorf("all of %d entries for arrays are taken", k.form.order.Uint16(k.virtual[offMax:]))
	}

	raw := form{order: k.form.order}
	copy(entry, k.guid[:])
	binary.LittleEndian.PutUint16(entry[28:], uint16(raw.sumOf(k.header.GUID[:])))
	k.form.order.PutUint16(entry[30:], 0)
	copy(entry[offState:], []byte{0, 0})
	copy(entry[offName:], name)

	if !p.Level.HasRedundancy() {
		entry[offInit] = initFull
	}

	k.form.order.PutUint16(k.virtual[offUsed:], k.form.order.Uint16(k.virtual[offUsed:])+1)

	return nil
}

// room chooses the size of each member, and where it lies on each.
func (k *keeper) room(p metadata.NewArray) error {
	size := p.Size
	granule := max(p.Chunk, 1)

	if size == 0 {
		size = k.largest(granule)
	}

	if size < granule {
		return fmt.Errorf("no room for an array: the smallest device has %d sectors for it", k.largest(1))
	}

	slots := 0

	for i, m := range k.members {
		if m == nil {
			continue
		}

		free, ok := k.free(m.disk, size)

		switch {
		case i >= p.Disks:
		case !ok:
			return fmt.Errorf("%d sectors of each member, and the smallest has room for %d", size, k.largest(1))
		case k.place(m.disk, k.guid) < 0:
			return fmt.Errorf("device %d is a member of %d arrays already", i, k.header.MaxPartitions)
		default:
			m.offset = free.From
			slots++
		}
	}

	if slots == 0 {
		return errors.New("no device for any slot")
	}

	k.geometry.Size = size

	return nil
}

// largest returns the largest size, in multiples of granule, that is free on each
// member in one piece.
func (k *keeper) largest(granule raid.Sectors) raid.Sectors {
	low, high := raid.Sectors(0), raid.Sectors(1)<<50/granule

	for low < high {
		middle := (low + high + 1) / 2
		fits := true

		for _, m := range k.members[:min(k.geometry.Disks, len(k.members))] {
			if m != nil && fits {
				_, fits = k.free(m.disk, middle*granule)
			}
		}

		if fits {
			low = middle
		} else {
			high = middle - 1
		}
	}

	return low * granule
}

// newRecord makes the record of the array.
func (k *keeper) newRecord(p metadata.NewArray, words arrangement) {
	o := k.form.order
	k.record = bytes.Repeat([]byte{0xff}, k.header.recordSize())
	k.unused = bytes.Clone(k.record)

	o.PutUint32(k.record, magicConfig)
	copy(k.record[offGUID:], k.guid[:])
	o.PutUint16(k.record[offPrimaries:], uint16(p.Disks))

	if p.Chunk > 0 {
		k.record[offChunkShift] = uint8(bits.TrailingZeros64(uint64(p.Chunk)))
	}

	k.record[offPRL], k.record[offRLQ] = words.prl, words.rlq
	k.record[offSecondaries], k.record[offSecondarySeq], k.record[offSRL] = 1, 0, srlNone
	o.PutUint64(k.record[offBlocks:], uint64(k.geometry.Size))
	o.PutUint64(k.record[offArrayBlocks:], uint64(capacity(k.geometry, k.geometry.Size)))
	copy(k.record[128:], []byte{0, 0, 0, 0, 0, 0, 0, 0, 0x80}) // no cache, half of the time for the background

	elements := k.header.elements()
	clear(k.record[offRefnums+4*elements:][:8*elements])

	for slot := range p.Disks {
		o.PutUint32(k.record[offRefnums+4*slot:], 0)
		k.places = append(k.places, slot)
	}

	k.holders, k.keeps = make([]*member, p.Disks), make([]bool, p.Disks)
	k.survives = func(slot raid.Slot) bool { return k.holders[slot] != nil && !k.holders[slot].filled }
}
