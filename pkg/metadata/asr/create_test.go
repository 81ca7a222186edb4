package asr

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

// TestCreateSample: of the same disks we make what the controller made, but for
// where the disks were attached, and for our stamp.
func TestCreateSample(t *testing.T) {
	image := sample(t)
	want := image[len(image)-17*raid.SectorSize:]
	p := params(raid.Geometry{Level: raid.Level0, Disks: 4, Chunk: 128})
	p.Name, p.Array = "ZERO", raid.UUID{0x2c, 0xa5, 0x85, 0x6a}

	var devices []metadata.NewMember
	for i := range 4 {
		d := metadata.NewMember{Source: sampleSource(make([]byte, 512))}
		copy(d.Device[:], lineOf(want, 1+i)[offMagic:][:4])
		devices = append(devices, d)
	}

	_, stages, err := Format{}.Create(p, devices)
	if err != nil || len(stages) != 2 || len(stages[0]) != 4 || len(stages[1]) != 4 {
		t.Fatalf("Create() = %v, %v", stages, err)
	}

	table, block := stages[0][0], stages[1][0]
	got := append(bytes.Clone(table.Data), block.Data...)

	if table.Sector != sampleSize-17 || block.Sector != sampleSize-1 || len(got) != len(want) {
		t.Fatalf("writes %d bytes, at sectors %d and %d", len(got), table.Sector, block.Sector)
	}

	for _, b := range [][]byte{got, want} {
		clear(b[offStamp:][:stampSize])
		clear(b[offSum:][:2])

		for i := range 5 {
			clear(lineOf(b, i)[13:20])
		}
	}

	if !bytes.Equal(got, want) {
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("byte %#x is %#x, want %#x", i, got[i], want[i])
			}
		}
	}
}

func TestStampSum(t *testing.T) {
	b := make([]byte, headSize)
	for i := range b {
		b[i] = byte(i * 7)
	}

	tied := append(bytes.Clone(b[offStamp:][:offOfSum]), b[offSpareArray:][:4]...)
	tied = order.AppendUint32(tied, 0x01020384)

	if got, want := stampSum(b, 0x01020384), crc32.ChecksumIEEE(tied); got != want {
		t.Errorf("stampSum() = %#x, want %#x", got, want)
	}
}

func TestCreate(t *testing.T) {
	all := blanks(3)
	p := params(raid.Geometry{Level: raid.Level1, Disks: 2})
	p.AssumeClean = false
	uuid := makeArray(t, all, p)

	for i := range all {
		sb := probe(t, &all[i])
		role := []raid.Role{0, 1, raid.RoleSpare}[i]

		// 17 sectors of metadata, and sizes in granules of 128 sectors.
		if sb.Array != uuid || sb.Role(sb.Number) != role || sb.Size != 3968 || sb.DataSize != deviceSize-17 || sb.Events != 1 ||
			sb.ResyncOffset != 0 || sb.Unsupported != "" || sb.Name != "vol" {
			t.Errorf("device %d: %+v", i, sb)
		}
	}

	r := probe(t, &all[0]).Raw.(*Raw)
	if spare := probe(t, &all[2]).Raw.(*Raw); r.Table.SpareDriveMagic != spare.Reserved.DriveMagic ||
		spare.Table.ArrayMagic != r.Lines[0].Magic || len(r.Lines) != 3 || len(spare.Lines) != 5 {
		t.Errorf("the table of a member is %+v, of the spare %+v", r.Table, spare.Table)
	}
}

// TestCreateMissing: a slot that is held open is that of a disk that has failed.
func TestCreateMissing(t *testing.T) {
	all := blanks(1)
	p := params(raid.Geometry{Level: raid.Level1, Disks: 2})
	_, stages, err := Format{}.Create(p, []metadata.NewMember{{}, membersOf(all)[0]})
	if err != nil || len(stages[0]) != 1 || stages[0][0].Member != 1 || stages[1][0].Member != 1 {
		t.Fatalf("Create() = %v, %v", stages, err)
	}

	stages[0][0].Member, stages[1][0].Member = 0, 0
	apply(all, stages)

	sb := probe(t, &all[0])
	if sb.Role(sb.Number) != 1 || sb.Raw.(*Raw).Lines[0].State != arrayDegraded || sb.Raw.(*Raw).Lines[1].State != memberFailed {
		t.Errorf("%+v", sb)
	}
}

func TestCreateRefuses(t *testing.T) {
	raid0, raid1 := raid.Geometry{Level: raid.Level0, Disks: 2}, raid.Geometry{Level: raid.Level1, Disks: 2}

	tests := []struct {
		want    string
		g       raid.Geometry
		devices int
		change  func(p *metadata.NewArray, d []metadata.NewMember)
	}{
		{"version", raid0, 2, func(p *metadata.NewArray, _ []metadata.NewMember) { p.Version = "1.2" }},
		{"raid0 and raid1", raid.Geometry{Level: raid.Level5, Disks: 3}, 3, nil},
		{"raid0 and raid1", raid.Geometry{Level: raid.Level10, Disks: 4}, 4, nil},
		{"of 2", raid.Geometry{Level: raid.Level1, Disks: 3}, 3, nil},
		{"2 to 64", raid.Geometry{Level: raid.Level0, Disks: 1}, 1, nil},
		{"2 to 64", raid.Geometry{Level: raid.Level0, Disks: 65}, 65, nil},
		{"1 devices", raid0, 1, nil},
		{"no use for a spare", raid0, 3, nil},
		{"no chunks", raid.Geometry{Level: raid.Level1, Disks: 2, Chunk: 8}, 2, nil},
		{"power of two", raid.Geometry{Level: raid.Level0, Disks: 2, Chunk: 24}, 2, nil},
		{"power of two", raid.Geometry{Level: raid.Level0, Disks: 2, Chunk: 32768}, 2, nil},
		{"whole chunks", raid.Geometry{Level: raid.Level0, Disks: 2, Size: 130}, 2, nil},
		{"5000 sectors", raid.Geometry{Level: raid.Level1, Disks: 2, Size: 5000}, 2, nil},
		{"name", raid1, 2, func(p *metadata.NewArray, _ []metadata.NewMember) { p.Name = "seventeen letters" }},
		{"bitmaps", raid1, 2, func(p *metadata.NewArray, _ []metadata.NewMember) { p.Bitmap = metadata.BitmapInternal }},
		{"missing", raid0, 2, func(_ *metadata.NewArray, d []metadata.NewMember) { d[1] = metadata.NewMember{} }},
		{"write-mostly", raid1, 2, func(_ *metadata.NewArray, d []metadata.NewMember) { d[1].WriteMostly = true }},
		{"blocks of 4096", raid1, 2, func(_ *metadata.NewArray, d []metadata.NewMember) { d[1].Block = 4096 }},
		{"has room for", raid1, 2, func(_ *metadata.NewArray, d []metadata.NewMember) { d[1].Size = 1<<32 + 100 }},
		{"has room for", raid1, 2, func(_ *metadata.NewArray, d []metadata.NewMember) { d[1].Size = 17 }},
	}

	for _, tt := range tests {
		p, devices := params(tt.g), membersOf(blanks(tt.devices))
		if tt.change != nil {
			tt.change(&p, devices)
		}

		if _, _, err := (Format{}).Create(p, devices); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: Create() error = %v, want %q", tt.g, err, tt.want)
		}
	}
}

// TestBlkid: libblkid takes what we made for what it is, at every state.
func TestBlkid(t *testing.T) {
	blkid := conformance.Tool(t, "blkid", "util-linux")
	all := blanks(4)
	makeArray(t, all[:3], params(raid.Geometry{Level: raid.Level1, Disks: 2}))

	k := keep(t, all[:3])
	if _, _, _, err := k.Add(all[3].Source(), raid.UUID{9}); err != nil {
		t.Fatal(err)
	}

	check := func(what string) {
		for i := range all {
			path := filepath.Join(t.TempDir(), fmt.Sprintf("m%d", i))
			if err := os.WriteFile(path, all[i].Image, 0o600); err != nil {
				t.Fatal(err)
			}

			out, err := exec.Command(blkid, "-p", path).CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte(`VERSION="8" TYPE="adaptec_raid_member"`)) {
				t.Errorf("%s: device %d: %s (%v)", what, i, out, err)
			}
		}
	}

	st := metadata.State{Members: map[metadata.MemberID]metadata.MemberRecord{
		0: {State: raid.InSync, Slot: 0}, 1: {State: raid.InSync, Slot: 1},
		2: {State: raid.Spare, Slot: raid.NoSlot}, 3: {State: raid.Spare, Slot: raid.NoSlot},
	}, Now: now}
	apply(all, k.Record(st))
	check("dirty")

	st.Members[0] = metadata.MemberRecord{State: raid.Faulty, Slot: 0}
	apply(all, k.Record(st))
	check("degraded")

	st.Members[3] = metadata.MemberRecord{State: raid.Recovering, Slot: 0}
	apply(all, k.Record(st))
	check("recovering")
}
