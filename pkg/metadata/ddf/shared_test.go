package ddf

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

func attach(tb testing.TB, array raid.UUID, all []conformance.Disk) []metadata.Attachment {
	tb.Helper()

	var members []metadata.Attachment

	for i := range all {
		sb, err := Format{}.Probe(all[i].Source())
		if err != nil {
			tb.Fatal(err)
		}

		if one := sb.Of(array); one != nil {
			sb = one
		}

		members = append(members, metadata.Attachment{Superblock: sb, Source: all[i].Source()})
	}

	return members
}

func inSync(slots ...raid.Slot) map[metadata.MemberID]metadata.MemberRecord {
	members := map[metadata.MemberID]metadata.MemberRecord{}
	for i, slot := range slots {
		members[metadata.MemberID(i)] = metadata.MemberRecord{State: raid.InSync, Slot: slot}
	}

	return members
}

// TestTwoArrays: what one running array says leaves what the other says, and a
// disk that fails in one has failed in both.
func TestTwoArrays(t *testing.T) {
	g := raid.Geometry{Level: raid.Level1, Disks: 2, Size: 1024}
	all := blanks(2, 512)
	one := makeArray(t, all, small, metadata.NewArray{Name: "a", Geometry: g, AssumeClean: true})
	two := makeArray(t, all, small, metadata.NewArray{Name: "bb", Geometry: g, AssumeClean: true})

	a, err := Format{}.Keep(attach(t, one, all))
	if err != nil {
		t.Fatal(err)
	}

	b, err := Format{}.Keep(attach(t, two, all), a)
	if err != nil {
		t.Fatal(err)
	}

	apply(all, a.Record(metadata.State{Members: inSync(0, 1), Now: now}))
	apply(all, b.Record(metadata.State{Members: inSync(0, 1), ResyncOffset: raid.MaxSectors, Now: now}))

	for _, m := range attach(t, one, all) {
		if first, other := m.Superblock, m.Superblock.Raw.(*Raw); first.Clean() || len(other.Configs) != 2 {
			t.Errorf("array a is clean: %t, %d records", first.Clean(), len(other.Configs))
		}
	}

	for _, m := range attach(t, two, all) {
		if !m.Superblock.Clean() {
			t.Error("array bb is dirty")
		}
	}

	failed := inSync(0, 1)
	failed[1] = metadata.MemberRecord{State: raid.Faulty, Slot: 1}
	apply(all, b.Record(metadata.State{Members: failed, Now: now}))
	apply(all, a.Record(metadata.State{Members: inSync(0, 1), Now: now}))

	for _, array := range []raid.UUID{one, two} {
		sb := attach(t, array, all)[0].Superblock
		if sb.Role(1) != raid.RoleFaulty || sb.Role(0) != raid.Role(0) {
			t.Errorf("array %v: roles %v", array, sb.Roles)
		}
	}

	if said := examine(t, all[0].Image); strings.Count(said, "Failed") != 1 {
		t.Errorf("mdadm says:\n%s", said)
	}
}

// TestSpareOfTwo: a disk that is given to both arrays of a container has room for
// both, and takes the place of one that failed in both.
func TestSpareOfTwo(t *testing.T) {
	g := raid.Geometry{Level: raid.Level1, Disks: 2, Size: 1024}
	all := blanks(3, 512)
	uuids := []raid.UUID{
		makeArray(t, all[:2], small, metadata.NewArray{Name: "a", Geometry: g, AssumeClean: true}),
		makeArray(t, all[:2], small, metadata.NewArray{Name: "bb", Geometry: g, AssumeClean: true}),
	}

	var keepers []metadata.Keeper

	for _, uuid := range uuids {
		k, err := Format{}.Keep(attach(t, uuid, all[:2]), keepers...)
		if err != nil {
			t.Fatal(err)
		}

		keepers = append(keepers, k)
	}

	for i, k := range keepers {
		id, offset, size, err := k.Add(all[2].Source(), raid.UUID{5})
		if err != nil || id != 2 || offset != raid.Sectors(i)*g.Size || size < g.Size {
			t.Fatalf("Add() = %d, %d, %d, %v", id, offset, size, err)
		}
	}

	if _, err := keepers[0].Grow(2 * g.Size); err == nil {
		t.Error("one array grows over what the other is to have of the spare")
	}

	for _, state := range []raid.MemberState{raid.Spare, raid.Recovering, raid.InSync} {
		for _, k := range keepers {
			members := inSync(0)
			members[2] = metadata.MemberRecord{State: state, Slot: 1}

			if state == raid.Spare {
				members[1] = metadata.MemberRecord{State: raid.Faulty, Slot: 1}
			}

			apply(all, k.Record(metadata.State{Members: members, ResyncOffset: raid.MaxSectors, Now: now}))
		}
	}

	for i, uuid := range uuids {
		for _, m := range attach(t, uuid, []conformance.Disk{all[0], all[2]}) {
			sb := m.Superblock
			if sb.Array != uuid || sb.DataOffset != raid.Sectors(i)*g.Size || sb.RecoveryOffset != raid.MaxSectors {
				t.Errorf("array %v: %+v", uuid, sb)
			}
		}
	}

	said := examine(t, all[2].Image)
	for i, want := range []string{"2 (0@0K 2@0K)", "2 (0@512K 2@512K)"} {
		if got := words(said, "Raid Devices", i); got != want {
			t.Errorf("devices %q to mdadm, want %q in:\n%s", got, want, said)
		}
	}
}

// TestSpareStaysItself: a spare of the container that an array is given is the disk
// that it was, and not one more.
func TestSpareStaysItself(t *testing.T) {
	g := raid.Geometry{Level: raid.Level1, Disks: 2, Size: 1024}
	all := blanks(3, 512)
	array := makeArray(t, all, small, metadata.NewArray{Name: "a", Geometry: g, AssumeClean: true})
	before := attach(t, array, all)

	k, err := Format{}.Keep(before[:2])
	if err != nil {
		t.Fatal(err)
	}

	if _, _, _, err := k.Add(all[2].Source(), raid.UUID{5}); err != nil {
		t.Fatal(err)
	}

	members := inSync(0, 1)
	members[2] = metadata.MemberRecord{State: raid.InSync, Slot: 1}
	members[1] = metadata.MemberRecord{State: raid.Faulty, Slot: raid.NoSlot}
	members[0] = metadata.MemberRecord{State: raid.InSync, Slot: 0}
	apply(all, k.Record(metadata.State{Members: members, ResyncOffset: raid.MaxSectors, Now: now}))

	sb := attach(t, array, all)[2].Superblock
	if sb.Device != before[2].Superblock.Device || sb.Role(2) != raid.Role(1) || len(sb.Raw.(*Raw).PhysicalDisks) != 3 {
		t.Errorf("the spare was %+v and is %+v", before[2].Superblock, sb)
	}
}

// TestLeave: what an array says that has stopped counts no more, and a start that
// came to nothing leaves nothing.
func TestLeave(t *testing.T) {
	g := raid.Geometry{Level: raid.Level1, Disks: 2, Size: 1024}
	all := blanks(2, 512)
	one := makeArray(t, all, small, metadata.NewArray{Name: "a", Geometry: g, AssumeClean: true})
	two := makeArray(t, all, small, metadata.NewArray{Name: "bb", Geometry: g, AssumeClean: true})

	a, err := Format{}.Keep(attach(t, one, all))
	if err != nil {
		t.Fatal(err)
	}

	b, err := Format{}.Keep(attach(t, two, all), a)
	if err != nil {
		t.Fatal(err)
	}

	apply(all, a.Record(metadata.State{Members: inSync(0, 1), ResyncOffset: raid.MaxSectors, Now: now}))
	a.(metadata.Sharing).Leave()

	// Array a has used disk 1 to the end, and only it would say so still.
	apply(all, b.Record(metadata.State{Members: inSync(0), Now: now}))
	b.Forget(1)
	apply(all, b.Record(metadata.State{Members: inSync(0), Now: now}))

	sb := attach(t, two, all)[0].Superblock
	if p := sb.Raw.(*Raw).PhysicalDisks[1]; p.working() || p.State&pdMissing == 0 {
		t.Errorf("disk 1, which no array has: %+v", p)
	}
}

// TestOneCopy: where there is no secondary, a disk that was being written tells
// nothing, and not all of them are at once.
func TestOneCopy(t *testing.T) {
	all := blanks(3, 512)
	array := makeArray(t, all, small, metadata.NewArray{
		Name: "a", Geometry: raid.Geometry{Level: raid.Level5, Layout: raid.LeftSymmetric, Disks: 3, Chunk: 8}, AssumeClean: true,
	})

	for i := range all {
		r, err := load(all[i].Source())
		if err != nil {
			t.Fatal(err)
		}

		for _, at := range []raid.Sectors{r.anchorAt, r.copies[0].at} {
			head := all[i].Image[at.Bytes():][:512]
			r.form.order.PutUint64(head[offSecondaryLBA:], none64)
			r.form.inverted = true // as dmraid and FreeBSD have it
			r.form.seal(head)
			r.form.inverted = false
		}

		for _, s := range []Section{r.Header.Physical, r.Header.Virtual, r.Header.Data} {
			r.form.inverted = true
			r.form.seal(all[i].Image[(r.copies[0].at + raid.Sectors(s.Offset)).Bytes():][:raid.Sectors(s.Length).Bytes()])
			r.form.inverted = false
		}

		r.form.inverted = true
		r.form.seal(all[i].Image[r.copies[0].at.Bytes()+int64(r.copies[0].offset(r.Header.Config)):][:r.Header.recordSize()])
	}

	k, err := Format{}.Keep(attach(t, array, all))
	if err != nil {
		t.Fatal(err)
	}

	for _, stage := range k.Record(metadata.State{Members: inSync(0, 1, 2), Now: now}) {
		for _, w := range stage {
			copy(all[w.Member].Image[w.Sector.Bytes():], w.Data)
		}

		whole := 0

		for i := range all {
			if sb, err := (Format{}).Probe(all[i].Source()); err == nil && sb.Events >= 1 {
				whole++
			} else if !errors.Is(err, metadata.ErrCorrupt) {
				t.Error(err)
			}
		}

		if whole == 0 {
			t.Error("all disks are torn at once")
		}
	}

	if sb := attach(t, array, all)[2].Superblock; sb.Clean() || !sb.Raw.(*Raw).form.inverted {
		t.Errorf("clean: %t", sb.Clean())
	}
}

// TestErase: nothing is found afterwards, and nothing is left to erase.
func TestErase(t *testing.T) {
	all := blanks(2, 512)
	makeArray(t, all, small, metadata.NewArray{Name: "a", Geometry: raid.Geometry{Level: raid.Level1, Disks: 2}})

	writes, err := Format{}.Erase(all[0].Source())
	if err != nil || len(writes) != 3 {
		t.Fatalf("Erase() = %d writes, %v, want 3", len(writes), err)
	}

	apply(all, [][]metadata.Write{writes})

	if _, err := (Format{}).Probe(all[0].Source()); !errors.Is(err, metadata.ErrNotFound) {
		t.Errorf("Probe() error = %v", err)
	}

	if writes, err := (Format{}).Erase(all[0].Source()); err != nil || len(writes) != 0 {
		t.Errorf("Erase() again = %d writes, %v", len(writes), err)
	}
}

// TestRefuses: what the format cannot hold is named.
func TestRefuses(t *testing.T) {
	for want, p := range map[string]metadata.NewArray{
		"it has 2 or 3":  {Name: "a", Geometry: raid.Geometry{Level: raid.Level1, Disks: 4}},
		"there are":      {Name: "a", Geometry: raid.Geometry{Level: raid.Level5, Layout: raid.RightSymmetric, Disks: 4}},
		"1 to 16 bytes":  {Name: strings.Repeat("n", 17), Geometry: raid.Geometry{Level: raid.Level1, Disks: 2}},
		"power of two":   {Name: "a", Geometry: raid.Geometry{Level: raid.Level0, Disks: 2, Chunk: 24}},
		"neither bitmap": {Name: "a", Geometry: raid.Geometry{Level: raid.Level1, Disks: 2}, Bitmap: metadata.BitmapInternal},
		"room for 4096":  {Name: "a", Geometry: raid.Geometry{Level: raid.Level1, Disks: 2, Size: 4097}},
	} {
		p.Version, p.Now = version, now
		if _, _, err := (Format{}).Create(p, membersOf(blanks(p.Disks, 512))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Create() error = %v, want %q", err, want)
		}
	}
}

// FuzzProbe changes bytes of the metadata and seals all records anew, so that
// what is checked is not only checksums: no panic, no memory beyond bounds, and
// what is accepted can be kept.
func FuzzProbe(f *testing.F) {
	f.Add(uint16(0), []byte{1, 2, 3})
	f.Add(uint16(offSections), []byte{0xff, 0xff, 0xff, 0xff})
	f.Add(uint16(512*6+offPrimaries), []byte{0, 2, 0x20, 6, 1})
	f.Add(uint16(1024+offMax), []byte{0xff})

	all := blanks(3, 512)
	if _, stages, err := create(metadata.NewArray{
		Version: version, Name: "a", Now: now, Array: raid.UUID{9, 8, 7, 6, 5, 4, 3, 2},
		Geometry: raid.Geometry{Level: raid.Level5, Layout: raid.LeftSymmetric, Disks: 3, Chunk: 8},
	}, small, membersOf(all)); err != nil {
		f.Fatal(err)
	} else {
		apply(all, stages)
	}

	r, err := load(all[0].Source())
	if err != nil {
		f.Fatal(err)
	}

	clean := bytes.Clone(all[0].Image)

	f.Fuzz(func(t *testing.T, at uint16, change []byte) {
		disk := conformance.Disk{Image: bytes.Clone(clean), Block: 512}

		for _, a := range r.copies {
			image := disk.Image[a.start.Bytes():][:len(a.image)]
			copy(image[min(int(at), len(image)):], change)

			for _, s := range []Section{{0, 1}, a.header.Physical, a.header.Virtual, a.header.Data} {
				a.form.seal(image[a.offset(s):][:raid.Sectors(s.Length).Bytes()])
			}

			a.form.seal(image[a.offset(a.header.Config):][:a.header.recordSize()])
		}

		var before, after runtime.MemStats

		runtime.ReadMemStats(&before)
		sb, err := Format{}.Probe(disk.Source())
		runtime.ReadMemStats(&after)

		if took := after.TotalAlloc - before.TotalAlloc; took > 16<<20 {
			t.Errorf("Probe() took %d bytes", took)
		}

		if err != nil || sb.Unsupported != "" || sb.Array.IsZero() {
			return
		}

		k, err := Format{}.Keep([]metadata.Attachment{{Superblock: sb, Source: disk.Source()}})
		if err != nil {
			return
		}

		slot, ok := sb.Role(sb.Number).Slot()
		if !ok {
			return
		}

		for _, stage := range k.Record(metadata.State{Members: inSync(slot), Now: now}) {
			for _, w := range stage {
				end := w.Sector + raid.Sectors(len(w.Data)/raid.SectorSize)
				if w.Sector < sb.DataOffset+sb.DataSize && end > sb.DataOffset || end > disk.Source().Size {
					t.Errorf("writes sectors %d to %d, the data is at %d+%d", w.Sector, end, sb.DataOffset, sb.DataSize)
				}
			}
		}
	})
}
