package md0

import (
	"crypto/sha1" //nolint:gosec // that is how mdadm tells whose an array is
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

const (
	version                 = "0.90"
	usualChunk raid.Sectors = 1024 // what mdadm chooses
)

// Versions implements [metadata.Format].
func (Format) Versions() []string { return []string{version} }

// Erase implements [metadata.Format].
func (Format) Erase(src metadata.Source) ([]metadata.Write, error) {
	at, ok := place(src.Size)
	if !ok {
		return nil, nil
	}

	buf := make([]byte, blockSize)
	if n, err := src.ReadAt(buf, at.Bytes()); n < len(buf) {
		return nil, fmt.Errorf("md0: read sector %d: %w", at, err)
	}

	if _, err := decode(buf); errors.Is(err, metadata.ErrNotFound) {
		return nil, nil
	}

	return []metadata.Write{{Sector: at, Data: make([]byte, max(src.Block, blockSize))}}, nil
}

// Create implements [metadata.Format]. Of the UUID the second half is of the
// host, if there is one: nothing else says whose the array is.
func (Format) Create(p metadata.NewArray, devices []metadata.NewMember) (raid.UUID, [][]metadata.Write, error) {
	if p.UsualLayout {
		var err error
		if p.Layout, err = raid.ParseLayout(p.Level, ""); err != nil {
			return raid.UUID{}, nil, fmt.Errorf("md0: %w", err)
		}
	}

	if p.Chunk == 0 && p.Level.HasChunks() {
		p.Chunk = usualChunk
	}

	if p.Host != "" {
		p.Array = ofHost(p.Array, p.Host)
	}

	writes, err := create(p, devices)
	if err != nil {
		return raid.UUID{}, nil, fmt.Errorf("md0: %w", err)
	}

	return p.Array, writes, nil
}

// ofHost returns a UUID of an array of a host: its last two words, which are in
// the order of the machine on disk, are the beginning of a hash of the name.
func ofHost(uuid raid.UUID, host string) raid.UUID {
	hash := sha1.Sum([]byte(host)) //nolint:gosec // as above

	for _, at := range []int{0, 4} {
		binary.BigEndian.PutUint32(uuid[8+at:], binary.LittleEndian.Uint32(hash[at:]))
	}

	return uuid
}

func create(p metadata.NewArray, devices []metadata.NewMember) ([][]metadata.Write, error) {
	if err := checkNew(p, devices); err != nil {
		return nil, err
	}

	minor, err := minorOf(p.Name)
	if err != nil {
		return nil, err
	}

	size, err := chooseSize(p, devices)
	if err != nil {
		return nil, err
	}

	raw := &Raw{
		ByteOrder: binary.LittleEndian.String(), ArrayUUID: UUID(p.Array),
		Header: Header{
			Magic: magic, MajorVersion: majorVersion, MinorVersion: minorPlain,
			Ctime: uint32(max(p.Now.Unix(), 0)), Level: int32(p.Level), Size: uint32(size / 2),
			RaidDisks: uint32(p.Disks), MdMinor: minor,
			Layout: uint32(p.Layout), ChunkSize: uint32(p.Chunk.Bytes()),
		},
	}

	if p.Level == raid.Level0 {
		raw.Layout = 0 // which nothing here depends on
	}

	for i, word := range []*uint32{&raw.SetUUID0, &raw.SetUUID1, &raw.SetUUID2, &raw.SetUUID3} {
		*word = binary.BigEndian.Uint32(p.Array[4*i:])
	}

	if raw.image, err = binary.Append(nil, binary.LittleEndian, &raw.Header); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}

	raw.image = append(raw.image, make([]byte, blockSize-len(raw.image))...)

	return record(raw, p, devices)
}

// record returns the writes of the first record of an array: what it is then is
// written as it is ever after.
func record(raw *Raw, p metadata.NewArray, devices []metadata.NewMember) ([][]metadata.Write, error) {
	k := &keeper{like: raw, resync: raid.MaxSectors}
	for i, d := range devices {
		if d.ReaderAt == nil {
			k.members = append(k.members, nil)

			continue
		}

		m := newMember(raw, d.Source)
		k.members = append(k.members, m)

		if d.WriteMostly {
			m.flags |= diskMostly
		}

		if d.FailFast {
			m.flags |= diskFailFast
		}

		m.inSync = i < p.Disks // there is nobody to count on it before
	}

	for slot := range k.holders {
		k.holders[slot] = nobody
	}

	return k.Record(p.State(len(k.members), func(i int) bool { return k.members[i] != nil })), nil
}

// checkNew verifies what an array of version 0.90 can be.
func checkNew(p metadata.NewArray, devices []metadata.NewMember) error {
	switch {
	case p.Version != version:
		return fmt.Errorf("no metadata version %q", p.Version)
	case p.Disks < 1 || len(devices) < p.Disks || len(devices) > maxDisks:
		return fmt.Errorf("%d slots and %d devices: version 0.90 has %d at most", p.Disks, len(devices), maxDisks)
	case len(devices) > p.Disks && !p.Level.HasRedundancy():
		return fmt.Errorf("%v has no use for a spare", p.Level)
	case p.PPL:
		return errors.New("version 0.90 has no partial parity logs")
	case p.Bitmap == metadata.BitmapInternal:
		return errors.New("a bitmap of version 0.90 is mdadm's to make")
	case p.Chunk < 0 || p.Chunk.Bytes() > 1<<31 || p.Size < 0:
		return fmt.Errorf("chunk of %d, size of %d sectors", p.Chunk, p.Size)
	case p.Array.IsZero():
		return errors.New("no UUID")
	default:
		return nil
	}
}

// minorOf returns the preferred minor number that a name says: the format holds
// no other name, and nobody would find the array by one.
func minorOf(name string) (uint32, error) {
	const minorBits = 20 // as the kernel has it

	minor, err := strconv.ParseUint(strings.TrimPrefix(name, "md"), 10, minorBits)
	if err != nil || name != fmt.Sprintf("md%d", minor) {
		return 0, fmt.Errorf("name %q: an array of version 0.90 is called md and a number, such as md0", name)
	}

	return uint32(minor), nil
}

// chooseSize returns how much of each member an array uses, or 0 at levels that
// do not say.
func chooseSize(p metadata.NewArray, devices []metadata.NewMember) (raid.Sectors, error) {
	smallest, largest := raid.Sectors(-1), raid.Sectors(-1)

	for i, d := range devices {
		if d.ReaderAt == nil {
			continue
		}

		at, ok := place(d.Size)
		if !ok || d.Block > blockSize {
			return 0, fmt.Errorf("device %d: no room for a superblock on %d sectors in blocks of %d bytes",
				i, d.Size, d.Block)
		}

		// What is used of it is in whole KiB and chunks.
		at = dataSize(p.Level, at)
		if p.Level.HasChunks() {
			at -= at % p.Chunk
		}

		largest = max(largest, at)
		if smallest < 0 || at < smallest {
			smallest = at
		}
	}

	size := p.Size
	if size == 0 {
		size = smallest &^ 1
	}

	switch {
	case smallest < 1:
		return 0, errors.New("no device with room for a chunk")
	case p.Level == raid.Level0 && smallest != largest:
		return 0, errors.New("members of a RAID0 of version 0.90 must be of one size: " +
			"it does not say how it goes on where one ends")
	case !p.Level.HasRedundancy():
		return 0, nil
	case size > smallest || size%2 != 0:
		return 0, fmt.Errorf("%d sectors of each member: an even number, and the smallest has room for %d",
			size, smallest)
	default:
		return size, nil
	}
}
