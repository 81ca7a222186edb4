package md0

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// Probe implements [metadata.Format]. It reads one block of 4 KiB.
//
// The last partition of a disk may end where the disk does and have its
// superblock where that of the disk would be. If the component is larger than
// the device, the superblock is not the device's.
func (Format) Probe(src metadata.Source) (*metadata.Superblock, error) {
	raw, at, err := load(src)
	if err != nil {
		return nil, fmt.Errorf("md0: %w", err)
	}

	return superblock(raw, at, src), nil
}

// load reads the superblock of a device, and verifies it.
func load(src metadata.Source) (*Raw, raid.Sectors, error) {
	at, ok := place(src.Size)
	if !ok {
		return nil, 0, metadata.ErrNotFound
	}

	buf := make([]byte, blockSize)
	if n, err := src.ReadAt(buf, at.Bytes()); n < len(buf) {
		return nil, 0, fmt.Errorf("read sector %d: %w", at, err)
	}

	raw, err := decode(buf)
	if err == nil {
		err = acceptable(raw, at)
	}

	if err != nil {
		return nil, 0, fmt.Errorf("sector %d: %w", at, err)
	}

	return raw, at, nil
}

// acceptable verifies what the superblock says, as far as the kernel does and
// farther.
func acceptable(raw *Raw, at raid.Sectors) error {
	level := raid.Level(raw.Level)
	data := dataSize(level, at)

	if size := component(raw); level.HasRedundancy() && size > data {
		return fmt.Errorf("components of %d sectors, and %d are in front of the superblock: it is another device's: %w",
			size, data, metadata.ErrNotFound)
	}

	if err := check(raw, level, data); err != nil {
		return fmt.Errorf("%w: %w", err, metadata.ErrCorrupt)
	}

	return nil
}

func check(raw *Raw, level raid.Level, data raid.Sectors) error {
	switch own := raw.ThisDisk; {
	case raw.MinorVersion != minorPlain && raw.MinorVersion != minorReshape:
		return fmt.Errorf("version 0.%d", raw.MinorVersion)
	case raw.ArrayUUID == UUID{}:
		return fmt.Errorf("no array UUID")
	case raw.RaidDisks < 1 || raw.RaidDisks > maxDisks:
		return fmt.Errorf("raid_disks %d is not between 1 and %d", raw.RaidDisks, maxDisks)
	case own.Number >= maxDisks:
		return fmt.Errorf("this_disk is number %d, of %d", own.Number, maxDisks)
	// Where a write was torn the sum may be right all the same.
	case own.Number != raw.Disks[own.Number].Number || own.RaidDisk != raw.Disks[own.Number].RaidDisk:
		return fmt.Errorf("this_disk is number %d of raid_disk %d, and its entry %d of %d",
			own.Number, own.RaidDisk, raw.Disks[own.Number].Number, raw.Disks[own.Number].RaidDisk)
	case own.State&diskSync != 0 && raw.Disks[own.Number].State&diskSync == 0:
		return fmt.Errorf("this_disk is in sync, and its entry is not")
	case level.HasRedundancy() && raw.Size < 1:
		return fmt.Errorf("size %d", raw.Size)
	case level.HasRedundancy():
		return checkChunk(raw, level, component(raw))
	default:
		return checkChunk(raw, level, data)
	}
}

// checkChunk verifies the chunk of an array that uses so much of each member.
func checkChunk(raw *Raw, level raid.Level, data raid.Sectors) error {
	if !level.HasChunks() {
		return nil
	}

	chunk := raw.ChunkSize
	switch {
	case chunk < raid.SectorSize || chunk%raid.SectorSize != 0 || raid.Sectors(chunk/raid.SectorSize) > data:
		return fmt.Errorf("chunk_size %d is no multiple of %d in the %d sectors used", chunk, raid.SectorSize, data)
	case level != raid.Level0 && bits.OnesCount32(chunk) != 1:
		return fmt.Errorf("chunk_size %d is no power of two at level %v", chunk, level)
	}

	return nil
}

// component returns how much of each member the array uses, at levels that say.
func component(raw *Raw) raid.Sectors { return 2 * raid.Sectors(raw.Size) }

// superblock translates raw. Preconditions: it was checked.
func superblock(raw *Raw, at raid.Sectors, src metadata.Source) *metadata.Superblock {
	level := raid.Level(raw.Level)
	own := raw.Disks[raw.ThisDisk.Number]

	sb := &metadata.Superblock{
		Format:         "0." + strconv.Itoa(int(raw.MinorVersion)),
		Array:          raid.UUID(raw.ArrayUUID),
		Device:         deviceUUID(raw, src.Serial),
		Name:           "md" + strconv.FormatUint(uint64(raw.MdMinor), 10),
		Geometry:       raid.Geometry{Level: level, Layout: raid.Layout(raw.Layout), Disks: int(raw.RaidDisks)},
		Created:        timeOf(raw.Ctime),
		Updated:        timeOf(raw.Utime),
		Events:         raw.events(),
		Number:         int(raw.ThisDisk.Number),
		DataSize:       dataSize(level, at),
		ResyncOffset:   resyncOffset(raw),
		RecoveryOffset: raid.MaxSectors,
		WriteMostly:    own.State&diskMostly != 0,
		FailFast:       own.State&diskFailFast != 0,
		Raw:            raw,
	}

	for _, d := range raw.Disks {
		sb.Roles = append(sb.Roles, d.role(raw.RaidDisks))
	}

	if level == raid.Level0 {
		sb.Layout = 0 // unknown, as to md
	}

	if level.HasRedundancy() {
		sb.Size = component(raw)
	}

	if level.HasChunks() || level == raid.LevelLinear { // which rounds sizes to it
		sb.Chunk = raid.Sectors(raw.ChunkSize / raid.SectorSize)
	}

	sb.Unsupported, sb.Unreadable = unsupported(raw, src)

	return sb
}

// resyncOffset returns below which offset redundancy is right. Where it is not
// right everywhere the offset counts only if nothing was recorded since.
func resyncOffset(raw *Raw) raid.Sectors {
	switch {
	case raw.State&bitClean != 0:
		return raid.MaxSectors
	case raw.events() == raw.checkpoint():
		return raid.Sectors(raw.RecoveryCp)
	default:
		return 0
	}
}

// unsupported returns why an array with the superblock given can not be run,
// and why its content cannot be told. Either may be empty.
func unsupported(raw *Raw, src metadata.Source) (run, read string) {
	var why []string

	if raw.MinorVersion == minorReshape {
		read = "a reshape is active (version 0.91)"
		why = append(why, read)
	}

	if raw.bigEndian() {
		why = append(why, "a big-endian host wrote it: mdadm --assemble --update=byteorder converts it")
	}

	if raw.State&bitClustered != 0 {
		why = append(why, "the array is shared by a cluster")
	}

	if src.Block > blockSize {
		why = append(why, fmt.Sprintf("logical blocks of %d bytes are larger than a superblock", src.Block))
	}

	return strings.Join(why, ", "), read
}

// deviceUUID makes up what names a device, which the superblock does not: the
// same for all that read the same from the same disk.
func deviceUUID(raw *Raw, serial string) raid.UUID {
	own := raw.ThisDisk
	text := append([]byte(nil), raw.ArrayUUID[:]...)

	for _, word := range []uint32{own.Number, own.Major, own.Minor} {
		text = binary.BigEndian.AppendUint32(text, word)
	}

	sum := sha256.Sum256(append(text, serial...))

	return raid.UUID(sum[:16])
}
