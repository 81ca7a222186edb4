package md0

import (
	"bytes"
	"encoding/binary"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

func source(image []byte) metadata.Source {
	return metadata.Source{
		ReaderAt: bytes.NewReader(image), Size: raid.Sectors(len(image) / raid.SectorSize), Block: raid.SectorSize,
	}
}

func mustProbe(tb testing.TB, src metadata.Source) *metadata.Superblock {
	tb.Helper()

	sb, err := Format{}.Probe(src)
	if err != nil {
		tb.Fatal(err)
	}

	return sb
}

// super returns the superblock in an image, to be changed there.
func super(tb testing.TB, image []byte) []byte {
	tb.Helper()

	at, ok := place(raid.Sectors(len(image) / raid.SectorSize))
	if !ok {
		tb.Fatalf("no place in %d bytes", len(image))
	}

	return image[at.Bytes():][:blockSize]
}

// loaded are the golden sets that were asked for.
var loaded = map[string]*conformance.Golden{}

// loadGolden returns a golden set, whose images are not to be changed.
func loadGolden(tb testing.TB, set string) *conformance.Golden {
	tb.Helper()

	if loaded[set] == nil {
		loaded[set] = conformance.LoadGolden(tb, set)
	}

	return loaded[set]
}

// edited returns a copy of a member of a golden set with words of its
// superblock changed, and its checksum right.
func edited(tb testing.TB, set string, i int, words map[int]uint32) []byte {
	tb.Helper()

	image := bytes.Clone(loadGolden(tb, set).Images[i])
	sb := super(tb, image)

	for word, value := range words {
		binary.LittleEndian.PutUint32(sb[4*word:], value)
	}

	binary.LittleEndian.PutUint32(sb[offSum:], checksum(sb, binary.LittleEndian))

	return image
}

// swapped returns a copy of an image as a host of the other byte order would
// have written it.
func swapped(tb testing.TB, image []byte) []byte {
	tb.Helper()

	image = bytes.Clone(image)
	sb := super(tb, image)

	for i := 0; i < len(sb); i += 4 {
		binary.BigEndian.PutUint32(sb[i:], binary.LittleEndian.Uint32(sb[i:]))
	}

	for _, word := range []int{39, 41} {
		high, low := bytes.Clone(sb[4*word:][:4]), bytes.Clone(sb[4*word+4:][:4])
		copy(sb[4*word:], low)
		copy(sb[4*word+4:], high)
	}

	binary.BigEndian.PutUint32(sb[offSum:], checksum(sb, binary.BigEndian))

	return image
}

// keep returns a Keeper of the devices given.
func keep(tb testing.TB, disks []conformance.Disk) metadata.Keeper {
	tb.Helper()

	var members []metadata.Attachment
	for i := range disks {
		members = append(members, metadata.Attachment{Superblock: mustProbe(tb, disks[i].Source()), Source: disks[i].Source()})
	}

	k, err := Format{}.Keep(members)
	if err != nil {
		tb.Fatal(err)
	}

	return k
}

// state returns that of an array that is clean, by what each device is.
func state(members ...metadata.MemberRecord) metadata.State {
	st := metadata.State{
		ResyncOffset: raid.MaxSectors, Now: now, Members: map[metadata.MemberID]metadata.MemberRecord{},
	}

	for id, record := range members {
		if record.State != "" {
			st.Members[metadata.MemberID(id)] = record
		}
	}

	return st
}

func inSync(slot raid.Slot) metadata.MemberRecord {
	return metadata.MemberRecord{State: raid.InSync, Slot: slot}
}

func recovering(slot raid.Slot) metadata.MemberRecord {
	return metadata.MemberRecord{State: raid.Recovering, Slot: slot, Recovered: 8}
}

func faulty(slot raid.Slot) metadata.MemberRecord {
	return metadata.MemberRecord{State: raid.Faulty, Slot: slot}
}

func spare() metadata.MemberRecord {
	return metadata.MemberRecord{State: raid.Spare, Slot: raid.NoSlot}
}

// gone is a device that is not in a State.
func gone() metadata.MemberRecord { return metadata.MemberRecord{} }
