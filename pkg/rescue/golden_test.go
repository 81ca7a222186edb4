package rescue

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"raid-assembler/internal/golden"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/ddf"
	"raid-assembler/pkg/metadata/imsm"
	"raid-assembler/pkg/metadata/md0"
	"raid-assembler/pkg/metadata/md1"
	"raid-assembler/pkg/raid"
)

// goldenMembers returns the members of a set as scan would find them.
func goldenMembers(t *testing.T, set golden.Set) []Member {
	t.Helper()

	return probeImages(t, set, set.Images(t))
}

func probeImages(t *testing.T, set golden.Set, images [][]byte) []Member {
	t.Helper()

	var members []Member

	for i, image := range images {
		m := Member{
			Name: fmt.Sprintf("m%d", i),
			Source: metadata.Source{
				ReaderAt: bytes.NewReader(image),
				Size:     raid.Sectors(len(image) / raid.SectorSize),
				Block:    set.Sector,
				Serial:   fmt.Sprintf("m%d", i),
			},
		}

		var format metadata.Format = md1.Format{}
		switch {
		case strings.HasPrefix(set.Name, "ddf-"):
			format = ddf.Format{}
		case strings.HasPrefix(set.Name, "imsm-"):
			format = imsm.Format{}
		case strings.HasPrefix(set.Name, "md090-"):
			format = md0.Format{}
		}

		sb, err := format.Probe(m.Source)
		if err != nil {
			t.Fatalf("%s %s: %v", set.Name, m.Name, err)
		}

		m.Superblock = sb
		members = append(members, m)
	}

	return members
}

// checkContent reads all of a, in pieces that divide neither chunks nor
// sectors, and compares it with the pattern of set.
func checkContent(a *Array, set golden.Set) error {
	if a.Size() != set.ArraySize {
		return fmt.Errorf("size = %d, want %d", a.Size(), set.ArraySize)
	}

	piece := make([]byte, 999_992)

	for at := int64(0); at < a.Size(); {
		n, err := a.ReadAt(piece[:min(int64(len(piece)), a.Size()-at)], at)
		if err != nil {
			return err
		}

		if err := set.Check(piece[:n], at); err != nil {
			return err
		}

		at += int64(n)
	}

	return nil
}

// without returns members less the one at i.
func without(members []Member, i int) []Member {
	return slices.Delete(slices.Clone(members), i, i+1)
}

// permutations calls f with every order of members.
func permutations(members []Member, f func([]Member)) {
	var place func(done int)

	order := slices.Clone(members)
	place = func(done int) {
		if done == len(order) {
			f(order)

			return
		}

		for i := done; i < len(order); i++ {
			order[done], order[i] = order[i], order[done]
			place(done + 1)
			order[done], order[i] = order[i], order[done]
		}
	}

	place(0)
}

// readableSets are all golden sets of formats that are known.
func readableSets(t *testing.T) []golden.Set {
	return golden.Sets(t, "md10-", "md11-", "md12-", "md090-", "ddf-", "imsm-")
}

// TestGolden: what md wrote is what we read, with all members and without any
// of them that the level survives the loss of; without more nothing is read.
func TestGolden(t *testing.T) {
	subsets := 0

	for _, set := range readableSets(t) {
		t.Run(set.Name, func(t *testing.T) {
			members := goldenMembers(t, set)

			for keep := range 1 << len(members) {
				var (
					some []Member
					gone = slices.Clone(set.Failed)
				)

				for i, m := range members {
					switch {
					case keep>>i&1 == 1:
						some = append(some, m)
					case i < set.Disks:
						slot, _ := m.Superblock.Role(m.Superblock.Number).Slot()
						gone = append(gone, int(slot))
					}
				}

				if len(some) == 0 {
					continue
				}

				subsets++

				if err := checkSubset(set, some, gone); err != nil {
					t.Errorf("without %v: %v", gone, err)
				}
			}
		})
	}

	if subsets < 200 {
		t.Errorf("%d sets of members were tried: the golden sets are not all there", subsets)
	}
}

// checkSubset opens members, which are all of a set but those in the slots
// gone, and compares what is read.
func checkSubset(set golden.Set, members []Member, gone []int) error {
	a, err := Open(members, Options{})

	if !survives(set, gone) {
		if !errors.Is(err, ErrIncomplete) {
			return fmt.Errorf("Open = %w, want ErrIncomplete", err)
		}

		return nil
	}

	if err != nil {
		return err
	}

	return checkContent(a, set)
}

// survives says what of a set is left without the members in some slots.
func survives(set golden.Set, gone []int) bool {
	slices.Sort(gone)
	gone = slices.Compact(gone)

	switch {
	case set.Name == "md12-raid10-n2-4" || set.Name == "imsm-raid10-4": // pairs of neighbours
		for pair := 0; pair < set.Disks; pair += 2 {
			if slices.Contains(gone, pair) && slices.Contains(gone, pair+1) {
				return false
			}
		}

		return true
	case set.Level == 0:
		return len(gone) == 0
	case set.Level == 1:
		return len(gone) < set.Disks
	case set.Level == 6:
		return len(gone) <= 2
	default: // raid10 f2 of three among them: any two hold a chunk together
		return len(gone) <= 1
	}
}

// TestGoldenAnyOrder: the order in which members are given does not matter.
func TestGoldenAnyOrder(t *testing.T) {
	for _, set := range readableSets(t) {
		t.Run(set.Name, func(t *testing.T) {
			members := goldenMembers(t, set)

			for i := -1; i < len(members); i++ {
				some := members
				if i >= 0 {
					some = without(members, i)
				}

				want, wantErr := Open(some, Options{})

				permutations(some, func(order []Member) {
					got, err := Open(order, Options{})
					if fmt.Sprint(err) != fmt.Sprint(wantErr) {
						t.Fatalf("error %v, in another order %v", wantErr, err)
					}

					if err != nil {
						return
					}

					if diff := cmp.Diff([]any{want.Used, want.LeftOut, want.Missing},
						[]any{got.Used, got.LeftOut, got.Missing}); diff != "" {
						t.Fatalf("in another order (-first +other):\n%s", diff)
					}
				})
			}
		})
	}
}

// TestGoldenFailedMember: a member that md failed holds older data, and its
// own superblock says that all is well. It is left out; forced, it shows.
func TestGoldenFailedMember(t *testing.T) {
	for _, set := range golden.Sets(t, "md12-raid5-degraded-") {
		members := goldenMembers(t, set)
		failed := set.Failed[0]

		a, err := Open(members, Options{})
		if err != nil {
			t.Fatal(err)
		}

		if len(a.LeftOut) != 1 || a.LeftOut[0].Name != members[failed].Name ||
			!strings.Contains(a.LeftOut[0].Reason, "stale") {
			t.Errorf("left out %v, want %s as stale", a.LeftOut, members[failed].Name)
		}

		if diff := cmp.Diff([]raid.Slot{raid.Slot(failed)}, a.Missing); diff != "" {
			t.Errorf("missing slots (-want +got):\n%s", diff)
		}

		// One more than the array survives, unless the stale one is used.
		tooFew := without(members, (failed+1)%len(members))

		_, err = Open(tooFew, Options{})
		if !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), members[failed].Name+" left out: stale") {
			t.Errorf("Open = %v, want ErrIncomplete that names the stale member", err)
		}

		forced, err := Open(tooFew, Options{ForceStale: true})
		if err != nil {
			t.Fatal(err)
		}

		if err := checkContent(forced, set); err == nil {
			t.Error("the stale member holds the newest data: the set proves nothing")
		}

		if w := forced.Warnings(); len(w) != 1 || !strings.Contains(w[0], "stale and was forced") {
			t.Errorf("warnings %q, want one about the stale member", w)
		}
	}
}

// TestGoldenSpares: a spare is no part of the content, and says so.
func TestGoldenSpares(t *testing.T) {
	for _, set := range golden.Sets(t, "md12-raid1-2-spare", "md12-raid5-ls-4-bitmap-spare") {
		a, err := Open(goldenMembers(t, set), Options{})
		if err != nil {
			t.Fatal(err)
		}

		want := []LeftOut{{Name: fmt.Sprintf("m%d", set.Disks), Reason: "it is a spare"}}
		if diff := cmp.Diff(want, a.LeftOut); diff != "" {
			t.Errorf("%s: left out (-want +got):\n%s", set.Name, diff)
		}
	}
}

// TestGoldenBadBlockLogs: sectors that the bad block log on a member names are
// taken from the others, each member having some of its own.
func TestGoldenBadBlockLogs(t *testing.T) {
	for _, set := range golden.Sets(t, "md10-raid1-2", "md12-raid5-ls-4", "md12-raid6-ra-6", "md12-raid10-f2-3") {
		images := set.Images(t)
		members := probeImages(t, set, images)

		var found []metadata.Attachment
		for _, m := range members {
			found = append(found, metadata.Attachment{Superblock: m.Superblock, Source: m.Source})
		}

		keeper, err := md1.Format{}.Keep(found)
		if err != nil {
			t.Fatal(err)
		}

		st := metadata.State{ResyncOffset: raid.MaxSectors, Members: map[metadata.MemberID]metadata.MemberRecord{}}

		for i, m := range members {
			slot, slotted := m.Superblock.Role(m.Superblock.Number).Slot()
			if !slotted {
				st.Members[metadata.MemberID(i)] = metadata.MemberRecord{State: raid.Spare}

				continue
			}

			// Some sectors within a chunk, and some across the end of one.
			from := 1000*raid.Sectors(i) + 3
			bad := []raid.Range{{From: from, To: from + 5}, {From: from + 100, To: from + 600}}
			st.Members[metadata.MemberID(i)] = metadata.MemberRecord{State: raid.InSync, Slot: slot, BadBlocks: bad}

			for _, r := range bad {
				at := m.Superblock.DataOffset
				clear(images[i][(at + r.From).Bytes():(at + r.To).Bytes()])
			}
		}

		for _, stage := range keeper.Record(st) {
			for _, w := range stage {
				copy(images[w.Member][w.Sector.Bytes():], w.Data)
			}
		}

		a, err := Open(probeImages(t, set, images), Options{})
		if err != nil {
			t.Fatal(err)
		}

		if err := checkContent(a, set); err != nil {
			t.Error(err)
		}

		for slot := range a.slots {
			if len(a.slots[slot].bad) != 2 {
				t.Errorf("%s: bad blocks of slot %d are %v, want two ranges", set.Name, slot, a.slots[slot].bad)
			}

			a.slots[slot].bad = nil
		}

		if err := checkContent(a, set); err == nil {
			t.Errorf("%s: without the logs nothing is lost: the set proves nothing", set.Name)
		}
	}
}
