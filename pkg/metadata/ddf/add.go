package ddf

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// Add implements [metadata.Keeper].
func (k *keeper) Add(
	src metadata.Source, device raid.UUID,
) (id metadata.MemberID, offset, size raid.Sectors, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()

	if !k.geometry.Level.HasRedundancy() {
		return 0, 0, 0, fmt.Errorf("ddf: %v has no use for a spare", k.geometry.Level)
	}

	// Whoever adds a device to several arrays gives it the same UUID.
	guid := guidOf(device)

	d := k.known(guid)
	if d == nil {
		d = k.spare(src, guid)
	}

	if d == nil {
		if d, err = k.addDisk(src, guid); err != nil {
			return 0, 0, 0, fmt.Errorf("ddf: %w", err)
		}
	}

	free, ok := k.free(d, k.geometry.Size)
	if !ok {
		if d.anchor != nil && k.attached(d.refnum) == nil {
			k.drop(d)
		}

		return 0, 0, 0, fmt.Errorf("ddf: %d sectors are too few: the array uses %d of each member in one piece",
			src.Size, k.geometry.Size)
	}

	k.members = append(k.members, &member{disk: d, offset: free.From})

	return metadata.MemberID(len(k.members) - 1), free.From, free.To - free.From, nil
}

// guidOf returns the GUID that a disk gets.
func guidOf(device raid.UUID) GUID {
	return GUID(append(append(make([]byte, 0, guidSize), vendorMD...), device[:]...))
}

// addDisk makes src a disk of the container: the first Record writes it.
func (c *container) addDisk(src metadata.Source, guid GUID) (*disk, error) {
	block := raid.Sectors(blockOf(src) / raid.SectorSize)
	if c.like.areas[0].start%block != 0 || src.Size%block != 0 {
		return nil, fmt.Errorf("%d sectors in blocks of %d bytes", src.Size, blockOf(src))
	}

	places, room, err := c.lay(src)
	if err != nil {
		return nil, err
	}

	index := c.vacancy()
	if index < 0 {
		return nil, fmt.Errorf("all of %d entries for disks are taken", c.form.order.Uint16(c.physical[offMax:]))
	}

	d := &disk{given: guid, refnum: c.newRefnum(guid), index: index, size: src.Size, room: room, anchorAt: src.Size - 1}

	for i, like := range c.like.areas {
		a := like.model(places[i], blockOf(src))
		head := bytes.Clone(like.head())
		c.putPlaces(head, places, like.kind)
		c.form.order.PutUint32(head[offSeq:], 0)
		c.form.seal(head)
		copy(a.head(), head)
		c.putDisk(a.disk(), guid, d.refnum)
		d.areas = append(d.areas, a)
	}

	if d.erase, d.anchor, err = c.anchorFor(src, places); err != nil {
		return nil, err
	}

	e := c.entry(index)
	if unset(e) {
		c.form.order.PutUint16(c.physical[offUsed:], c.form.order.Uint16(c.physical[offUsed:])+1)
	}

	copy(e, guid[:])
	c.form.order.PutUint32(e[offRefnum:], d.refnum)
	c.form.order.PutUint16(e[offPDType:], pdForced|pdGlobalSpare)
	c.form.order.PutUint16(e[offPDState:], pdOnline)
	c.form.order.PutUint64(e[offRoom:], uint64(room))
	copy(e[offPath:], " Information: nil\x00")

	return d, nil
}

// spare returns the disk that src is in the container if it is a spare of it, as
// itself and the container say; or nil. One that an array has is another: a copy.
func (c *container) spare(src metadata.Source, given GUID) *disk {
	r, err := load(src)
	if err != nil || r.Header.GUID != c.guid {
		return nil
	}

	index := c.find(r.Refnum)
	if index < 0 || c.attached(r.Refnum) != nil {
		return nil
	}

	if state := c.form.order.Uint16(c.entry(index)[offPDState:]); state&(pdFailed|pdMissing|pdOnline) != pdOnline {
		return nil
	}

	sb, err := r.superblock(src)
	if err != nil || !sb.Array.IsZero() || sb.Unsupported != "" {
		return nil
	}

	d, err := c.newDisk(r, src)
	if err != nil {
		return nil // it is made one anew
	}

	d.given = given

	return d
}

// known returns the disk that a running array was given by a GUID, or nil.
func (c *container) known(given GUID) *disk {
	for _, k := range c.keepers {
		for _, m := range k.members {
			if m != nil && m.disk.given == given {
				return m.disk
			}
		}
	}

	return nil
}

// drop undoes addDisk.
func (c *container) drop(d *disk) {
	e := c.entry(d.index)
	for i := range e {
		e[i] = 0xff
	}

	c.form.order.PutUint16(c.physical[offUsed:], c.form.order.Uint16(c.physical[offUsed:])-1)
}

// lay returns where the copies on src are, in the order of those on the disk that
// it is modelled on: as far from the end as there; and how much room is in front.
func (c *container) lay(src metadata.Source) ([]raid.Sectors, raid.Sectors, error) {
	var places []raid.Sectors

	room := src.Size

	for _, a := range c.like.areas {
		at := src.Size - (c.like.size - a.at)
		if at < 1 {
			return nil, 0, fmt.Errorf("%d sectors are too few: the metadata takes %d", src.Size, c.like.size-a.at)
		}

		places = append(places, at)
		room = min(room, at)
	}

	// Firmware makes other things of the field as well.
	work := src.Size - (c.like.size - sectorsOf(c.header.WorkspaceLBA))
	if c.header.WorkspaceLBA < uint64(c.like.size) && work < room {
		room = max(work, 0)
	}

	return places, room, nil
}

// model returns a copy like a, at another place and with nothing in it but for
// what its controller says.
func (a *area) model(at raid.Sectors, block int) *area {
	b := *a
	sectors := raid.Sectors(block / raid.SectorSize)
	b.at, b.start, b.block = at, at/sectors*sectors, block

	end := (at + a.end() - a.at + sectors - 1) / sectors * sectors
	b.image = make([]byte, (end - b.start).Bytes())
	b.dirty = make([]bool, len(b.image)/block)
	b.open, b.first = make([]byte, block), make([]byte, 0, block)

	for i := range b.dirty {
		b.dirty[i] = true
	}

	copy(b.section(a.header.Controller), a.section(a.header.Controller))

	config := b.section(a.header.Config)
	for i := range config {
		config[i] = 0xff
	}

	return &b
}

// putPlaces puts where things are on a disk into a header.
func (c *container) putPlaces(head []byte, places []raid.Sectors, kind byte) {
	head[offType] = kind

	for i, a := range c.like.areas {
		at := offPrimaryLBA
		if a.kind == typeSecondary {
			at = offSecondaryLBA
		}

		c.form.order.PutUint64(head[at:], uint64(places[i]))
	}

	if c.header.WorkspaceLBA < uint64(c.like.size) {
		moved := places[0] - c.like.areas[0].at + sectorsOf(c.header.WorkspaceLBA)
		c.form.order.PutUint64(head[offWorkspaceLBA:], uint64(max(moved, 0)))
	}
}

// anchorFor returns what erases the anchors that src has, and the block of it that
// is to hold its own.
func (c *container) anchorFor(src metadata.Source, places []raid.Sectors) ([]metadata.Write, []byte, error) {
	var erase []metadata.Write

	for _, before := range anchorPlaces {
		if w, ok, err := eraseAt(src, src.Size-before); err != nil {
			return nil, nil, err
		} else if ok {
			erase = append(erase, w)
		}
	}

	block, start, err := read(src, src.Size-1, src.Size)
	if err != nil {
		return nil, nil, err
	}

	head := block[(src.Size - 1 - start).Bytes():]
	copy(head, c.like.areas[0].head())
	c.putPlaces(head, places, typeAnchor)
	head[offOpen] = 0xff
	c.form.order.PutUint32(head[offSeq:], none32)
	c.form.seal(head)

	return erase, block, nil
}

// putDisk makes the record of a disk.
func (c *container) putDisk(record []byte, guid GUID, refnum uint32) {
	for i := range record {
		record[i] = 0xff
	}

	c.form.order.PutUint32(record, magicDisk)
	copy(record[offGUID:], guid[:])
	c.form.order.PutUint32(record[offDiskRefnum:], refnum)
	record[36], record[37] = 1, 1 // both were made up
	copy(record[38:], fmt.Sprintf("%-32s", "Linux"))
	c.form.seal(record)
}

// vacancy returns the index of an entry that no disk has: at last one of a disk
// that is gone.
func (c *container) vacancy() int {
	count := int(c.form.order.Uint16(c.physical[offMax:]))

	for i := range count {
		if unset(c.entry(i)) {
			return i
		}
	}

	for i := range count {
		e := c.entry(i)
		if c.form.order.Uint16(e[offPDState:])&pdMissing != 0 && c.attached(c.form.order.Uint32(e[offRefnum:])) == nil {
			return i
		}
	}

	return -1
}

// newRefnum returns a refnum for a disk that no other has.
func (c *container) newRefnum(guid GUID) uint32 {
	sum := sha1.Sum(guid[:])

	refnum := binary.BigEndian.Uint32(sum[:])
	for refnum == 0 || refnum == none32 || c.find(refnum) >= 0 {
		refnum++
	}

	return refnum
}

// eraseAt returns the write that erases what begins as a header does at a sector
// of src, or false if nothing does.
func eraseAt(src metadata.Source, at raid.Sectors) (metadata.Write, bool, error) {
	if at < 0 || at >= src.Size {
		return metadata.Write{}, false, nil
	}

	data, start, err := read(src, at, at+1)
	if errors.Is(err, metadata.ErrCorrupt) {
		return metadata.Write{}, false, nil
	}

	if err != nil {
		return metadata.Write{}, false, err
	}

	sector := data[(at - start).Bytes():][:raid.SectorSize]
	if !hasAnchor(sector) {
		return metadata.Write{}, false, nil
	}

	clear(sector)

	return metadata.Write{Sector: start, Data: data}, true, nil
}

// Erase implements [metadata.Format]: the anchors and the headers.
func (Format) Erase(src metadata.Source) ([]metadata.Write, error) {
	var places []raid.Sectors

	for _, before := range anchorPlaces {
		at := src.Size - before
		if at < 0 {
			continue
		}

		data, start, err := read(src, at, at+1)
		if errors.Is(err, metadata.ErrCorrupt) {
			continue
		}

		if err != nil {
			return nil, fmt.Errorf("ddf: %w", err)
		}

		places = append(places, at)

		if anchor, _, err := decodeHeader(data[(at - start).Bytes():]); err == nil {
			for _, kind := range []byte{typePrimary, typeSecondary} {
				if place, ok := anchor.place(kind); ok {
					places = append(places, place)
				}
			}
		}
	}

	var writes []metadata.Write

	for _, at := range places {
		if w, ok, err := eraseAt(src, at); err != nil {
			return nil, fmt.Errorf("ddf: %w", err)
		} else if ok {
			writes = append(writes, w)
		}
	}

	return writes, nil
}
