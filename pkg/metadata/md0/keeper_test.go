package md0

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

var mirror = raid.Geometry{Level: raid.Level1, Disks: 2}

// TestCatchUp: a member that is one event behind is brought to where the others
// are before it may fall behind by another.
func TestCatchUp(t *testing.T) {
	disks := blanks(2, 512)
	makeArray(t, disks, mirror)

	k := keep(t, disks)
	behind := bytes.Clone(disks[1].Image)
	apply(disks, k.Record(state(inSync(0), inSync(1))))
	copy(disks[1].Image, behind)

	k = keep(t, disks)
	events := k.Events()

	stages := k.Record(state(inSync(0), inSync(1)))
	if w := stages[0][0]; len(stages[0]) != 1 || w.Member != 1 || len(stages) != 2 {
		t.Fatalf("Record() = %d stages, the first to %d", len(stages), w.Member)
	}

	apply(disks, stages[:1])

	if got := mustProbe(t, disks[1].Source()).Events; got != events {
		t.Errorf("%d events, want %d", got, events)
	}

	apply(disks, stages[1:])

	for i := range disks {
		if got := mustProbe(t, disks[i].Source()).Events; got != events+1 {
			t.Errorf("%d events, want %d", got, events+1)
		}
	}
}

// TestNumbers: of 27 numbers there is one for each slot and each device that is
// not in sync, and one that is faulty goes without if there is none left.
func TestNumbers(t *testing.T) {
	disks := blanks(maxDisks, 512)
	makeArray(t, disks, mirror)
	k := keep(t, disks)

	fresh := blanks(1, 512)[0]
	if _, _, _, err := k.Add(fresh.Source(), raid.UUID{}); err == nil || !strings.Contains(err.Error(), "27") {
		t.Errorf("Add() of a 28th device: %v", err)
	}

	members := []metadata.MemberRecord{faulty(0), inSync(1)}
	for range maxDisks - 2 {
		members = append(members, spare())
	}

	apply(disks, k.Record(state(members...)))

	sb := mustProbe(t, disks[maxDisks-1].Source())
	if sb.Number != maxDisks-1 || sb.Role(0) != raid.RoleFaulty || sb.Role(1) != 1 {
		t.Errorf("%+v", sb)
	}
}

// TestKeepRefuses: what Keep is not to be given.
func TestKeepRefuses(t *testing.T) {
	disks := blanks(2, 512)
	makeArray(t, disks, mirror)

	other := blanks(2, 512)
	makeArray(t, other, mirror, func(p *metadata.NewArray) { p.Array[0]++ })

	odd := disks[1]
	odd.Image = swapped(t, odd.Image)

	far := disks[0]
	far.Image = bytes.Clone(far.Image)
	sb := super(t, far.Image)
	binary.LittleEndian.PutUint32(sb[40*4:], 1<<31)
	putSum(sb)

	for name, devices := range map[string][]conformance.Disk{
		"another array": {disks[0], other[1]}, "another byte order": {disks[0], odd}, "no events left": {far},
	} {
		var members []metadata.Attachment
		for i := range devices {
			members = append(members, metadata.Attachment{Superblock: mustProbe(t, devices[i].Source()), Source: devices[i].Source()})
		}

		if _, err := (Format{}).Keep(members); err == nil {
			t.Errorf("%s is kept", name)
		}
	}
}

// TestGrow: an array grows into what its members have, in whole KiB and chunks.
func TestGrow(t *testing.T) {
	g := raid.Geometry{Level: raid.Level5, Layout: raid.LeftSymmetric, Disks: 3, Chunk: 16, Size: 160}
	disks := blanks(3, 512)
	makeArray(t, disks, g)
	k := keep(t, disks)

	for _, tt := range []struct{ size, want raid.Sectors }{{160, 0}, {100, 0}, {5000, 0}, {333, 320}, {0, 896}} {
		got, err := k.Grow(tt.size)
		if got != tt.want || (err == nil) != (tt.want > 0) {
			t.Errorf("Grow(%d) = %d, %v, want %d", tt.size, got, err, tt.want)
		}

		apply(disks, k.Record(state(inSync(0), inSync(1), inSync(2))))

		if sb := mustProbe(t, disks[2].Source()); tt.want > 0 && sb.Size != tt.want {
			t.Errorf("size %d, want %d", sb.Size, tt.want)
		}
	}
}

// TestBitmapIsNotBelieved: a bitmap of md's falls behind at once, on members and
// on those that are added, and is said to be there as before.
func TestBitmapIsNotBelieved(t *testing.T) {
	disks := blanks(3, 512)
	makeArray(t, disks[:2], mirror)

	const ahead = 7

	for i := range disks[:2] {
		sb := super(t, disks[i].Image)
		binary.LittleEndian.PutUint32(sb[33*4:], bitClean|bitBitmap)
		putSum(sb)

		at, _ := place(disks[i].Source().Size)
		header := disks[i].Image[at.Bytes()+blockSize:]
		binary.LittleEndian.PutUint32(header, bitmapMagic)
		copy(header[offBitmapUUID:], sb[5*4:6*4])
		copy(header[offBitmapUUID+4:], sb[13*4:16*4])
		binary.LittleEndian.PutUint64(header[offBitmapEvents:], ahead)
	}

	k := keep(t, disks[:2])
	if k.Bitmap() != nil {
		t.Error("the bitmap is kept")
	}

	id, _, _, err := k.Add(disks[2].Source(), raid.UUID{})
	if err != nil {
		t.Fatal(err)
	}

	apply(disks, k.Record(state(inSync(0), inSync(1), spare())))

	for i := range disks {
		sb := mustProbe(t, disks[i].Source())
		raw := sb.Raw.(*Raw)

		header := readBitmap(raw, disks[i].Source())
		if header == nil || raw.State&bitBitmap == 0 {
			t.Fatalf("device %d: state %#x, bitmap %v", i, raw.State, header)
		}

		want := uint64(ahead)
		if i == int(id) {
			want = 0
		}

		if got := binary.LittleEndian.Uint64(header[offBitmapEvents:]); got != want || got >= sb.Events {
			t.Errorf("device %d: %d events in the bitmap, %d in the superblock", i, got, sb.Events)
		}
	}

	if _, err := k.Grow(0); err == nil || !strings.Contains(err.Error(), "bitmap") {
		t.Errorf("Grow() = %v", err)
	}
}

// TestFlags: what the administrator said of a member stays, whoever is written.
func TestFlags(t *testing.T) {
	disks := blanks(2, 512)

	_, stages, err := Format{}.Create(metadata.NewArray{
		Version: version, Array: raid.UUID{1}, Name: "md3", Geometry: mirror, Now: now,
	}, []metadata.NewMember{{Source: disks[0].Source()}, {Source: disks[1].Source(), WriteMostly: true, FailFast: true}})
	if err != nil {
		t.Fatal(err)
	}

	apply(disks, stages)

	for range 2 {
		for i := range disks {
			sb := mustProbe(t, disks[i].Source())
			if sb.WriteMostly != (i == 1) || sb.FailFast != (i == 1) || sb.Name != "md3" {
				t.Errorf("device %d: %+v", i, sb)
			}
		}

		apply(disks, keep(t, disks).Record(state(inSync(0), inSync(1))))
	}
}

// TestCreateRefuses: limits are named.
func TestCreateRefuses(t *testing.T) {
	for _, tt := range []struct {
		edit func(*metadata.NewArray, *[]conformance.Disk)
		says string
	}{
		{func(p *metadata.NewArray, _ *[]conformance.Disk) { p.Name = "data" }, "such as md0"},
		{func(p *metadata.NewArray, _ *[]conformance.Disk) { p.Name = "md1048576" }, "such as md0"},
		{func(p *metadata.NewArray, _ *[]conformance.Disk) { p.Name = "7" }, "such as md0"},
		{func(p *metadata.NewArray, _ *[]conformance.Disk) { p.Name = "md07" }, "such as md0"},
		{func(p *metadata.NewArray, _ *[]conformance.Disk) { p.Version = "1.2" }, "1.2"},
		{func(p *metadata.NewArray, _ *[]conformance.Disk) { p.PPL = true }, "partial parity"},
		{func(p *metadata.NewArray, _ *[]conformance.Disk) { p.Bitmap = metadata.BitmapInternal }, "bitmap"},
		{func(p *metadata.NewArray, _ *[]conformance.Disk) { p.Size = 5000 }, "room for 896"},
		{func(p *metadata.NewArray, _ *[]conformance.Disk) { p.Size = 33 }, "even"},
		{func(p *metadata.NewArray, _ *[]conformance.Disk) { p.Disks = 4 }, "4 slots"},
		{func(_ *metadata.NewArray, d *[]conformance.Disk) { *d = blanks(28, 512) }, "27"},
		{func(_ *metadata.NewArray, d *[]conformance.Disk) { (*d)[1].Image = (*d)[1].Image[:100<<9] }, "no room"},
		{func(_ *metadata.NewArray, d *[]conformance.Disk) { (*d)[1].Block = 8192 }, "blocks of 8192"},
		{func(p *metadata.NewArray, d *[]conformance.Disk) {
			p.Level, p.Chunk = raid.Level0, 16
			(*d)[1].Image = append((*d)[1].Image, make([]byte, 64<<10)...)
		}, "one size"},
		{func(p *metadata.NewArray, d *[]conformance.Disk) {
			p.Level = raid.LevelLinear
			*d = blanks(3, 512)
		}, "no use for a spare"},
	} {
		disks := blanks(2, 512)
		p := metadata.NewArray{Version: version, Array: raid.UUID{1}, Name: "md0", Geometry: mirror, Now: now}
		tt.edit(&p, &disks)

		var members []metadata.NewMember
		for i := range disks {
			members = append(members, metadata.NewMember{Source: disks[i].Source()})
		}

		if _, _, err := (Format{}).Create(p, members); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("Create() error = %v, want %q in it", err, tt.says)
		}
	}
}

// TestErase: nothing is found afterwards, and what is no superblock stays.
func TestErase(t *testing.T) {
	disks := blanks(3, 512)
	makeArray(t, disks[:2], mirror)
	copy(disks[2].Image, disks[0].Image)
	disks[1].Image = swapped(t, disks[1].Image)

	at, _ := place(disks[2].Source().Size)
	disks[2].Image[at.Bytes()+4] = 7 // a version that nobody knows

	for i := range disks {
		writes, err := Format{}.Erase(disks[i].Source())
		if err != nil || len(writes) != 1 {
			t.Fatalf("Erase() = %v, %v", writes, err)
		}

		copy(disks[i].Image[writes[0].Sector.Bytes():], writes[0].Data)

		again, err := Format{}.Erase(disks[i].Source())
		if sb, probed := (Format{}).Probe(disks[i].Source()); err != nil || len(again) != 0 || sb != nil || probed == nil {
			t.Errorf("erased: %v, %v, %+v", again, err, sb)
		}
	}
}

// TestMissing: a slot without a device is open.
func TestMissing(t *testing.T) {
	disks := blanks(1, 512)

	_, stages, err := Format{}.Create(metadata.NewArray{
		Version: version, Array: raid.UUID{1}, Name: "md0", Geometry: mirror, Now: now,
	}, []metadata.NewMember{{}, {Source: disks[0].Source()}})
	if err != nil {
		t.Fatal(err)
	}

	for _, w := range slices.Concat(stages...) {
		copy(disks[0].Image[w.Sector.Bytes():], w.Data)
	}

	if sb := mustProbe(t, disks[0].Source()); sb.Role(0) != raid.RoleFaulty || sb.Role(1) != 1 || sb.Number != 1 || sb.Clean() {
		t.Errorf("%+v", sb)
	}

	compareExamine(t, mustProbe(t, disks[0].Source()), examine(t, disks[0].Image))
}
