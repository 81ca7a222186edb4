package md1

import (
	"bytes"
	"slices"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// deviceSize is that of the devices that tests make: 16 MiB.
const deviceSize raid.Sectors = 32768

// sample returns a member of a clean RAID5 of three and a spare, as mdadm
// lays it out at 1.2; edits change it.
func sample(edits ...func(*Raw)) *Raw {
	raw := &Raw{
		Header: Header{
			Magic: magic, MajorVersion: majorVersion,
			SetUUID: UUID{0: 0xaa, 15: 0x01}, SetName: SetName([]byte("lab:gold" + string(make([]byte, 24)))),
			Ctime: 1_700_000_000 | 250_000<<timeBits, Level: 5, Layout: 2, Size: 30720, Chunksize: 128, RaidDisks: 3,
			DataOffset: 2048, DataSize: 30720, SuperOffset: 8, DevNumber: 1, DeviceUUID: UUID{0: 0xbb},
			BblogSize: 8, BblogOffset: 16,
			Utime: 1_700_000_100, Events: 42, ResyncOffset: all, MaxDev: 128,
		},
		DevRoles: make(DevRoles, 128),
	}

	for i := range raw.DevRoles {
		raw.DevRoles[i] = raid.RoleSpare
	}

	raw.DevRoles[0], raw.DevRoles[1], raw.DevRoles[3] = 0, 1, 2

	for _, edit := range edits {
		edit(raw)
	}

	return raw
}

// device returns a device with superblocks at their super_offset.
func device(supers ...*Raw) []byte {
	image := make([]byte, deviceSize.Bytes())
	for _, raw := range supers {
		copy(image[raid.Sectors(raw.SuperOffset).Bytes():], raw.Encode())
	}

	return image
}

func source(image []byte) metadata.Source {
	return metadata.Source{
		ReaderAt: bytes.NewReader(image),
		Size:     raid.Sectors(len(image) / raid.SectorSize),
		Block:    raid.SectorSize,
	}
}

// at1v0 and at1v1 move a sample to where the other minor versions keep it.
func at1v0(raw *Raw) {
	raw.SuperOffset, raw.DataOffset, raw.DataSize, raw.BblogOffset = 32752, 0, 32736, -8
}

func at1v1(raw *Raw) { raw.SuperOffset = 0 }

func mustProbe(tb testing.TB, src metadata.Source) *metadata.Superblock {
	tb.Helper()

	sb, err := Format{}.Probe(src)
	if err != nil {
		tb.Fatal(err)
	}

	return sb
}

// disks are the devices of an array under test.
type disks [][]byte

// newDisks returns one device for each superblock.
func newDisks(supers ...*Raw) disks {
	var d disks
	for _, raw := range supers {
		d = append(d, device(raw))
	}

	return d
}

// array returns superblocks of n members of a RAID5 of three, the first three
// in sync in order of their numbers and the others spares.
func array(n int, edits ...func(*Raw)) []*Raw {
	supers := make([]*Raw, n)
	for i := range supers {
		supers[i] = sample(edits...)
		supers[i].DevNumber = uint32(i)
		supers[i].DeviceUUID = UUID{0: 0xbb, 15: byte(i)}
		copy(supers[i].DevRoles, DevRoles{0, 1, 2, raid.RoleSpare})
	}

	return supers
}

// apply carries out the writes of stages.
func (d disks) apply(tb testing.TB, stages [][]metadata.Write) {
	tb.Helper()

	for _, stage := range stages {
		for _, w := range stage {
			if at := w.Sector.Bytes(); at < 0 || at+int64(len(w.Data)) > int64(len(d[w.Member])) {
				tb.Fatalf("write of %d bytes at sector %d of member %d", len(w.Data), w.Sector, w.Member)
			}

			copy(d[w.Member][w.Sector.Bytes():], w.Data)
		}
	}
}

func (d disks) clone() disks {
	var all disks
	for _, image := range d {
		all = append(all, slices.Clone(image))
	}

	return all
}

func (d disks) probe(tb testing.TB) []*metadata.Superblock {
	tb.Helper()

	var supers []*metadata.Superblock
	for _, image := range d {
		supers = append(supers, mustProbe(tb, source(image)))
	}

	return supers
}

func (d disks) attachments(tb testing.TB) []metadata.Attachment {
	tb.Helper()

	var members []metadata.Attachment
	for _, image := range d {
		members = append(members, metadata.Attachment{Superblock: mustProbe(tb, source(image)), Source: source(image)})
	}

	return members
}

func (d disks) keep(tb testing.TB) metadata.Keeper {
	tb.Helper()

	k, err := Format{}.Keep(d.attachments(tb))
	if err != nil {
		tb.Fatal(err)
	}

	return k
}

// records makes a State's members of what each device is, by id.
func records(members ...metadata.MemberRecord) map[metadata.MemberID]metadata.MemberRecord {
	m := map[metadata.MemberID]metadata.MemberRecord{}
	for id, record := range members {
		if record.State != "" {
			m[metadata.MemberID(id)] = record
		}
	}

	return m
}

func inSync(slot raid.Slot) metadata.MemberRecord {
	return metadata.MemberRecord{State: raid.InSync, Slot: slot}
}

func recovering(slot raid.Slot, recovered raid.Sectors) metadata.MemberRecord {
	return metadata.MemberRecord{State: raid.Recovering, Slot: slot, Recovered: recovered}
}

func faulty(slot raid.Slot) metadata.MemberRecord {
	return metadata.MemberRecord{State: raid.Faulty, Slot: slot}
}

func spare() metadata.MemberRecord {
	return metadata.MemberRecord{State: raid.Spare, Slot: raid.NoSlot}
}

// gone is a device that is not in a State.
func gone() metadata.MemberRecord { return metadata.MemberRecord{} }

func versionOf(m int) string { return minor(m).String() }
