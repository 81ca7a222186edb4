package asr

import (
	"bytes"
	"strings"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

func keep(tb testing.TB, all []conformance.Disk) metadata.Keeper {
	tb.Helper()

	var members []metadata.Attachment
	for i := range all {
		members = append(members, metadata.Attachment{Superblock: probe(tb, &all[i]), Source: all[i].Source()})
	}

	k, err := Format{}.Keep(members)
	if err != nil {
		tb.Fatal(err)
	}

	return k
}

// both is the state of a RAID1 with two members and others beside.
func both(others ...metadata.MemberRecord) metadata.State {
	st := metadata.State{ResyncOffset: raid.MaxSectors, Now: now, Members: map[metadata.MemberID]metadata.MemberRecord{
		0: {State: raid.InSync, Slot: 0}, 1: {State: raid.InSync, Slot: 1},
	}}
	for i, record := range others {
		st.Members[metadata.MemberID(2+i)] = record
	}

	return st
}

// TestReplace: a disk that is to take the place of another is a spare until it
// does, and then the other, which has not heard of it, is no member any more.
func TestReplace(t *testing.T) {
	all := blanks(3)
	makeArray(t, all, params(raid.Geometry{Level: raid.Level1, Disks: 2}))

	k := keep(t, all)
	apply(all, k.Record(both(metadata.MemberRecord{State: raid.Recovering, Slot: 0, Replacement: true})))

	for i, role := range []raid.Role{0, 1, raid.RoleSpare} {
		if sb := probe(t, &all[i]); sb.Role(sb.Number) != role {
			t.Errorf("device %d is %v", i, sb.Role(sb.Number))
		}
	}

	st := both(metadata.MemberRecord{State: raid.InSync, Slot: 0})
	st.Members[0] = metadata.MemberRecord{State: raid.Faulty, Slot: 0}
	apply(all, k.Record(st))

	old := probe(t, &all[0])

	for _, i := range []int{1, 2} {
		sb := probe(t, &all[i])
		if _, ok := sb.Role(old.Number).Slot(); ok || sb.Events != old.Events+1 {
			t.Errorf("device %d, at event %d, calls the old one, at %d, %v", i, sb.Events, old.Events, sb.Role(old.Number))
		}
	}

	if sb := probe(t, &all[2]); sb.Role(sb.Number) != 0 {
		t.Errorf("the new one is %v", sb.Role(sb.Number))
	}
}

// TestSeq: the sequence number counts what the format counts, and what others
// counted since counts.
func TestSeq(t *testing.T) {
	all := blanks(3)
	makeArray(t, all, params(raid.Geometry{Level: raid.Level1, Disks: 2}))

	k := keep(t, all)
	spare := metadata.MemberRecord{State: raid.Spare, Slot: raid.NoSlot}
	lines := func() []Line { return probe(t, &all[1]).Raw.(*Raw).Lines }
	seq := lines()[0].Seq

	for range 3 {
		apply(all, k.Record(both(spare)))
	}

	if got := lines()[0].Seq; got != seq || k.Events() != 4 {
		t.Errorf("sequence number %d after %d, %d events", got, seq, k.Events())
	}

	st := both(spare)
	st.Members[0] = metadata.MemberRecord{State: raid.Faulty, Slot: 0}
	apply(all, k.Record(st))

	for _, l := range lines() {
		if l.Seq != seq+1 {
			t.Errorf("line %+v, want sequence number %d", l, seq+1)
		}
	}

	if l := lines(); l[0].State != arrayDegraded || l[1].State != memberFailed || l[2].State != memberOptimal {
		t.Errorf("states %d, %d, %d", l[0].State, l[1].State, l[2].State)
	}

	// As dmraid counts on.
	order.PutUint16(lineOf(table(&all[1]), 0)[offSeq:], seq+2)
	seal(table(&all[1]))

	if sb := probe(t, &all[1]); sb.Events != 6 {
		t.Errorf("%d events after another program wrote", sb.Events)
	}
}

// TestVendor: what a table has of others is kept, whatever becomes of ours.
func TestVendor(t *testing.T) {
	all := blanks(3)
	makeArray(t, all, params(raid.Geometry{Level: raid.Level1, Disks: 2}))

	// The lines of another array in front of ours and behind them.
	b := table(&all[1])
	var before, after [2 * lineSize]byte
	for i, part := range [][]byte{before[:], after[:]} {
		copy(part, strings.Repeat("x", len(part)))
		part[offLevel], part[lineSize+offLevel] = levelLogical, levelPhysical
		part[offMagic+3], part[lineSize+offMagic+3] = byte(10+i), byte(20+i)
	}

	ours := bytes.Clone(b[headSize:][:3*lineSize])
	n := copy(b[headSize:], before[:])
	n += copy(b[headSize+n:], ours)
	n += copy(b[headSize+n:], after[:])
	order.PutUint16(b[offCount:], uint16(n/lineSize))
	seal(b)

	k := keep(t, all)
	st := both(metadata.MemberRecord{State: raid.Recovering, Slot: 0})
	st.Members[0] = metadata.MemberRecord{State: raid.Faulty, Slot: 0}
	apply(all, k.Record(st))

	b = table(&all[1])
	if !bytes.HasPrefix(b[headSize:], before[:]) || !bytes.HasPrefix(b[headSize+5*lineSize:], after[:]) {
		t.Error("lines of other arrays were changed")
	}

	if sb := probe(t, &all[1]); len(sb.Raw.(*Raw).Lines) != 7 || sb.Role(sb.Number) != 1 {
		t.Errorf("%+v", sb)
	}

	if sb := probe(t, &all[2]); len(sb.Raw.(*Raw).Lines) != 3 || sb.Role(sb.Number) != 0 || sb.RecoveryOffset != 0 {
		t.Errorf("%+v", sb)
	}
}

// TestGrow: both members are used to the end of the smaller.
func TestGrow(t *testing.T) {
	all := blanks(2)
	p := params(raid.Geometry{Level: raid.Level1, Disks: 2, Size: 1000})
	makeArray(t, all, p)

	k := keep(t, all)
	if _, err := k.Grow(5000); err == nil {
		t.Error("grows over the metadata")
	}

	if size, err := k.Grow(0); err != nil || size != deviceSize-17 {
		t.Fatalf("Grow() = %d, %v", size, err)
	}

	apply(all, k.Record(both()))

	for i := range all {
		if sb := probe(t, &all[i]); sb.Size != deviceSize-17 || sb.Unsupported != "" {
			t.Errorf("device %d: %+v", i, sb)
		}
	}
}

// TestKeepRefuses: what cannot be told apart, or counted on from, is not kept.
func TestKeepRefuses(t *testing.T) {
	tests := []struct {
		want   string
		change func(all []conformance.Disk)
	}{
		{"no room above it", func(all []conformance.Disk) {
			for i := range all {
				drive := order.Uint32(all[i].Image[len(all[i].Image)-512+offDrive:])
				stamp{countMax + 1, probe(t, &all[i]).Raw.(*Raw).seq()}.put(table(&all[i]), drive)
			}
		}},
		{"no room for more", func(all []conformance.Disk) { table(&all[0])[offMax+1] = 5 }},
		{"of array", func(all []conformance.Disk) {
			p := params(raid.Geometry{Level: raid.Level1, Disks: 2})
			p.Array[0]++
			makeArray(t, all[1:], p)
		}},
	}

	for _, tt := range tests {
		all := blanks(3)
		makeArray(t, all, params(raid.Geometry{Level: raid.Level1, Disks: 2}))
		tt.change(all)

		var members []metadata.Attachment
		for i := range all {
			members = append(members, metadata.Attachment{Superblock: probe(t, &all[i]), Source: all[i].Source()})
		}

		if k, err := (Format{}).Keep(members); err == nil || k != nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Keep() = %v, %v, want %q", k, err, tt.want)
		}
	}
}

// TestSpareRenamed: a spare that was away and has the number of another gets a new
// one, and is what it was until then.
func TestSpareRenamed(t *testing.T) {
	all := blanks(4)
	makeArray(t, all[:3], params(raid.Geometry{Level: raid.Level1, Disks: 2}))
	makeArray(t, []conformance.Disk{all[0], all[1], all[3]}, params(raid.Geometry{Level: raid.Level1, Disks: 2}))

	if a, b := probe(t, &all[2]), probe(t, &all[3]); a.Number != b.Number {
		t.Fatalf("numbers %d and %d", a.Number, b.Number)
	}

	k := keep(t, all)
	spare := metadata.MemberRecord{State: raid.Spare, Slot: raid.NoSlot}
	stages := k.Record(both(spare, spare))
	before := probe(t, &all[3])
	apply(all, stages[:1])

	if sb := probe(t, &all[3]); sb.Number != before.Number || sb.Events != before.Events {
		t.Errorf("number %d at event %d, was %d at %d", sb.Number, sb.Events, before.Number, before.Events)
	}

	apply(all, stages[1:])

	if a, b := probe(t, &all[2]), probe(t, &all[3]); a.Number == b.Number || a.Events != b.Events {
		t.Errorf("numbers %d and %d, at events %d and %d", a.Number, b.Number, a.Events, b.Events)
	}
}
