package rescue

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// faultyReader fails where bad says so.
type faultyReader struct {
	io.ReaderAt
	bad func(from, to int64) bool
}

var errMedium = errors.New("medium error")

func (f faultyReader) ReadAt(p []byte, off int64) (int, error) {
	if f.bad(off, off+int64(len(p))) {
		return 0, errMedium
	}

	return f.ReaderAt.ReadAt(p, off)
}

// TestAnyReadOfAnyArray: whatever the level, with any of the members missing or
// partly recovered that it survives the loss of, every read gives what was
// written; with more of them missing nothing is read.
func TestAnyReadOfAnyArray(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawArray(t)
		members, content := build(g)
		lacking := make(map[raid.Slot]bool)

		for range rapid.IntRange(0, 3).Draw(t, "lacking") {
			lacking[raid.Slot(rapid.IntRange(0, g.Disks-1).Draw(t, "slot"))] = true
		}

		var some []Member

		for slot, m := range members {
			if !lacking[raid.Slot(slot)] {
				some = append(some, m)
			} else if g.Level.HasRedundancy() && rapid.Bool().Draw(t, "partly") {
				m.Superblock.RecoveryOffset = raid.Sectors(rapid.IntRange(1, 29).Draw(t, "recovered"))
				m.Source.ReaderAt = wrongFrom(t, m, m.Superblock.RecoveryOffset)
				some = append(some, m)
			}
		}

		a, err := Open(rapid.Permutation(some).Draw(t, "order"), Options{})
		if !g.Survives(func(slot raid.Slot) bool { return !lacking[slot] }) {
			if !errors.Is(err, ErrIncomplete) {
				t.Fatalf("without %v: Open = %v, want ErrIncomplete", lacking, err)
			}

			return
		}

		if err != nil {
			t.Fatal(err)
		}

		if a.Size() != int64(len(content)) {
			t.Fatalf("Size() = %d, want %d", a.Size(), len(content))
		}

		from := rapid.IntRange(0, len(content)-1).Draw(t, "from")
		to := rapid.IntRange(from, len(content)).Draw(t, "to")

		got := make([]byte, to-from)
		if n, err := a.ReadAt(got, int64(from)); n != len(got) || err != nil {
			t.Fatalf("ReadAt(%d bytes, %d) = %d, %v", len(got), from, n, err)
		}

		if !bytes.Equal(got, content[from:to]) {
			t.Fatalf("bytes %d to %d differ", from, to)
		}
	})
}

// TestReaderContract holds ReadAt to what package io says of it.
func TestReaderContract(t *testing.T) {
	members, content := build(raid5())

	a, err := Open(without(members, 1), Options{})
	if err != nil {
		t.Fatal(err)
	}

	if err := iotest.TestReader(io.NewSectionReader(a, 0, a.Size()), content); err != nil {
		t.Error(err)
	}

	last := make([]byte, 8)

	n, err := a.ReadAt(last, a.Size()-5)
	if n != 5 || !errors.Is(err, io.EOF) || !bytes.Equal(last[:5], content[len(content)-5:]) {
		t.Errorf("ReadAt across the end = %d, %v, want 5 right bytes and EOF", n, err)
	}

	if _, err := a.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("ReadAt of a negative offset: no error")
	}
}

// TestConcurrentReads: reads that reconstruct do not disturb one another.
func TestConcurrentReads(t *testing.T) {
	members, content := build(raid.Geometry{
		Level: raid.Level6, Layout: raid.LeftAsymmetric, Disks: 5, Chunk: 8, Size: 256,
	})

	a, err := Open(without(without(members, 3), 0), Options{})
	if err != nil {
		t.Fatal(err)
	}

	var readers sync.WaitGroup

	for range 4 {
		readers.Go(func() {
			got := make([]byte, len(content))
			if _, err := a.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
				t.Errorf("ReadAt: error %v, or the content differs", err)
			}
		})
	}

	readers.Wait()
}

// edit is a change to what a member's superblock says.
type edit func(members []Member)

// of returns an edit of the members named.
func of(names string, f func(sb *metadata.Superblock)) edit {
	return func(members []Member) {
		for i := range members {
			if strings.Contains(names, members[i].Name) {
				f(members[i].Superblock)
			}
		}
	}
}

func events(n uint64) func(*metadata.Superblock) {
	return func(sb *metadata.Superblock) { sb.Events = n }
}

func role(number int, r raid.Role) func(*metadata.Superblock) {
	return func(sb *metadata.Superblock) { sb.Roles[number] = r }
}

func replacement(sb *metadata.Superblock) { sb.Replacement = true }

func recovered(s raid.Sectors) func(*metadata.Superblock) {
	return func(sb *metadata.Superblock) { sb.RecoveryOffset = s }
}

// TestWhoIsUsed: one line a case. want is who sits in which slot, who is left
// out, or a piece of the error.
func TestWhoIsUsed(t *testing.T) {
	for _, tt := range []struct {
		name  string
		g     raid.Geometry
		edits []edit
		force bool
		want  string
	}{
		{"all agree", raid5(), nil, false, "0:a 1:b 2:c"},
		{
			"the freshest calls one faulty, which does not know", raid5(),
			[]edit{of("ab", role(2, raid.RoleFaulty)), of("ab", events(12))},
			false, "0:a 1:b | c stale: a calls it faulty (12 events, it has 10)",
		},
		{
			"a faulty one is left out though only one event behind", raid5(),
			[]edit{of("ab", role(2, raid.RoleFaulty)), of("ab", events(11))},
			false, "0:a 1:b | c stale: a calls it faulty (11 events, it has 10)",
		},
		{
			"the freshest goes on without one", raid5(),
			[]edit{of("bc", role(0, raid.RoleSpare)), of("bc", events(12))},
			false, "1:b 2:c | a stale: b goes on without it (12 events, it has 10)",
		},
		{
			"one event behind is a crash between two superblock writes", raid5(),
			[]edit{of("bc", events(11))},
			false, "0:a 1:b 2:c",
		},
		{
			"two events behind is stale", raid5(),
			[]edit{of("bc", events(12))},
			false, "1:b 2:c | a stale: it has 10 events, b has 12",
		},
		{
			"stale and forced into an empty slot", raid5(),
			[]edit{of("bc", events(12))},
			true, "0:a(stale) 1:b 2:c",
		},
		{
			"a spare is no member however fresh", mirror(2),
			[]edit{of("b", events(99)), of("ab", role(1, raid.RoleSpare))},
			false, "0:a | b it is a spare",
		},
		{
			"faulty by its own word", mirror(2),
			[]edit{of("ab", role(1, raid.RoleFaulty))},
			false, "0:a | b faulty by its own word",
		},
		{
			"a spare that was just put to work holds nothing", mirror(2),
			[]edit{of("b", role(1, raid.RoleSpare)), of("a", events(11))},
			false, "0:a | b nothing was recovered onto it yet",
		},
		{
			"recovery has only begun", mirror(2),
			[]edit{of("b", recovered(0))},
			false, "0:a | b nothing was recovered onto it yet",
		},
		{"recovery is under way", mirror(2), []edit{of("b", recovered(24))}, false, "0:a 1:b(<24)"},
		{"recovery ended but was not recorded", mirror(2), []edit{of("b", recovered(64))}, false, "0:a 1:b"},
		{
			"a recovery offset that overflows in bytes", mirror(2),
			[]edit{of("b", recovered(raid.MaxSectors-1))},
			false, "0:a 1:b",
		},
		{
			"each half was run without the other", mirror(2),
			[]edit{of("a", role(1, raid.RoleSpare)), of("b", role(0, raid.RoleSpare))},
			false, "a and b were each run without the other (10 events both), give only the members of one",
		},
		{
			"two for one slot", mirror(2),
			[]edit{of("ab", role(1, 0))},
			false, "a and b are both for slot 0, give only one of them",
		},
		{
			"two stale ones for one slot", mirror(3),
			[]edit{
				of("c", events(20)), of("c", role(0, raid.RoleFaulty)), of("c", role(1, raid.RoleFaulty)),
				of("ab", role(1, 0)),
			},
			true, "a and b are equally stale and both for slot 0, give only one of them",
		},
		{
			"two stale ones, one fresher", mirror(3),
			[]edit{
				of("c", events(20)), of("c", role(0, raid.RoleFaulty)), of("c", role(1, raid.RoleFaulty)),
				of("ab", role(1, 0)), of("b", events(12)),
			},
			true, "0:b(stale) 2:c | a stale: c calls it faulty (20 events, it has 10); slot 0 has b",
		},
		{
			"a member and its replacement", mirror(3),
			[]edit{of("abc", role(2, 0)), of("c", replacement)},
			false, "0:a 1:b | c it is to replace a, which is here",
		},
		{
			"a replacement without the member", mirror(3),
			[]edit{of("bc", role(2, 0)), of("c", replacement), of("c", recovered(24)), of("bc", events(12))},
			false, "0:c(<24) 1:b | a stale: it has 10 events, b has 12",
		},
		{
			"a slot that the array does not have", mirror(2),
			[]edit{of("ab", role(1, 7))},
			false, "0:a | b slot 7 of an array of 2",
		},
		{
			"another array", mirror(2),
			[]edit{of("b", func(sb *metadata.Superblock) { sb.Array = raid.UUID{9} })},
			false, "a belongs to array 01000000:00000000:00000000:00000000, b to 09000000",
		},
		{
			"another chunk", raid5(),
			[]edit{of("b", func(sb *metadata.Superblock) { sb.Chunk = 16 })},
			false, "b says raid5 layout 2 chunk 16 of 3 slots, a says raid5 layout 2 chunk 8 of 3",
		},
		{
			"too small", mirror(2),
			[]edit{of("b", func(sb *metadata.Superblock) { sb.DataSize = 63 })},
			false, "b has room for 63 sectors of data, a says 64",
		},
		{
			"content that cannot be told", mirror(2),
			[]edit{of("b", func(sb *metadata.Superblock) { sb.Unreadable = "a reshape is active" })},
			false, "b: the content cannot be told from the members: a reshape is active",
		},
		{
			"nobody holds a slot", mirror(2),
			[]edit{of("ab", role(0, raid.RoleSpare)), of("ab", role(1, raid.RoleSpare))},
			false, "none of the 2 members holds a slot",
		},
		{
			"too few, one of them stale", raid5(),
			[]edit{of("c", events(12)), of("c", role(0, raid.RoleFaulty))},
			false, "survives the loss of 1; no member for slots 0, 1; a left out: stale: c calls it faulty",
		},
		{
			"too few, one of them recovering", raid5(),
			[]edit{of("bc", events(12)), of("b", recovered(8))},
			false, "no member for slot 0; b in slot 1 was recovered only below sector 8",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			members, _ := build(tt.g)
			for _, e := range tt.edits {
				e(members)
			}

			permutations(members, func(order []Member) {
				if got := seating(Open(order, Options{ForceStale: tt.force})); !strings.Contains(got, tt.want) ||
					strings.HasPrefix(tt.want, "0:") && got != tt.want {
					t.Fatalf("got  %s\nwant %s", got, tt.want)
				}
			})
		})
	}
}

// seating draws what Open returned.
func seating(a *Array, err error) string {
	if err != nil {
		return err.Error()
	}

	var parts []string

	for _, u := range a.Used {
		part := fmt.Sprintf("%d:%s", u.Slot, u.Name)
		if u.Stale {
			part += "(stale)"
		}

		if u.Below != raid.MaxSectors {
			part += fmt.Sprintf("(<%d)", u.Below)
		}

		parts = append(parts, part)
	}

	for _, l := range a.LeftOut {
		parts = append(parts, "|", l.Name, l.Reason)
	}

	return strings.Join(parts, " ")
}

// TestRecoveringMember: below its offset a recovering member is read like any
// other, above it never, whatever its slot and whoever is asked first.
func TestRecoveringMember(t *testing.T) {
	for _, g := range []raid.Geometry{raid5(), mirror(2), mirror(3)} {
		for slot := range g.Disks {
			members, content := build(g)
			members[slot].Superblock.RecoveryOffset = 20

			// What is above the offset, also on the way out of it, is wrong.
			members[slot].Source.ReaderAt = wrongFrom(t, members[slot], 20)

			// Below it the others are not needed: let one of them fail there.
			broken := (slot + 1) % g.Disks
			members[broken].Source.ReaderAt = faultyReader{
				members[broken].Source.ReaderAt,
				func(from, _ int64) bool { return from < (dataOffset + 16).Bytes() },
			}

			a, err := Open(members, Options{})
			if err != nil {
				t.Fatal(err)
			}

			got := make([]byte, len(content))
			if _, err := a.ReadAt(got, 0); err != nil {
				t.Fatalf("%v, slot %d: %v", g.Level, slot, err)
			}

			if !bytes.Equal(got, content) {
				t.Errorf("%v, slot %d: content differs", g.Level, slot)
			}
		}
	}
}

// TestBadSectors: two members with bad sectors in different places lose
// nothing; in the same place the error names both.
func TestBadSectors(t *testing.T) {
	const block = 4096

	g := raid5()
	g.Chunk, g.Size = 16, 64

	spoil := func(members []Member, slot int, bad int64) {
		bad += dataOffset.Bytes()
		members[slot].Source.ReaderAt = faultyReader{
			members[slot].Source.ReaderAt,
			func(from, to int64) bool { return from < bad+block && to > bad },
		}
	}

	for _, g := range []raid.Geometry{g, mirror(2)} {
		members, content := build(g)
		spoil(members, 0, 0)
		spoil(members, 1, block)

		a, err := Open(members, Options{})
		if err != nil {
			t.Fatal(err)
		}

		got := make([]byte, len(content))
		if _, err := a.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}

		if !bytes.Equal(got, content) {
			t.Errorf("%v: content differs", g.Level)
		}

		spoil(members, 1, 0)

		if a, err = Open(members, Options{}); err != nil {
			t.Fatal(err)
		}

		n, err := a.ReadAt(got, 0)
		if n >= len(got) || !errors.Is(err, errMedium) {
			t.Fatalf("ReadAt = %d, %v, want %v", n, err, errMedium)
		}

		for _, piece := range []string{"array offset 0", "a in slot 0, byte 1536", "b in slot 1, byte 1536"} {
			if !strings.Contains(err.Error(), piece) {
				t.Errorf("error %q does not say %q", err, piece)
			}
		}
	}
}

// TestShortMember: an image that was cut after its superblock was read is an
// error that names it, not zeros.
func TestShortMember(t *testing.T) {
	g := raid.Geometry{Level: raid.Level0, Disks: 2, Chunk: 8, Sizes: []raid.Sectors{64, 64}}
	members, _ := build(g)
	members[1].Source.ReaderAt = io.NewSectionReader(members[1].Source.ReaderAt, 0, 30*raid.SectorSize)

	a, err := Open(members, Options{})
	if err != nil {
		t.Fatal(err)
	}

	n, err := a.ReadAt(make([]byte, a.Size()), 0)
	if err == nil || !strings.Contains(err.Error(), "b in slot 1, byte 15360 of the device: EOF") {
		t.Errorf("ReadAt = %d, %v, want an error that names b", n, err)
	}
}

// TestWarnings: what is reconstructed from a parity that may be wrong is said
// to be so.
func TestWarnings(t *testing.T) {
	dirty := of("abc", func(sb *metadata.Superblock) { sb.ResyncOffset = 0 })
	behind := of("b", recovered(8))

	for _, tt := range []struct {
		name    string
		g       raid.Geometry
		edits   []edit
		missing bool
		want    []string
	}{
		{"clean and degraded", raid5(), nil, true, nil},
		{"dirty and whole", raid5(), []edit{dirty}, false, nil},
		{"a dirty mirror", mirror(3), []edit{dirty}, true, nil},
		{"dirty and degraded", raid5(), []edit{dirty}, true, []string{"slot 0"}},
		{"dirty and recovering", raid5(), []edit{dirty, behind}, false, []string{"slot 1"}},
	} {
		members, _ := build(tt.g)
		for _, e := range tt.edits {
			e(members)
		}

		if tt.missing {
			members = without(members, 0)
		}

		a, err := Open(members, Options{})
		if err != nil {
			t.Fatal(err)
		}

		var got []string

		for _, w := range a.Warnings() {
			_, after, _ := strings.Cut(w, "reconstructed for ")
			slot, _, _ := strings.Cut(after, " may be wrong")
			got = append(got, slot)
		}

		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: warnings about (-want +got):\n%s", tt.name, diff)
		}
	}
}
