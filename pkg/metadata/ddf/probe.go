package ddf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// anchorPlaces are where an anchor may be, in sectors before the end of the
// device: the second is Adaptec's.
var anchorPlaces = []raid.Sectors{1, 257}

// hasAnchor reports whether a sector begins as an anchor does.
func hasAnchor(sector []byte) bool {
	return binary.BigEndian.Uint32(sector) == magicHeader || binary.LittleEndian.Uint32(sector) == magicHeader
}

// findAnchor returns the sector that holds the anchor, and where it is.
func findAnchor(src metadata.Source) ([]byte, raid.Sectors, error) {
	var unreadable error

	for _, before := range anchorPlaces {
		at := src.Size - before
		if at < 0 || src.Size%raid.Sectors(blockOf(src)/raid.SectorSize) != 0 {
			continue
		}

		data, start, err := read(src, at, at+1)
		if err != nil {
			unreadable = err

			continue
		}

		if sector := data[(at - start).Bytes():][:raid.SectorSize]; hasAnchor(sector) {
			return sector, at, nil
		}
	}

	if unreadable != nil {
		return nil, 0, unreadable
	}

	return nil, 0, metadata.ErrNotFound
}

// Probe implements [metadata.Format]. It reads two blocks of a device without
// an anchor, and 8 MiB at most of one with.
func (Format) Probe(src metadata.Source) (*metadata.Superblock, error) {
	raw, err := load(src)
	if err != nil {
		return nil, fmt.Errorf("ddf: %w", err)
	}

	sb, err := raw.superblock(src)
	if err != nil {
		return nil, fmt.Errorf("ddf: %w: %w", err, metadata.ErrCorrupt)
	}

	return sb, nil
}

// load reads what is on src.
func load(src metadata.Source) (*Raw, error) {
	sector, at, err := findAnchor(src)
	if err != nil {
		return nil, err
	}

	anchor, _, err := decodeHeader(sector)
	if err != nil {
		return nil, fmt.Errorf("sector %d: %w", at, err)
	}

	raw := &Raw{Anchor: *anchor, anchorAt: at, block: blockOf(src), copies: make([]*area, 2)}

	var errs []error

	for i, kind := range []byte{typePrimary, typeSecondary} {
		if _, ok := anchor.place(kind); !ok {
			continue
		}

		if raw.copies[i], err = loadArea(src, anchor, kind); err != nil {
			errs = append(errs, err)
		}
	}

	if raw.active = newer(raw.copies[0], raw.copies[1]); raw.active == nil {
		return nil, unusable(errs)
	}

	// Without another copy nothing says what was there before: parts of it may be
	// old, and each of them whole.
	if raw.active.header.Open != 0 && (raw.copies[0] == nil || raw.copies[1] == nil) {
		return nil, fmt.Errorf("the %s copy is open, and there is no other that is whole (%w): %w",
			raw.active.name(), errors.Join(errs...), metadata.ErrCorrupt)
	}

	return raw, raw.decode()
}

func (a *area) name() string {
	if a.kind == typePrimary {
		return "primary"
	}

	return "secondary"
}

// unusable returns why neither copy is of use: that one could not be read, if so.
func unusable(errs []error) error {
	for _, err := range errs {
		if !errors.Is(err, metadata.ErrCorrupt) {
			return err
		}
	}

	if len(errs) == 0 {
		return fmt.Errorf("the anchor names no header: %w", metadata.ErrCorrupt)
	}

	return errors.Join(errs...)
}

// decode decodes the copy that counts, which was checked.
func (r *Raw) decode() error {
	a := r.active
	r.form, r.Header = a.form, *a.header

	var err error
	if r.PhysicalDisks, err = decodePhysical(a.form, a.section(a.header.Physical)); err != nil {
		return err
	}

	if r.VirtualDisks, err = decodeVirtual(a.form, a.section(a.header.Virtual)); err != nil {
		return err
	}

	for _, record := range a.configs() {
		c, err := decodeConfig(a.form, record, a.header.elements())
		if err != nil {
			return err
		}

		r.Configs = append(r.Configs, *c)
	}

	r.Refnum = a.form.order.Uint32(a.disk()[offDiskRefnum:])

	controller := a.section(a.header.Controller)
	r.Controller = GUID(controller[offGUID:])

	// Where mdadm is the controller, it says whose it is.
	if bytes.HasPrefix(r.Controller[:], vendorMD) {
		host, _, ok := strings.Cut(string(controller[headSize:raid.SectorSize]), "\x00")
		if ok && !strings.Contains(host, "\xff") {
			r.host = host
		}
	}

	return nil
}

// vendorMD is how the GUIDs begin that mdadm makes up.
var vendorMD = []byte("Linux-MD")

// physical returns the entry with a refnum, or nil.
func (r *Raw) physical(refnum uint32) *PhysicalDisk {
	for i := range r.PhysicalDisks {
		if r.PhysicalDisks[i].Refnum == refnum {
			return &r.PhysicalDisks[i]
		}
	}

	return nil
}

// virtual returns the entry of an array, or nil.
func (r *Raw) virtual(guid GUID) *VirtualDisk {
	for i := range r.VirtualDisks {
		if r.VirtualDisks[i].GUID == guid {
			return &r.VirtualDisks[i]
		}
	}

	return nil
}

// container returns the UUID of the container.
func (r *Raw) container() raid.UUID { return uuidOf(r.Header.GUID[:]) }

// arrayUUID returns what mdadm takes for the UUID of an array. Firmware of LSI
// gives it another GUID at each boot.
func (r *Raw) arrayUUID(v *VirtualDisk, name []byte) raid.UUID {
	if !bytes.HasPrefix(r.Controller[:], []byte("LSI     ")) {
		return uuidOf(v.GUID[:])
	}

	identity := make([]byte, 0, guidSize+nameSize+2)
	identity = append(identity, r.Header.GUID[:]...)
	identity = append(identity, name...)

	return uuidOf(binary.LittleEndian.AppendUint16(identity, uint16(v.Index)))
}

// nameOf returns the name of an array as it lies on disk.
func (r *Raw) nameOf(v *VirtualDisk) []byte {
	entry := r.active.section(r.active.header.Virtual)[headSize+v.Index*entrySize:]

	return entry[offName : offName+nameSize]
}
