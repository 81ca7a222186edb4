package md1

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// deviceMin is the size below which mdadm looks for no superblock.
const deviceMin raid.Sectors = 24

// minor is a minor version: where the superblock lies.
type minor int

func (m minor) String() string { return fmt.Sprintf("1.%d", int(m)) }

// place returns the sector of a superblock of the given minor version on a
// device of the given size, and false if there is no room for it.
func (m minor) place(size raid.Sectors) (raid.Sectors, bool) {
	if size < deviceMin {
		return 0, false
	}

	switch m {
	case 0:
		// Below this a device has no room for data in front of the superblock,
		// and the place would be that of 1.2.
		at := (size - 16) &^ 7

		return at, at >= 16
	case 1:
		return 0, true
	default:
		return 8, true
	}
}

// minors returns the minor versions in the order in which md looks for them.
func minors() []minor { return []minor{0, 1, 2} }

// finding is what one place of a device holds: exactly one is nil.
type finding struct {
	minor minor
	at    raid.Sectors
	sb    *metadata.Superblock
	err   error // wraps metadata.ErrCorrupt
}

func (f finding) String() string {
	if f.err != nil {
		return fmt.Sprintf("a %v superblock at sector %d (%v)", f.minor, f.at, f.err)
	}

	return fmt.Sprintf("a %v superblock at sector %d (array %v, %d events)", f.minor, f.at, f.sb.Array, f.sb.Events)
}

// Probe implements [metadata.Format]. It reads at most nine blocks of 4 KiB.
//
// A device with superblocks at more than one place is corrupt: the older may
// be left over, but so may the newer, and the wrong guess starts an array that
// no longer exists over the data of one that does. That one of them is damaged
// makes no difference, it may be the one that counts.
func (Format) Probe(src metadata.Source) (*metadata.Superblock, error) {
	var (
		found      []finding
		unreadable error
	)

	for _, m := range minors() {
		at, ok := m.place(src.Size)
		if !ok {
			continue
		}

		sb, err := probeAt(src, m, at)

		switch {
		case errors.Is(err, metadata.ErrNotFound):
		case err == nil, errors.Is(err, metadata.ErrCorrupt):
			found = append(found, finding{minor: m, at: at, sb: sb, err: err})
		default:
			unreadable = err
		}
	}

	// A place that cannot be read takes nothing from one that was: it may be in
	// the midst of the data, and a bad sector there is for redundancy to mend.
	switch {
	case len(found) > 1:
		return nil, fmt.Errorf("md1: %v and %v on one device: %w", found[0], found[1], metadata.ErrCorrupt)
	case len(found) == 1 && found[0].err == nil:
		return found[0].sb, nil
	case len(found) == 1:
		return nil, fmt.Errorf("md1: %v at sector %d: %w", found[0].minor, found[0].at, found[0].err)
	case unreadable != nil:
		return nil, fmt.Errorf("md1: %w", unreadable)
	default:
		return nil, fmt.Errorf("md1: %w", metadata.ErrNotFound)
	}
}

func probeAt(src metadata.Source, m minor, at raid.Sectors) (*metadata.Superblock, error) {
	buf, err := readBlock(src, at)
	if err != nil {
		return nil, fmt.Errorf("read sector %d: %w", at, err)
	}

	raw, err := decode(buf)
	if err != nil {
		return nil, err
	}

	// A superblock of a partition at the end of a disk is found on the disk as
	// well, and is not the disk's.
	// One that belongs where no device reaches is no other device's, but damaged.
	if raw.SuperOffset >= 1<<60 {
		return nil, fmt.Errorf("superblock at sector %d belongs at %d, beyond any device: %w",
			at, raw.SuperOffset, metadata.ErrCorrupt)
	}

	if raw.SuperOffset != uint64(at) {
		return nil, fmt.Errorf("superblock at sector %d belongs at %d: %w", at, raw.SuperOffset, metadata.ErrNotFound)
	}

	if err := acceptable(raw, m, src); err != nil {
		return nil, fmt.Errorf("%w: %w", err, metadata.ErrCorrupt)
	}

	if raw.FeatureMap&FeatureBadBlocks != 0 {
		if raw.badEntries, err = readBadLog(raw, src); err != nil {
			return nil, err
		}
	}

	return superblock(raw, m, src), nil
}

// acceptable verifies what the superblock says, as far as the kernel does and
// farther.
func acceptable(raw *Raw, m minor, src metadata.Source) error {
	if err := checkSpace(raw, m, src); err != nil {
		return err
	}

	if err := checkArray(raw); err != nil {
		return err
	}

	if err := checkBadBlocks(raw); err != nil {
		return err
	}

	if raw.DevNumber >= raw.MaxDev {
		return fmt.Errorf("dev_number %d is not below max_dev %d", raw.DevNumber, raw.MaxDev)
	}

	return nil
}

// readBlock reads the 4 KiB block that sector lies in, less what is behind the
// end of the device, and returns it from sector on.
func readBlock(src metadata.Source, sector raid.Sectors) ([]byte, error) {
	const blockSectors = blockSize / raid.SectorSize

	start := sector &^ (blockSectors - 1)

	buf := make([]byte, min(blockSectors, src.Size-start).Bytes())
	if n, err := src.ReadAt(buf, start.Bytes()); n < len(buf) {
		return nil, err
	}

	return buf[(sector - start).Bytes():], nil
}

// checkArray verifies what the superblock says of the array, as far as no
// level is needed to judge it.
func checkArray(raw *Raw) error {
	level := raid.Level(raw.Level)
	used := raw.DataSize

	switch {
	case raw.FeatureMap&FeatureRAID0Layout != 0 && level != raid.Level0:
		return fmt.Errorf("feature RAID0_LAYOUT at level %v", level)
	case raw.RaidDisks < 1 || raw.RaidDisks > maxRoles:
		return fmt.Errorf("raid_disks %d is not between 1 and %d", raw.RaidDisks, maxRoles)
	}

	if level.HasRedundancy() {
		used = raw.Size
		if used < 1 || used > raw.DataSize {
			return fmt.Errorf("size %d is not between 1 and data_size %d", raw.Size, raw.DataSize)
		}
	}

	if !level.HasChunks() {
		return nil
	}

	chunk := raw.Chunksize
	switch {
	case chunk < 1 || uint64(chunk) > used:
		return fmt.Errorf("chunksize %d is not between 1 and the %d sectors used", chunk, used)
	case level != raid.Level0 && bits.OnesCount32(chunk) != 1:
		return fmt.Errorf("chunksize %d is no power of two at level %v", chunk, level)
	}

	return nil
}

// checkSpace verifies that what the superblock claims of the device is there,
// and that the data does not lie over the superblock. It is stricter than the
// kernel for 1.0, which takes no notice of data_offset.
func checkSpace(raw *Raw, m minor, src metadata.Source) error {
	const dataMin = 10

	first, end := uint64(0), uint64(src.Size)
	if m == 0 {
		end = raw.SuperOffset
	} else {
		first = raw.SuperOffset + uint64(written(int(raw.MaxDev), src.Block)/raid.SectorSize)
	}

	starts := []uint64{raw.DataOffset}
	if raw.FeatureMap&FeatureNewOffset != 0 {
		starts = append(starts, raw.DataOffset+uint64(int64(raw.NewOffset)))
	}

	if raw.DataSize < dataMin {
		return fmt.Errorf("data_size %d is less than %d", raw.DataSize, dataMin)
	}

	for _, start := range starts {
		switch {
		case start < first:
			return fmt.Errorf("data_offset %d is below %d, where the superblock ends", start, first)
		case start > end || raw.DataSize > end-start:
			return fmt.Errorf("data_offset %d and data_size %d exceed the %d sectors", start, raw.DataSize, end)
		}
	}

	return nil
}

// checkBadBlocks verifies what the kernel does of the bad block log.
func checkBadBlocks(raw *Raw) error {
	const sizeMax = blockSize / raid.SectorSize

	switch {
	case raw.BblogShift >= 64:
		return fmt.Errorf("bblog_shift %d is not below 64", raw.BblogShift)
	case raw.FeatureMap&FeatureBadBlocks == 0:
		return nil
	case raw.BblogOffset == 0 || raw.BblogSize > sizeMax:
		return fmt.Errorf("bad block log of %d sectors at offset %d", raw.BblogSize, raw.BblogOffset)
	default:
		return nil
	}
}

// written returns how many bytes md writes of a superblock: whole logical
// blocks.
func written(maxDev, block int) int {
	block = max(block, raid.SectorSize)

	return (superSize(maxDev) + block - 1) / block * block
}

// superblock translates raw. Preconditions: it was checked.
func superblock(raw *Raw, m minor, src metadata.Source) *metadata.Superblock {
	level := raid.Level(raw.Level)

	host, name, ok := strings.Cut(raw.SetName.String(), ":")
	if !ok {
		host, name = "", host
	}

	sb := &metadata.Superblock{
		Format: m.String(),
		Array:  raid.UUID(raw.SetUUID),
		Device: raid.UUID(raw.DeviceUUID),
		Name:   name,
		Host:   host,
		Geometry: raid.Geometry{
			Level:  level,
			Layout: raid.Layout(raw.Layout),
			Disks:  int(raw.RaidDisks),
		},
		Created:        timeOf(raw.Ctime),
		Updated:        timeOf(raw.Utime),
		Events:         raw.Events,
		Number:         int(raw.DevNumber),
		Roles:          roles(raw),
		DataOffset:     raid.Sectors(raw.DataOffset),
		DataSize:       raid.Sectors(raw.DataSize),
		ResyncOffset:   sectorsOf(raw.ResyncOffset),
		RecoveryOffset: raid.MaxSectors,
		Raw:            raw,
	}

	if level == raid.Level0 && raw.FeatureMap&FeatureRAID0Layout == 0 {
		sb.Layout = 0 // unknown, as to md
	}

	if level.HasRedundancy() {
		sb.Size = raid.Sectors(raw.Size)
	}

	if level.HasChunks() || level == raid.LevelLinear { // which rounds sizes to it
		sb.Chunk = raid.Sectors(raw.Chunksize)
	}

	if raw.FeatureMap&FeatureRecoveryOffset != 0 {
		sb.RecoveryOffset = sectorsOf(raw.RecoveryOffset)
		sb.ByBitmap = raw.FeatureMap&FeatureRecoveryBitmap != 0
	}

	sb.WriteMostly, sb.FailFast = raw.Devflags&devWriteMostly != 0, raw.Devflags&devFailFast != 0
	sb.Replacement = raw.FeatureMap&FeatureReplacement != 0
	sb.BadBlocks, _ = badBlocks(raw, raw.badEntries)
	sb.PPL = pplPlace(raw)

	var found *bitmap
	if raw.FeatureMap&FeatureBitmapOffset != 0 {
		found, _ = readBitmap(raw, src) // what is not there is not kept
	}

	sb.Bitmap = found.infoOf(raw)
	sb.Unsupported, sb.Unreadable = unsupported(raw, src, found)

	return sb
}

// roles returns the role table as md reads it: a slot that the array does not
// have makes a spare. But a member that claims one for itself was written by no
// tool, and is not to be taken for a spare.
func roles(raw *Raw) []raid.Role {
	table := make([]raid.Role, len(raw.DevRoles))
	for number, role := range raw.DevRoles {
		if slot, ok := role.Slot(); ok && slot >= raid.Slot(raw.RaidDisks) {
			role = raid.RoleSpare
			if uint32(number) == raw.DevNumber {
				role = raid.RoleFaulty
			}
		}

		table[number] = role
	}

	return table
}
