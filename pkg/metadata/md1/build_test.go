package md1

import (
	"bytes"
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
