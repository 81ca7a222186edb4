package md1

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// TestAdd adds devices of several sizes to arrays at every minor version, and
// has Probe read what was made of them.
func TestAdd(t *testing.T) {
	// 1.0 on a device of 32768 sectors: superblock at 32752, 8 sectors of bad
	// block log before it, and 8 for a bitmap where they are not needed.
	old := func(size uint64) func(*Raw) {
		return func(r *Raw) { at1v0(r); r.Size, r.Chunksize = size, 8 }
	}

	for _, tt := range []struct {
		name         string
		edit         func(*Raw)
		size         raid.Sectors // of the device
		offset, data raid.Sectors
		msg          string
	}{
		{name: "1.2", edit: func(*Raw) {}, size: 32768, offset: 2048, data: 30720},
		{name: "1.2, larger", edit: func(*Raw) {}, size: 40001, offset: 2048, data: 37953},
		{
			name: "1.2, too small", edit: func(*Raw) {}, size: 32767,
			msg: "32767 sectors are too few: the array uses 30720 of each member from sector 2048, there are 30719",
		},
		{name: "1.2, far too small", edit: func(*Raw) {}, size: 2047, msg: "there are 0"},
		{name: "1.2, tiny", edit: func(*Raw) {}, size: 23, msg: "no room for a 1.2 superblock on 23 sectors"},
		{name: "1.1", edit: at1v1, size: 32768, offset: 2048, data: 30720},
		{name: "1.0", edit: old(30720), size: 32768, data: 32736},
		{name: "1.0, odd size", edit: old(30720), size: 32771, data: 32736},
		{name: "1.0, just fits", edit: old(32736), size: 32760, data: 32736},
		{
			name: "1.0, too small", edit: old(32736), size: 32752,
			msg: "uses 32736 of each member from sector 0, there are 32728",
		},
		{
			name: "1.0 with a bitmap", edit: func(r *Raw) {
				old(30720)(r)
				r.FeatureMap, r.BitmapOffset = FeatureBitmapOffset, -128
			}, size: 32768, data: 32624,
		},
		{
			name: "level 0", edit: func(r *Raw) { r.Level = 0 }, size: 32768, msg: "raid0 has no use for a spare",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := disks{device(array(1, tt.edit)[0])}
			k := d.keep(t)
			blank := make([]byte, tt.size.Bytes())

			id, offset, data, err := k.Add(source(blank), raid.UUID{1})
			if tt.msg != "" {
				if err == nil || !strings.Contains(err.Error(), tt.msg) {
					t.Fatalf("Add() error = %v, want ...%s...", err, tt.msg)
				}

				return
			}

			if err != nil || id != 1 || offset != tt.offset || data != tt.data {
				t.Fatalf("Add() = %d, %d, %d, %v, want 1, %d, %d", id, offset, data, err, tt.offset, tt.data)
			}

			d = append(d, blank)
			d.apply(t, k.Record(metadata.State{Members: records(inSync(0), spare()), Now: now}))

			sb := d.probe(t)[1]
			if sb.Number != 3 || sb.DataOffset != offset || sb.DataSize != data || sb.Device != (raid.UUID{1}) {
				t.Errorf("Probe() = number %d, data %d+%d, device %v", sb.Number, sb.DataOffset, sb.DataSize, sb.Device)
			}

			if role := sb.Role(sb.Number); role != raid.RoleSpare || sb.RecoveryOffset != raid.MaxSectors {
				t.Errorf("Probe() = role %v, recovery offset %d", role, sb.RecoveryOffset)
			}
		})
	}
}

// TestAddNumbers checks which numbers new devices get, and that the role table
// grows when there is none left.
func TestAddNumbers(t *testing.T) {
	supers := array(3)
	for number := range 128 {
		if number > 2 && number != 5 && number != 7 {
			supers[0].DevRoles[number] = raid.RoleFaulty
		}
	}

	d := newDisks(supers...)
	k := d.keep(t)

	add := func() int {
		t.Helper()

		d = append(d, make([]byte, deviceSize.Bytes()))

		id, _, _, err := k.Add(source(d[len(d)-1]), raid.UUID{})
		if err != nil {
			t.Fatal(err)
		}

		if int(id) != len(d)-1 {
			t.Fatalf("Add() = %d, want an id that was never used", id)
		}

		return k.(*keeper).members[id].number
	}

	got := []int{add(), add(), add()}
	k.Forget(1) // was number 1
	k.Forget(4) // was number 7
	got = append(got, add(), add(), add())

	// 7 was nobody's yet, 1 is what a superblock still says that it is.
	if want := []int{5, 7, 128, 7, 129, 130}; !slices.Equal(got, want) {
		t.Errorf("numbers = %v, want %v", got, want)
	}

	d.apply(t, k.Record(metadata.State{Members: records(
		inSync(0), gone(), inSync(2), spare(), gone(), spare(), inSync(1), spare(), spare(),
	), Now: now}))

	k.Forget(3)

	if got := add(); got == 5 {
		t.Error("number 5 is used again while a superblock says that it is another device's")
	}

	for _, i := range []int{0, 2, 3, 5, 6, 7, 8} {
		sb := mustProbe(t, source(d[i]))
		if len(sb.Roles) != 384 || sb.Role(7) != 1 || sb.Role(2) != 2 || sb.Role(128) != raid.RoleSpare {
			t.Errorf("device %d: %d roles %v", i, len(sb.Roles), sb.Roles[:5])
		}
	}
}

// TestAddManyNumbers takes every number there is.
func TestAddManyNumbers(t *testing.T) {
	d := newDisks(array(1, func(r *Raw) { r.DevRoles[100] = raid.RoleFaulty })...)
	k := d.keep(t)
	blank := source(make([]byte, deviceSize.Bytes()))

	// The bad block log is at sector 16, a superblock may fill the 8 before it.
	for range maxRoles - 1 {
		if _, _, _, err := k.Add(blank, raid.UUID{}); err != nil {
			t.Fatal(err)
		}
	}

	if got := k.(*keeper).members[maxRoles-1].number; got != 100 {
		t.Errorf("the last number = %d, want the absent device's that is the highest", got)
	}

	_, _, _, err := k.Add(blank, raid.UUID{})
	if err == nil || !strings.Contains(err.Error(), "all of 1920 device numbers are taken") {
		t.Errorf("Add() error = %v", err)
	}
}

// TestAddErases checks that a device with superblocks of its own has but one
// afterwards, and that what is no superblock is left alone.
func TestAddErases(t *testing.T) {
	d := newDisks(array(3)...)
	k := d.keep(t)

	left := device(sample(at1v0), sample(at1v1, func(r *Raw) { r.DataOffset = 16 }))
	id, _, _, err := k.Add(source(left), raid.UUID{1})
	d = append(d, left)

	if err != nil {
		t.Fatal(err)
	}

	d.apply(t, k.Record(metadata.State{Members: records(inSync(0), inSync(1), inSync(2), spare()), Now: now}))
	mustProbe(t, source(d[id]))

	partitioned := make([]byte, deviceSize.Bytes())
	partitioned[510], partitioned[511] = 0x55, 0xaa

	id, _, _, err = k.Add(source(partitioned), raid.UUID{2})
	d = append(d, partitioned)

	if err != nil {
		t.Fatal(err)
	}

	d.apply(t, k.Record(metadata.State{Members: records(inSync(0), inSync(1), inSync(2), spare(), spare()), Now: now}))
	mustProbe(t, source(d[id]))

	if partitioned[510] != 0x55 {
		t.Error("a partition table was erased")
	}

	src := source(make([]byte, deviceSize.Bytes()))
	src.ReaderAt = badSectors{src.ReaderAt, 0, 512}

	if _, _, _, err := k.Add(src, raid.UUID{3}); !errors.Is(err, errMedium) {
		t.Errorf("Add() error = %v, want %v", err, errMedium)
	}
}

// TestAddBitmapMisplaced checks that a bitmap is never written over what it
// would damage.
func TestAddBitmapMisplaced(t *testing.T) {
	for name, tt := range map[string]struct {
		offset int32
		block  int
		msg    string
	}{
		"in the data":           {4096, 512, "would lie over the data"},
		"across the start":      {2039, 4096, "in blocks of 4096 bytes"},
		"over the superblock":   {3, 512, "would lie over the data or the superblock"},
		"off the blocks":        {10, 4096, "a bitmap at sector 18, in blocks of 4096 bytes"},
		"before the device":     {-16, 512, "a bitmap at sector -8"},
		"fits":                  {16, 4096, ""},
		"right before the data": {2039, 512, ""},
	} {
		t.Run(name, func(t *testing.T) {
			raw := sample(func(r *Raw) { r.FeatureMap, r.BitmapOffset = FeatureBitmapOffset, tt.offset })

			w, err := bitmapWrite(raw, &bitmap{}, tt.block)
			if tt.msg == "" && err != nil || tt.msg != "" && (err == nil || !strings.Contains(err.Error(), tt.msg)) {
				t.Errorf("bitmapWrite() = %v, %v, want %q", w, err, tt.msg)
			}
		})
	}
}

func TestRoleMax(t *testing.T) {
	for name, tt := range map[string]struct {
		edit func(*Raw)
		want int
	}{
		"a whole block":   {func(*Raw) {}, maxRoles},
		"1.0":             {at1v0, maxRoles},
		"bitmap":          {func(r *Raw) { r.FeatureMap, r.BitmapOffset = FeatureBitmapOffset, 2 }, 384},
		"bitmap before":   {func(r *Raw) { r.FeatureMap, r.BitmapOffset = FeatureBitmapOffset, -8 }, maxRoles},
		"no bitmap":       {func(r *Raw) { r.BitmapOffset = 2 }, maxRoles},
		"bad blocks":      {func(r *Raw) { r.BblogOffset = 1 }, 128},
		"no bad blocks":   {func(r *Raw) { r.BblogOffset, r.BblogSize = 1, 0 }, maxRoles},
		"data":            {func(r *Raw) { r.DataOffset = 10 }, 384},
		"data far behind": {func(r *Raw) { r.DataOffset = 1 << 62 }, maxRoles},
	} {
		if got := sample(tt.edit).roleMax(); got != tt.want {
			t.Errorf("%s: roleMax() = %d, want %d", name, got, tt.want)
		}
	}
}
