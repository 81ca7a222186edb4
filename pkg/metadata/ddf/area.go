package ddf

import (
	"bytes"
	"errors"
	"fmt"
	"iter"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// area is one of the two copies on a disk, from its header to the end of its
// last section.
type area struct {
	kind   byte         // the type of its header
	at     raid.Sectors // where the header is
	start  raid.Sectors // of the block that the header is in, where image begins
	block  int          // the size of a block in bytes
	image  []byte       // whole blocks
	header *Header
	form   form

	dirty []bool // by block: it differs from what is on disk
	open  []byte // the block of the header while the rest is being written
	first []byte // the same with what else is new in it, if that is any
}

// read reads sectors of src, and what else is in their blocks.
func read(src metadata.Source, from, to raid.Sectors) (data []byte, start raid.Sectors, err error) {
	block := raid.Sectors(blockOf(src) / raid.SectorSize)
	start = from / block * block
	end := (to + block - 1) / block * block

	if from < 0 || end > src.Size {
		return nil, 0, fmt.Errorf("sectors %d to %d of %d: %w", from, to, src.Size, metadata.ErrCorrupt)
	}

	data = make([]byte, (end - start).Bytes())
	if n, err := src.ReadAt(data, start.Bytes()); n < len(data) {
		return nil, 0, fmt.Errorf("read sector %d: %w", start, err)
	}

	return data, start, nil
}

func blockOf(src metadata.Source) int { return max(src.Block, raid.SectorSize) }

// place returns where a copy is by the anchor, and false if there is none.
func (h *Header) place(kind byte) (raid.Sectors, bool) {
	at := h.PrimaryLBA
	if kind == typeSecondary {
		at = h.SecondaryLBA
	}

	return sectorsOf(at), at != none64
}

// sectorsOf returns a number of sectors from the disk. What is too large for any
// device is still too large afterwards.
func sectorsOf(disk uint64) raid.Sectors { return raid.Sectors(min(disk, 1<<54)) }

// loadArea reads a copy and verifies all that is in it.
//
// Returns an error wrapping [metadata.ErrCorrupt] if it is not whole, and any
// other if it cannot be read.
func loadArea(src metadata.Source, anchor *Header, kind byte) (*area, error) {
	at, _ := anchor.place(kind)

	head, start, err := read(src, at, at+1)
	if err != nil {
		return nil, err
	}

	h, f, err := decodeHeader(head[(at - start).Bytes():])
	if errors.Is(err, metadata.ErrNotFound) {
		return nil, fmt.Errorf("no header at sector %d: %w", at, metadata.ErrCorrupt)
	}

	if err != nil {
		return nil, err
	}

	if h.GUID != anchor.GUID || h.Revision != anchor.Revision || h.Type != kind ||
		h.PrimaryLBA != anchor.PrimaryLBA || h.SecondaryLBA != anchor.SecondaryLBA {
		return nil, fmt.Errorf("header at sector %d is not that of the anchor: %w", at, metadata.ErrCorrupt)
	}

	span, err := h.span()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, metadata.ErrCorrupt)
	}

	a := &area{kind: kind, at: at, header: h, form: f, block: blockOf(src)}

	if a.image, a.start, err = read(src, at, at+span); err != nil {
		return nil, err
	}

	if !bytes.Equal(a.head(), head[(at - start).Bytes():][:raid.SectorSize]) {
		return nil, fmt.Errorf("header at sector %d changes as it is read: %w", at, metadata.ErrCorrupt)
	}

	if err := a.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", err, metadata.ErrCorrupt)
	}

	return a, nil
}

// offset returns where in the image a section is.
func (a *area) offset(s Section) int {
	return int((a.at - a.start + raid.Sectors(s.Offset)).Bytes())
}

func (a *area) head() []byte { return a.image[(a.at - a.start).Bytes():][:raid.SectorSize] }

func (a *area) section(s Section) []byte {
	return a.image[a.offset(s):][:raid.Sectors(s.Length).Bytes()]
}

func (a *area) disk() []byte { return a.section(a.header.Data)[:raid.SectorSize] }

// recordSize returns the size of a config record in bytes.
func (h *Header) recordSize() int { return int(h.ConfigRecordLength) * raid.SectorSize }

// records returns how many config records there is room for, the last of which
// is for that of a spare.
func (h *Header) records() int { return int(h.Config.Length) / int(h.ConfigRecordLength) }

// record returns config record i.
func (a *area) record(i int) []byte {
	size := a.header.recordSize()

	return a.section(a.header.Config)[i*size:][:size]
}

// configs yields the config records of arrays, and where each is.
func (a *area) configs() iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		for i := range a.header.records() {
			if record := a.record(i); a.form.order.Uint32(record) == magicConfig && !yield(i, record) {
				return
			}
		}
	}
}

// check verifies the sections. Which of them has which content is settled later.
func (a *area) check() error {
	h := a.header

	if _, err := decodePhysical(a.form, a.section(h.Physical)); err != nil {
		return err
	}

	if _, err := decodeVirtual(a.form, a.section(h.Virtual)); err != nil {
		return err
	}

	for _, record := range a.configs() {
		if _, err := decodeConfig(a.form, record, h.elements()); err != nil {
			return err
		}
	}

	if disk := a.disk(); a.form.order.Uint32(disk) != magicDisk || !a.form.whole(disk) {
		return fmt.Errorf("disk data: magic %#08x, checksum %#08x, computed %#08x",
			a.form.order.Uint32(disk), a.form.order.Uint32(disk[offCRC:]), a.form.sum(disk))
	}

	return nil
}

// end returns the sector behind the copy.
func (a *area) end() raid.Sectors { return a.start + raid.Sectors(len(a.image)/raid.SectorSize) }

// put changes bytes of the image, and notes which blocks are different now.
func (a *area) put(at int, data []byte) {
	for len(data) > 0 {
		n := min(len(data), a.block-at%a.block)
		if !bytes.Equal(a.image[at:at+n], data[:n]) {
			copy(a.image[at:], data[:n])
			a.dirty[at/a.block] = true
		}

		at += n
		data = data[n:]
	}
}

// newer returns that of two copies which counts. A header is open while the rest
// is being written: then the other has all that it had before.
func newer(primary, secondary *area) *area {
	switch {
	case primary == nil:
		return secondary
	case secondary == nil:
		return primary
	case secondary.header.Open == 0 && (secondary.header.Seq > primary.header.Seq ||
		secondary.header.Seq == primary.header.Seq && primary.header.Open != 0):
		return secondary
	default:
		return primary
	}
}
