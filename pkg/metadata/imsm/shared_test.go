package imsm

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

func probe(tb testing.TB, d *conformance.Disk) *metadata.Superblock {
	tb.Helper()

	sb, err := Format{}.Probe(d.Source())
	if err != nil {
		tb.Fatal(err)
	}

	return sb
}

// attach returns disks as members of an array, or as spares.
func attach(tb testing.TB, array raid.UUID, all []conformance.Disk) []metadata.Attachment {
	tb.Helper()

	var members []metadata.Attachment

	for i := range all {
		sb := probe(tb, &all[i])
		if one := sb.Of(array); one != nil {
			sb = one
		}

		members = append(members, metadata.Attachment{Superblock: sb, Source: all[i].Source()})
	}

	return members
}

func keep(tb testing.TB, array raid.UUID, all []conformance.Disk, beside ...metadata.Keeper) metadata.Keeper {
	tb.Helper()

	k, err := Format{}.Keep(attach(tb, array, all), beside...)
	if err != nil {
		tb.Fatal(err)
	}

	return k
}

func inSync(slots ...raid.Slot) map[metadata.MemberID]metadata.MemberRecord {
	members := map[metadata.MemberID]metadata.MemberRecord{}
	for i, slot := range slots {
		members[metadata.MemberID(i)] = metadata.MemberRecord{State: raid.InSync, Slot: slot}
	}

	return members
}

// record returns a state that is clean but for resync.
func state(resync raid.Sectors, members map[metadata.MemberID]metadata.MemberRecord) metadata.State {
	return metadata.State{ResyncOffset: resync, Members: members, Now: now}
}

// rewrite changes the record of a disk and seals it.
func rewrite(tb testing.TB, d *conformance.Disk, change func(mpb []byte) []byte) {
	tb.Helper()

	r, err := loadRecord(d.Source())
	if err != nil {
		tb.Fatal(err)
	}

	mpb := change(bytes.Clone(r.mpb))
	order.PutUint32(mpb[offSize:], uint32(len(mpb)))
	putMark(mpb, false)
	order.PutUint32(mpb[offSum:], sum(mpb))

	src := d.Source()
	at, sectors := place(src, len(mpb))
	block := blockOf(src)
	mpb = append(mpb, make([]byte, int(sectors.Bytes())-len(mpb))...)
	copy(d.Image[at.Bytes():], mpb[block:])
	copy(d.Image[src.Size.Bytes()-int64(2*block):], mpb[:block])
}

// two makes a container with two volumes, and a blank disk.
func two(tb testing.TB, g raid.Geometry, block int) (all []conformance.Disk, one, other raid.UUID) {
	tb.Helper()

	all = blanks(g.Disks+1, block)
	g.Size = 2 * regionSectors
	one = makeArray(tb, all[:g.Disks], metadata.NewArray{Name: "one", Geometry: g, AssumeClean: true})
	g.Size = 0
	other = makeArray(tb, all[:g.Disks], metadata.NewArray{Name: "other", Geometry: g, AssumeClean: true})

	return all, one, other
}

// TestTwoVolumes: what one running volume says leaves what the other says, a disk
// that fails in one has failed in both, and a new one gets its place in each.
func TestTwoVolumes(t *testing.T) {
	for _, block := range []int{512, 4096} {
		g := raid.Geometry{Level: raid.Level5, Disks: 3, Chunk: 128}
		all, one, other := two(t, g, block)

		a := keep(t, one, all[:3])
		b := keep(t, other, all[:3], a)

		apply(all, a.Record(state(0, inSync(0, 1, 2))))
		apply(all, b.Record(state(raid.MaxSectors, inSync(0, 1, 2))))

		for i := range all[:3] {
			sb := probe(t, &all[i])
			if first, second := sb.Of(one), sb.Of(other); first.Clean() || !second.Clean() || first.Container != second.Container ||
				second.DataOffset != 2*regionSectors+reservedSectors || first.Events != b.Events() {
				t.Errorf("device %d: %+v and %+v", i, first, second)
			}
		}

		// It fails in the second, and the first has not heard of it.
		failed := inSync(0, 1, 2)
		failed[1] = metadata.MemberRecord{State: raid.Faulty, Slot: 1}
		apply(all, b.Record(state(0, failed)))

		before := bytes.Clone(all[1].Image)

		apply(all, a.Record(state(0, inSync(0, 1, 2))))

		if !bytes.Equal(before, all[1].Image) {
			t.Error("a disk that has failed is written")
		}

		for _, array := range []raid.UUID{one, other} {
			if sb := probe(t, &all[0]).Of(array); sb.Role(1) != raid.RoleFaulty || sb.Role(0) != 0 || sb.Role(2) != 2 {
				t.Errorf("array %v: roles %v", array, sb.Roles)
			}
		}

		fillBoth(t, all, a, b, one, other)
	}
}

// fillBoth has a new disk take the place of that in slot 1 in both volumes, of which
// a and b are the keepers.
func fillBoth(t *testing.T, all []conformance.Disk, a, b metadata.Keeper, one, other raid.UUID) {
	t.Helper()

	for i, k := range []metadata.Keeper{a, b} {
		k.Forget(1)

		id, offset, _, err := k.Add(all[3].Source(), raid.UUID{1})
		if err != nil || id != 3 || offset != probe(t, &all[0]).All()[i].DataOffset {
			t.Fatalf("Add() = %d, %d, %v", id, offset, err)
		}

		if _, _, _, err := k.Add(all[3].Source(), raid.UUID{1}); err == nil {
			t.Error("a disk is added twice")
		}
	}

	members := inSync(0, 1, 2)
	delete(members, 1)

	// The first fills it, and the second does not know what it is for.
	members[3] = metadata.MemberRecord{State: raid.Recovering, Slot: 1, Recovered: 1000}
	apply(all, a.Record(state(0, members)))

	members[3] = metadata.MemberRecord{State: raid.Spare, Slot: raid.NoSlot}
	apply(all, b.Record(state(0, members)))

	sb := probe(t, &all[3])
	if sb.Of(one) == nil || sb.Of(other) != nil || sb.Of(one).RecoveryOffset > 1000 {
		t.Fatalf("the new disk is %+v", sb)
	}

	members[3] = metadata.MemberRecord{State: raid.Recovering, Slot: 1}
	apply(all, b.Record(state(0, members)))

	members[3] = metadata.MemberRecord{State: raid.InSync, Slot: 1}
	apply(all, a.Record(state(raid.MaxSectors, members)))

	for i := range all {
		if i == 1 {
			continue
		}

		first, second := probe(t, &all[i]).Of(one), probe(t, &all[i]).Of(other)
		if slot, ok := first.Role(3).Slot(); !ok || slot != 1 || !first.Clean() || second.Clean() {
			t.Errorf("device %d: %+v and %+v", i, first, second)
		}

		if whole := i != 3; first.RecoveryOffset != raid.MaxSectors || (second.RecoveryOffset == raid.MaxSectors) != whole {
			t.Errorf("device %d: recovered to %d and %d", i, first.RecoveryOffset, second.RecoveryOffset)
		}
	}

	if stale := probe(t, &all[1]); stale.Events+2 > a.Events() {
		t.Errorf("the failed disk is at %d events of %d", stale.Events, a.Events())
	}
}

// TestLeave: a volume that has stopped has no disks any more, as far as the others
// know, and one whose start came to nothing neither.
func TestLeave(t *testing.T) {
	all, one, other := two(t, raid.Geometry{Level: raid.Level1, Disks: 2}, 512)
	a := keep(t, one, all[:2])
	b := keep(t, other, all[:2], a)

	if _, _, _, err := a.Add(all[2].Source(), raid.UUID{1}); err != nil {
		t.Fatal(err)
	}

	shared := b.(*keeper).container
	serial := SerialOf(all[2].Serial)

	if shared.attached(serial) == nil {
		t.Fatal("what one volume has the other does not know of")
	}

	a.(metadata.Sharing).Leave()

	if shared.attached(serial) != nil || shared.attached(SerialOf(all[0].Serial)) == nil {
		t.Error("a volume that has left has disks, or one that has not has none")
	}
}

// TestTablePlaces: a disk takes the place of one that failed only if an earlier
// record said so: else a crash could leave the failed one with the number of the
// new one, and no older than policy allows.
func TestTablePlaces(t *testing.T) {
	all := blanks(3, 512)
	array := makeArray(t, all, metadata.NewArray{Name: "a", Geometry: raid.Geometry{Level: raid.Level1, Disks: 2}, AssumeClean: true})
	k := keep(t, array, all)

	members := inSync(0, 1)
	members[0] = metadata.MemberRecord{State: raid.Faulty, Slot: 0}
	members[2] = metadata.MemberRecord{State: raid.Recovering, Slot: 0}
	apply(all, k.Record(state(0, members)))

	if sb := probe(t, &all[2]); sb.Number != 2 || sb.Role(0) != raid.RoleFaulty {
		t.Errorf("in the same record: number %d, roles %v", sb.Number, sb.Roles)
	}

	k.Forget(0)

	// The next one takes it, and not a further place.
	disk := blanks(4, 512)[3]

	id, _, _, err := k.Add(disk.Source(), raid.UUID{})
	if err != nil {
		t.Fatal(err)
	}

	all = append(all, disk)
	delete(members, 0)
	members[2] = metadata.MemberRecord{State: raid.Faulty, Slot: 0}
	apply(all, k.Record(state(0, members)))
	delete(members, 2)
	members[id] = metadata.MemberRecord{State: raid.Recovering, Slot: 0}
	apply(all, k.Record(state(0, members)))

	if sb := probe(t, &all[3]); sb.Number != 2 || len(sb.Roles) != 3 {
		t.Errorf("in a later record: number %d, roles %v", sb.Number, sb.Roles)
	}
}

// rebuildByMdadm has a RAID1 be rebuilt as mdadm writes it: the second map is what
// the volume is, and the third unit is under way.
func rebuildByMdadm(mpb []byte) []byte {
	at := headSize + 2*diskSize
	mpb[at+offMigrating], mpb[at+offMigration] = 1, migrationRebuild
	mpb[at+offUnit] = 3

	source := bytes.Clone(mpb[at+volSize:])
	source[offState] = stateDegraded
	putOrd(source, 1, 1, true)

	for _, m := range [][]byte{mpb[at+volSize:], source} {
		m[offFailedSlot] = 1
	}

	return append(mpb, source...)
}

// TestContinues: a rebuild that mdadm began is one, and begins anew; what we say of how
// far it came is so, for whichever unit is meant.
func TestContinues(t *testing.T) {
	all := blanks(2, 512)
	array := makeArray(t, all, metadata.NewArray{Name: "a", Geometry: raid.Geometry{Level: raid.Level1, Disks: 2}, AssumeClean: true})

	for i := range all {
		rewrite(t, &all[i], rebuildByMdadm)
	}

	for i, want := range []raid.Sectors{raid.MaxSectors, 0} {
		if sb := probe(t, &all[i]); sb.RecoveryOffset != want || sb.Unsupported != "" || !sb.Clean() {
			t.Errorf("device %d: %+v", i, sb)
		}
	}

	k := keep(t, array, all)
	members := inSync(0, 1)
	members[1] = metadata.MemberRecord{State: raid.Recovering, Slot: 1, Recovered: 5 * 512}
	apply(all, k.Record(state(raid.MaxSectors, members)))

	const done = 5 * 256 // mdadm means twice as much
	if sb := probe(t, &all[1]); sb.RecoveryOffset != done {
		t.Errorf("recovered to %d, want %d", sb.RecoveryOffset, done)
	}

	r := probe(t, &all[0]).Raw.(*Raw)
	if v := r.Volumes[0]; v.Migrating != 1 || v.Migration != migrationRebuild || v.Unit != 5 || v.Dirty != 0 ||
		v.Maps[0].State != stateNormal || v.Maps[1].State != stateDegraded || v.Maps[1].Ords[1] != ordRebuild|1 ||
		v.Maps[0].Ords[1] != 1 || v.Maps[0].FailedSlot != 1 {
		t.Errorf("under way: %+v", v)
	}

	apply(all, k.Record(state(raid.MaxSectors, inSync(0, 1))))

	r = probe(t, &all[1]).Raw.(*Raw)
	if v := r.Volumes[0]; v.Migrating != 0 || v.Migration != 0 || v.Unit != 0 || len(v.Maps) != 1 ||
		v.Maps[0].State != stateNormal || v.Maps[0].FailedSlot != noSlot {
		t.Errorf("finished: %+v", v)
	}
}

// TestSyncs: an initialisation and a repair are what mdadm calls so, and what is
// dirty is neither: it would go on from a checkpoint.
func TestSyncs(t *testing.T) {
	all := blanks(3, 512)
	array := makeArray(t, all, metadata.NewArray{Name: "a", Geometry: raid.Geometry{Level: raid.Level5, Disks: 3, Chunk: 128}})

	if v := probe(t, &all[0]).Raw.(*Raw).Volumes[0]; v.Dirty != volDirty || v.Maps[0].State != stateUninitialized {
		t.Errorf("new: %+v", v)
	}

	k := keep(t, array, all)

	for _, step := range []struct {
		resync    raid.Sectors
		migration uint8
		status    Hex
		states    []uint8
		dirty     uint8
	}{
		{0, 0, volCoalesce, []uint8{stateUninitialized}, volDirty},
		{1200, migrationInit, volCoalesce, []uint8{stateNormal, stateUninitialized}, 0},
		{0, 0, volCoalesce, []uint8{stateUninitialized}, volDirty},
		{raid.MaxSectors, 0, volCoalesce, []uint8{stateNormal}, 0},
		{0, 0, volCoalesce, []uint8{stateNormal}, volDirty},
		{1200, migrationVerify, volCoalesce | volFix, []uint8{stateNormal, stateNormal}, 0},
		{raid.MaxSectors, 0, volCoalesce, []uint8{stateNormal}, 0},
	} {
		apply(all, k.Record(state(step.resync, inSync(0, 1, 2))))

		sb := probe(t, &all[2])
		v := sb.Raw.(*Raw).Volumes[0]

		var states []uint8
		for _, m := range v.Maps {
			states = append(states, m.State)
		}

		if v.Migration != step.migration || v.Status != step.status || !bytes.Equal(states, step.states) || v.Dirty != step.dirty {
			t.Errorf("in sync to %d: %+v", step.resync, v)
		}

		// Three members of 128 sectors in a unit to mdadm, one to others.
		if step.resync == 1200 && (v.Unit != 3 || sb.ResyncOffset != 3*128) {
			t.Errorf("in sync to %d: unit %d, read as %d", step.resync, v.Unit, sb.ResyncOffset)
		}
	}
}

// TestUnsupported: what cannot be run is named.
func TestUnsupported(t *testing.T) {
	second := func(mpb []byte, kind uint8) []byte {
		mpb = rebuildByMdadm(mpb)
		mpb[headSize+2*diskSize+offMigration] = kind

		return mpb
	}

	at := headSize + 2*diskSize

	for want, change := range map[string]func(mpb []byte) []byte{
		"another shape":     func(mpb []byte) []byte { return second(mpb, migrationGeneral) },
		"state of the volu": func(mpb []byte) []byte { return second(mpb, migrationChange) },
		"type 9":            func(mpb []byte) []byte { return second(mpb, 9) },
		"level 7":           func(mpb []byte) []byte { mpb[at+volSize+offLevel] = 7; return mpb },
		"attributes 0x20,":  func(mpb []byte) []byte { mpb[offAttributes] |= 0x20; return mpb },
		"clone":             func(mpb []byte) []byte { mpb[at+offVolStatus+1] |= 4; return mpb },
		"bitmap":            func(mpb []byte) []byte { mpb[at+offPolicy] = policyBitmap; return mpb },
		"another disk":      func(mpb []byte) []byte { mpb[at+offPolicy] = policyJournals; return mpb },
		"policy 77":         func(mpb []byte) []byte { mpb[at+offPolicy] = 77; return mpb },
	} {
		all := blanks(2, 512)
		makeArray(t, all, metadata.NewArray{Name: "a", Geometry: raid.Geometry{Level: raid.Level1, Disks: 2}, AssumeClean: true})
		rewrite(t, &all[0], change)

		sb := probe(t, &all[0])
		if !strings.Contains(sb.Unsupported, want) {
			t.Errorf("unsupported %q, want %q", sb.Unsupported, want)
		}

		if k, err := (Format{}).Keep([]metadata.Attachment{{Superblock: sb, Source: all[0].Source()}}); err == nil {
			t.Errorf("Keep() = %v where %q", k, sb.Unsupported)
		}
	}
}

// TestCorrupt: what contradicts itself is not trusted.
func TestCorrupt(t *testing.T) {
	at := headSize + 2*diskSize

	for want, change := range map[string]func(mpb []byte) []byte{
		"disk 5 of 2":        func(mpb []byte) []byte { mpb[at+volSize+mapSize] = 5; return mpb },
		"two slots":          func(mpb []byte) []byte { mpb[at+volSize+mapSize] = 1; return mpb },
		"no members":         func(mpb []byte) []byte { mpb[at+volSize+offMembers] = 0; return mpb },
		"the metadata at":    func(mpb []byte) []byte { mpb[at+volSize+offStart+2] = 9; return mpb },
		"record ends":        func(mpb []byte) []byte { mpb[offVolCount] = 2; return mpb },
		"none of the contai": func(mpb []byte) []byte { mpb[headSize] = 'X'; return mpb },
		"no bad block log":   func(mpb []byte) []byte { mpb[offLogSize] = 8; return append(mpb, make([]byte, 8)...) },
	} {
		all := blanks(2, 512)
		makeArray(t, all, metadata.NewArray{Name: "a", Geometry: raid.Geometry{Level: raid.Level1, Disks: 2}, AssumeClean: true})
		rewrite(t, &all[0], change)

		if _, err := (Format{}).Probe(all[0].Source()); !errors.Is(err, metadata.ErrCorrupt) || !strings.Contains(err.Error(), want) {
			t.Errorf("Probe() error = %v, want %q", err, want)
		}
	}
}

// TestVendorBytes: what is not understood outlives all records.
func TestVendorBytes(t *testing.T) {
	all := blanks(3, 512)
	array := makeArray(t, all, metadata.NewArray{Name: "a", Geometry: raid.Geometry{Level: raid.Level1, Disks: 2}, AssumeClean: true})

	at := headSize + 2*diskSize
	places := []int{48, 60, 90, offMark - 1, offMark + 1, headSize + 28, headSize + diskSize + 40, at + 32, at + 36, at + 60, at + 92, at + volSize + 32}

	for i := range all[:2] {
		rewrite(t, &all[i], func(mpb []byte) []byte {
			for n, place := range places {
				mpb[place] = byte(0x41 + n)
			}

			return append(mpb, "left"...)
		})
	}

	k := keep(t, array, all)
	members := inSync(0, 1)
	members[2] = metadata.MemberRecord{State: raid.Spare, Slot: raid.NoSlot}
	apply(all, k.Record(state(0, members)))
	members[1] = metadata.MemberRecord{
		State: raid.InSync, Slot: 1, BadBlocks: []raid.Range{{From: 1, To: 600}},
	}
	apply(all, k.Record(state(1024, members)))

	r := probe(t, &all[1]).Raw.(*Raw)
	for n, place := range places {
		if r.mpb[place] != byte(0x41+n) {
			t.Errorf("byte %d was changed", place)
		}
	}

	if string(r.rest) != "left" || len(r.BadBlocks) != 3 || r.Attributes&attrBadBlocks == 0 {
		t.Errorf("rest %q, bad blocks %v", r.rest, r.BadBlocks)
	}
}

// TestLogIsShared: all members together never have more bad blocks than the log
// has room for, and those of a disk that fails are forgotten.
func TestLogIsShared(t *testing.T) {
	all, one, other := two(t, raid.Geometry{Level: raid.Level5, Disks: 3, Chunk: 128}, 512)
	a := keep(t, one, all[:3])
	b := keep(t, other, all[:3], a)

	const most = 15 // that the smaller volume has sectors for

	for _, k := range []metadata.Keeper{a, b} {
		members := inSync(0, 1, 2)

		for id := range members {
			var bad []raid.Range
			for i := range raid.Sectors(min(k.BadBlockRoom(id), most)) {
				bad = append(bad, raid.Range{From: 260 * i, To: 260*i + 257}) // two entries
			}

			m := members[id]
			m.BadBlocks = bad
			members[id] = m
		}

		apply(all, k.Record(state(raid.MaxSectors, members)))
	}

	for i := range all[:3] {
		for n, sb := range probe(t, &all[i]).All() {
			room := []metadata.Keeper{a, b}[n].BadBlockRoom(metadata.MemberID(i))
			if len(sb.BadBlocks) != most || room < most || sb.RecoveryOffset != raid.MaxSectors {
				t.Errorf("device %d: %d bad blocks of %d in %s", i, len(sb.BadBlocks), room, sb.Name)
			}
		}
	}

	failed := inSync(0, 1, 2)
	failed[2] = metadata.MemberRecord{State: raid.Faulty, Slot: 2}
	apply(all, a.Record(state(0, failed)))

	for _, bad := range probe(t, &all[0]).Raw.(*Raw).BadBlocks {
		if bad.Disk == 2 {
			t.Errorf("bad blocks of a disk that has failed: %+v", bad)
		}
	}
}

// TestMissing: an array may be made without a member, and is degraded then.
func TestMissing(t *testing.T) {
	all := blanks(3, 512)
	p := metadata.NewArray{
		Version: version, Name: "a", Now: now,
		Geometry: raid.Geometry{Level: raid.Level5, Disks: 3, Chunk: 128}, AssumeClean: true,
	}
	devices := membersOf(all)
	devices[1] = metadata.NewMember{}

	array, stages, err := Format{}.Create(p, devices)
	if err != nil {
		t.Fatal(err)
	}

	apply(all, stages)

	sb := probe(t, &all[2])
	if slot, _ := sb.Role(sb.Number).Slot(); slot != 2 || sb.Array != array || sb.Raw.(*Raw).Volumes[0].Maps[0].State != stateDegraded {
		t.Errorf("%+v", sb)
	}
}

// TestGrow: a volume becomes larger up to what follows it.
func TestGrow(t *testing.T) {
	all, one, other := two(t, raid.Geometry{Level: raid.Level1, Disks: 2}, 512)
	a := keep(t, one, all[:2])
	b := keep(t, other, all[:2], a)
	end := probe(t, &all[0]).Of(other).DataOffset

	if size, err := a.Grow(0); err != nil || size != end {
		t.Errorf("Grow(0) = %d, %v, want %d", size, err, end)
	}

	apply(all, a.Record(state(raid.MaxSectors, inSync(0, 1))))

	if sb := probe(t, &all[1]).Of(one); sb.Size != end || sb.Unsupported != "" {
		t.Errorf("after: %+v", sb)
	}

	if size, err := a.Grow(end + regionSectors); err == nil {
		t.Errorf("Grow() over the other volume = %d", size)
	}

	if size, err := b.Grow(0); err != nil || size != (deviceSize-recordSectors-end)/regionSectors*regionSectors {
		t.Errorf("Grow(0) of the other = %d, %v", size, err)
	}
}

// TestRoomToGrow: where a record cannot become longer without lying over data, none
// is written.
func TestRoomToGrow(t *testing.T) {
	all := blanks(2, 512)
	makeArray(t, all, metadata.NewArray{Name: "a", Geometry: raid.Geometry{Level: raid.Level1, Disks: 2}, AssumeClean: true})

	size := probe(t, &all[0]).Size
	rewrite(t, &all[0], func(mpb []byte) []byte {
		order.PutUint32(mpb[headSize+2*diskSize+volSize+offStart:], uint32(deviceSize-size-4))

		return mpb
	})

	sb := probe(t, &all[0])
	if _, err := (Format{}).Keep([]metadata.Attachment{{Superblock: sb, Source: all[0].Source()}}); err == nil ||
		!strings.Contains(err.Error(), "room to grow") || sb.Unsupported != "" {
		t.Errorf("Keep() error = %v", err)
	}
}

// TestLongRecord: a record that is longer than a write may be is written in pieces,
// to one disk at a time, and only where it is another than before.
func TestLongRecord(t *testing.T) {
	all := blanks(2, 512)
	array := makeArray(t, all, metadata.NewArray{Name: "a", Geometry: raid.Geometry{Level: raid.Level1, Disks: 2}, AssumeClean: true})

	for i := range all {
		rewrite(t, &all[i], func(mpb []byte) []byte { return append(mpb, make([]byte, 2*metadata.WriteMax)...) })
	}

	k := keep(t, array, all)

	// The slots are behind the first block, and stay what they are.
	for _, pieces := range [][]int{{3, 3}, {2}, {2}} {
		stages := k.Record(state(0, inSync(0, 1)))
		apply(all, stages)

		if len(stages) != len(pieces) {
			t.Fatalf("%d stages, want %d", len(stages), len(pieces))
		}

		for i, stage := range stages {
			if len(stage) != pieces[i] {
				t.Errorf("stage %d has %d writes, want %d", i, len(stage), pieces[i])
			}

			for _, w := range stage {
				if len(w.Data) > metadata.WriteMax {
					t.Errorf("a write of %d bytes", len(w.Data))
				}
			}
		}

		for i := range all {
			if sb := probe(t, &all[i]); sb.Clean() || sb.Events != k.Events() {
				t.Errorf("device %d: %+v", i, sb)
			}
		}
	}
}

// TestErase: nothing is found afterwards, and a migration record only goes if it
// is one.
func TestErase(t *testing.T) {
	for _, block := range []int{512, 4096} {
		all := blanks(2, block)
		makeArray(t, all, metadata.NewArray{Name: "a", Geometry: raid.Geometry{Level: raid.Level1, Disks: 2}})

		last := all[0].Image[len(all[0].Image)-block:]
		order.PutUint32(last[8:], uint32(probe(t, &all[0]).Raw.(*Raw).Family))
		copy(all[1].Image[len(all[1].Image)-block:], "EFI PART of others")

		for i, want := range []int{2, 1} {
			writes, err := Format{}.Erase(all[i].Source())
			if err != nil || len(writes) != want {
				t.Fatalf("Erase() = %d writes, %v, want %d", len(writes), err, want)
			}

			apply(all[i:i+1], [][]metadata.Write{writes})

			if _, err := (Format{}).Probe(all[i].Source()); !errors.Is(err, metadata.ErrNotFound) {
				t.Errorf("Probe() error = %v", err)
			}

			if writes, err := (Format{}).Erase(all[i].Source()); err != nil || len(writes) != 0 {
				t.Errorf("Erase() again = %d writes, %v", len(writes), err)
			}
		}
	}
}

// TestRefuses: what the format cannot hold is named.
func TestRefuses(t *testing.T) {
	mirror := raid.Geometry{Level: raid.Level1, Disks: 2}

	for want, p := range map[string]metadata.NewArray{
		"it has 2":                 {Name: "a", Geometry: raid.Geometry{Level: raid.Level1, Disks: 3}},
		"there are levels":         {Name: "a", Geometry: raid.Geometry{Level: raid.Level6, Disks: 4, Chunk: 128}},
		`there is "left-asymmetri`: {Name: "a", Geometry: raid.Geometry{Level: raid.Level5, Layout: raid.LeftSymmetric, Disks: 4}},
		"an even number":           {Name: "a", Geometry: raid.Geometry{Level: raid.Level10, Layout: nearTwo, Disks: 5}},
		"1 to 16 letters":          {Name: strings.Repeat("n", 17), Geometry: mirror},
		`".a"`:                     {Name: ".a", Geometry: mirror},
		"power of two":             {Name: "a", Geometry: raid.Geometry{Level: raid.Level0, Disks: 2, Chunk: 24}},
		"no bitmap":                {Name: "a", Geometry: mirror, Bitmap: metadata.BitmapInternal},
		"no partial":               {Name: "a", Geometry: mirror, PPL: true},
		"multiple of 2048":         {Name: "a", Geometry: raid.Geometry{Level: raid.Level1, Disks: 2, Size: 2049}},
		"room for 18270":           {Name: "a", Geometry: raid.Geometry{Level: raid.Level1, Disks: 2, Size: 18432}},
	} {
		p.Version, p.Now = version, now
		if _, _, err := (Format{}).Create(p, membersOf(blanks(p.Disks, 512))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Create() error = %v, want %q", err, want)
		}
	}

	all, _, _ := two(t, mirror, 512)
	third := metadata.NewArray{Version: version, Name: "third", Now: now, Geometry: mirror}

	if _, _, err := (Format{}).Create(third, membersOf(all[:2])); err == nil || !strings.Contains(err.Error(), "2 volumes") {
		t.Errorf("Create() of a third volume: error = %v", err)
	}

	all = blanks(2, 512)
	makeArray(t, all, metadata.NewArray{Name: "a", Geometry: raid.Geometry{Level: raid.Level1, Disks: 2, Size: 2048}})

	if _, _, err := (Format{}).Create(third, membersOf([]conformance.Disk{all[1], all[0]})); err == nil ||
		!strings.Contains(err.Error(), "another slot") {
		t.Errorf("Create() in another order: error = %v", err)
	}

	all[1].Serial = all[0].Serial
	if _, _, err := (Format{}).Create(third, membersOf(all)); err == nil || !strings.Contains(err.Error(), "serial number") {
		t.Errorf("Create() of twins: error = %v", err)
	}
}
