package ddf

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// container is what the running arrays of one container have in common.
//
// Invariants:
//   - Every disk that a keeper has attached has an entry in physical, at its index.
//   - A disk that several keepers have attached is one disk.
type container struct {
	mu       sync.Mutex
	form     form
	header   Header // of any disk: its places are that disk's own
	guid     GUID
	seq      uint32
	physical []byte // the section
	virtual  []byte // the section
	like     *disk  // on which others are modelled
	keepers  []*keeper

	head [raid.SectorSize]byte // reused by every Record
}

// disk is a device of the container.
type disk struct {
	given    GUID // that it was added by, if it was
	refnum   uint32
	index    int
	size     raid.Sectors
	room     raid.Sectors // in front of the metadata
	areas    []*area      // in the order in which they are written
	anchorAt raid.Sectors

	// Of a new disk, until it was written.
	erase  []metadata.Write // of the anchors that it had, before all else
	anchor []byte           // the block of its own, at last; nil of any other disk
}

// newContainer returns the container that r is of.
func newContainer(r *Raw) *container {
	return &container{
		form: r.form, header: r.Header, guid: r.Header.GUID, seq: r.Header.Seq,
		physical: bytes.Clone(r.active.section(r.Header.Physical)),
		virtual:  bytes.Clone(r.active.section(r.Header.Virtual)),
	}
}

// newDisk returns the disk that r was read from.
func (c *container) newDisk(r *Raw, src metadata.Source) (*disk, error) {
	d := &disk{refnum: r.Refnum, size: src.Size, anchorAt: r.anchorAt, room: r.lowest()}

	if d.index = c.find(r.Refnum); d.index < 0 {
		return nil, fmt.Errorf("refnum %08x is none of the container's", r.Refnum)
	}

	h := r.Header
	if h.GUID != c.guid || h.sections() != c.header.sections() || r.form != c.form ||
		h.ConfigRecordLength != c.header.ConfigRecordLength || h.elements() != c.header.elements() {
		return nil, errors.New("a container of another layout")
	}

	active := r.active.clone()

	for i, kind := range []byte{typePrimary, typeSecondary} {
		at, ok := r.Anchor.place(kind)

		switch {
		case !ok:
		case kind == active.kind:
			d.areas = append(d.areas, active)
		default:
			var other *area
			if r.copies[i] != nil {
				other = r.copies[i].clone()
			}

			d.areas = append(d.areas, active.counterpart(other, kind, at))
		}
	}

	// What does not count comes first: there is always one that is whole.
	if len(d.areas) == 2 && active == d.areas[0] && slices.Contains(d.areas[1].dirty, true) {
		slices.Reverse(d.areas)
	}

	return d, nil
}

func (a *area) clone() *area {
	b := *a
	b.image = bytes.Clone(a.image)
	b.dirty = make([]bool, len(b.image)/b.block)
	b.open, b.first = make([]byte, b.block), make([]byte, 0, b.block)

	return &b
}

// counterpart returns the other copy on a disk, of which have is on disk if it is
// whole, with the content of a. What is in between its sections stays.
func (a *area) counterpart(have *area, kind byte, at raid.Sectors) *area {
	if have == nil || have.header.sections() != a.header.sections() || len(have.image) != len(a.image) {
		have = a.clone()
		have.kind, have.at, have.start = kind, at, at-(a.at-a.start)

		for i := range have.dirty {
			have.dirty[i] = true
		}
	}

	for _, s := range a.header.sections() {
		have.put(have.offset(s), a.section(s))
	}

	head := bytes.Clone(a.head())
	head[offType] = kind
	a.form.seal(head)
	have.put(have.offset(Section{}), head)

	return have
}

// entry returns an entry of the physical section.
func (c *container) entry(index int) []byte {
	return c.physical[headSize+index*entrySize:][:entrySize]
}

// find returns the index of the disk with a refnum, or -1.
func (c *container) find(refnum uint32) int {
	for i := range int(c.form.order.Uint16(c.physical[offMax:])) {
		if c.form.order.Uint32(c.entry(i)[offRefnum:]) == refnum && !unset(c.entry(i)) {
			return i
		}
	}

	return -1
}

// array returns the entry of an array in the virtual section, or nil.
func (c *container) array(guid GUID) []byte {
	for i := range int(c.form.order.Uint16(c.virtual[offMax:])) {
		if e := c.virtual[headSize+i*entrySize:][:entrySize]; GUID(e) == guid {
			return e
		}
	}

	return nil
}

// attached returns the disk with a refnum that a running array has, or nil.
func (c *container) attached(refnum uint32) *disk {
	for _, k := range c.keepers {
		for _, m := range k.members {
			if m != nil && m.disk.refnum == refnum {
				return m.disk
			}
		}
	}

	return nil
}

// opinion is what the running arrays say of a disk.
type opinion struct{ works, failed, filled bool }

// opinionOf returns what all running arrays say of a disk.
func (c *container) opinionOf(d *disk) opinion {
	var o opinion

	for _, k := range c.keepers {
		for _, m := range k.members {
			if m != nil && m.disk == d {
				o.works = o.works || m.works
				o.failed = o.failed || m.failed
				o.filled = o.filled || m.filled
			}
		}
	}

	return o
}

// describe has the physical section say what the running arrays do of a disk.
// member says whether it is one of any array.
func (c *container) describe(d *disk, member bool) {
	e := c.entry(d.index)
	kind, state := c.form.order.Uint16(e[offPDType:]), c.form.order.Uint16(e[offPDState:])

	switch o := c.opinionOf(d); {
	case o.failed:
		state = state&^pdRebuilding | pdFailed
	case o.works:
		state = state&^(pdFailed|pdMissing|pdTransition|pdRebuilding) | pdOnline
		if o.filled {
			state |= pdRebuilding
		}
	}

	switch {
	case member:
		kind = kind&^(pdSpare|pdGlobalSpare) | pdActive
	case kind&pdSpare != 0:
		kind &^= pdActive
	default:
		kind = kind&^pdActive | pdGlobalSpare
	}

	c.form.order.PutUint16(e[offPDType:], kind)
	c.form.order.PutUint16(e[offPDState:], state)
}

// lost has the physical section say that the disk with a refnum is gone, unless
// a running array has it.
func (c *container) lost(refnum uint32) {
	index := c.find(refnum)
	if d := c.attached(refnum); index < 0 || d != nil && c.opinionOf(d).works {
		return
	}

	e := c.entry(index)
	state := c.form.order.Uint16(e[offPDState:])
	c.form.order.PutUint16(e[offPDState:], state&^(pdOnline|pdRebuilding)|pdFailed|pdMissing)
}

// holds reports whether an array other than that with the GUID given has a
// record on d that d is a member by.
func (c *container) holds(d *disk, but GUID) bool {
	for _, record := range d.areas[0].configs() {
		if GUID(record[offGUID:]) != but && c.names(record, d.refnum) >= 0 {
			return true
		}
	}

	return false
}

// names returns at which place a record has a refnum, or -1.
func (c *container) names(record []byte, refnum uint32) int {
	for i := range c.header.elements() {
		if c.form.order.Uint32(record[offRefnums+4*i:]) == refnum {
			return i
		}
	}

	return -1
}

// taken returns the part of d that an array of a record has.
func (c *container) taken(record []byte, d *disk) (raid.Range, bool) {
	i := c.names(record, d.refnum)
	if i < 0 || c.array(GUID(record[offGUID:])) == nil {
		return raid.Range{}, false
	}

	from := sectorsOf(c.form.order.Uint64(record[offRefnums+4*c.header.elements()+8*i:]))

	return raid.Range{From: from, To: from + sectorsOf(c.form.order.Uint64(record[offBlocks:]))}, true
}

// claims returns the parts of d that arrays other than k's have, or will have where
// d is their spare, ascending.
func (k *keeper) claims(d *disk) []raid.Range {
	var all []raid.Range

	for _, record := range d.areas[0].configs() {
		if r, ok := k.taken(record, d); ok && GUID(record[offGUID:]) != k.guid {
			all = append(all, r)
		}
	}

	for _, other := range k.keepers {
		for _, m := range other.members {
			if other != k && m != nil && m.disk == d {
				all = append(all, raid.Range{From: m.offset, To: m.offset + other.geometry.Size})
			}
		}
	}

	slices.SortFunc(all, func(a, b raid.Range) int { return int(a.From - b.From) })

	return all
}

// free returns the first part of d of size sectors or more that no other array has,
// up to where one begins or the metadata does; or false if there is none.
func (k *keeper) free(d *disk, size raid.Sectors) (raid.Range, bool) {
	at := raid.Sectors(0)

	for _, r := range append(k.claims(d), raid.Range{From: d.room, To: raid.MaxSectors}) {
		if r.From-at >= size && at < r.From {
			return raid.Range{From: at, To: r.From}, true
		}

		at = max(at, r.To)
	}

	return raid.Range{}, false
}

// place returns where on d the record of an array is, or is to be: -1 if there
// is no room for it.
func (c *container) place(d *disk, guid GUID) int {
	vacant := -1

	// The last is for the record of a spare.
	for i := range d.areas[0].header.records() {
		record := d.areas[0].record(i)

		switch c.form.order.Uint32(record) {
		case magicConfig:
			if GUID(record[offGUID:]) == guid {
				return i
			}
		case none32:
			if vacant < 0 && i < int(c.header.MaxPartitions) {
				vacant = i
			}
		}
	}

	return vacant
}
