package imsm

import (
	"fmt"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// Format is the metadata module for IMSM.
type Format struct{}

var (
	_ metadata.Format  = Format{}
	_ metadata.Sharing = (*keeper)(nil)
)

// Name implements [metadata.Format].
func (Format) Name() string { return version }

// recordMax bounds what is read: all that 255 disks, two migrating volumes of as
// many and a full log take, several times.
const recordMax = 64 << 10

// Probe implements [metadata.Format]. It reads one block of a device without a
// record, and 64 KiB more at most of one with.
func (Format) Probe(src metadata.Source) (*metadata.Superblock, error) {
	raw, err := load(src)
	if err != nil {
		return nil, fmt.Errorf("imsm: %w", err)
	}

	sb, err := raw.superblock(src)
	if err != nil {
		return nil, fmt.Errorf("imsm: %w: %w", err, metadata.ErrCorrupt)
	}

	return sb, nil
}

// readBlocks reads whole blocks of src.
func readBlocks(src metadata.Source, at raid.Sectors, size int) ([]byte, error) {
	data := make([]byte, size)
	if n, err := src.ReadAt(data, at.Bytes()); n < len(data) {
		return nil, fmt.Errorf("read sector %d: %w", at, err)
	}

	return data, nil
}

// anchorAt returns where the first block of a record is, or false if the device
// has no room for one.
func anchorAt(src metadata.Source) (raid.Sectors, bool) {
	block := raid.Sectors(blockOf(src) / raid.SectorSize)
	at := src.Size - 2*block

	return at, at >= 0 && src.Size%block == 0
}

// loadAnchor reads the first block of the record.
func loadAnchor(src metadata.Source) ([]byte, error) {
	at, ok := anchorAt(src)
	if !ok {
		return nil, metadata.ErrNotFound
	}

	anchor, err := readBlocks(src, at, blockOf(src))
	if err != nil {
		return nil, err
	}

	if string(anchor[:len(signature)]) != signature {
		return nil, metadata.ErrNotFound
	}

	return anchor, nil
}

// load reads the record on src, and looks for the disk in it.
func load(src metadata.Source) (*Raw, error) {
	r, err := loadRecord(src)
	if err != nil {
		return nil, err
	}

	r.Serial = SerialOf(src.Serial)
	if r.index = r.find(r.Serial); r.index < 0 {
		return nil, fmt.Errorf("the disk has serial number %q, which is none of the container's, %s: %w",
			r.Serial.String(), r.serials(), metadata.ErrCorrupt)
	}

	return r, nil
}

// loadRecord reads the record on src and verifies all that does not depend on the
// disk.
func loadRecord(src metadata.Source) (*Raw, error) {
	mpb, err := loadAnchor(src)
	if err != nil {
		return nil, err
	}

	size := order.Uint32(mpb[offSize:])
	if size < headSize || size > recordMax {
		return nil, fmt.Errorf("record of %d bytes: %w", size, metadata.ErrCorrupt)
	}

	at, sectors := place(src, int(size))
	if at < 0 {
		return nil, fmt.Errorf("record of %d bytes on %d sectors: %w", size, src.Size, metadata.ErrCorrupt)
	}

	if more := int(sectors.Bytes()) - len(mpb); more > 0 {
		rest, err := readBlocks(src, at, more)
		if err != nil {
			return nil, err
		}

		mpb = append(mpb, rest...)
	}

	mpb = mpb[:size]
	if want := sum(mpb); order.Uint32(mpb[offSum:]) != want {
		return nil, fmt.Errorf("checksum %#08x, computed %#08x: %w",
			order.Uint32(mpb[offSum:]), want, metadata.ErrCorrupt)
	}

	if marked(mpb) && order.Uint32(mpb[offMarkSum:]) != markOf(mpb) {
		return nil, fmt.Errorf("parts of two records: %w", metadata.ErrCorrupt)
	}

	r, err := decode(mpb, blockOf(src))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, metadata.ErrCorrupt)
	}

	return r, nil
}
