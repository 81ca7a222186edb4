package tests

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"raid-assembler/lab"
	"raid-assembler/lab/internal/exercise"
	"raid-assembler/pkg/api"
	"raid-assembler/pkg/raid"
)

// layered are arrays whose members lie on devices of the device mapper, which
// can be made slow, deaf or forgetful.
var layered = []kind{
	{"one", raid.Level1, "", mib(10, 2), "", 1},
	{"five", raid.Level5, "left-symmetric", mib(10, 3), "64", 1},
	{"six", raid.Level6, "left-symmetric", mib(10, 4), "64", 1},
	{"ten", raid.Level10, "n2", mib(10, 4), "64", 1},
}

// newLayered makes arrays of which every member is a device of the device mapper,
// named after the array and the slot.
func newLayered(t *testing.T) *fleet {
	t.Helper()

	f := newFleet(t, layered, false)
	f.note()
	// Away from the disk's beginning, where nobody looks for a superblock.
	f.each(`i=0
for d in $D; do
	dmsetup create $A.$i --table "0 18432 linear $d 2048"
	i=$((i + 1))
done
echo "D='$(ls /dev/mapper/$A.* | xargs)'" >>/run/$A.is`)
	f.each(createScript)
	f.engineStarts()

	return f
}

// relay puts another table under the second member of each array. It is given as
// a shell word in which $d is the disk.
func (f *fleet) relay(table string) {
	f.t.Helper()
	f.each(`d=$(dmsetup table $A.1 | grep -oE '[0-9]+:[0-9]+' | head -1)
dmsetup suspend --nolockfs --noflush $A.1
dmsetup load $A.1 --table "` + table + `"
dmsetup resume $A.1`)
}

const plainTable = "0 18432 linear $d 2048"

// heal fills the second member of each array anew, and has everything checked.
func (f *fleet) heal() {
	f.t.Helper()
	f.each(`raid-assembler fail $A /dev/mapper/$A.1 >/dev/null || true
raid-assembler remove $A /dev/mapper/$A.1 >/dev/null
raid-assembler add --force $A /dev/mapper/$A.1 >/dev/null`)
	f.awaitAll("healed", whole)
	f.each("exercise check -model $M /dev/raid/$A\nraid-assembler check --wait $A >/dev/null 2>&1")
}

// TestSlowAndLossyMembers has members that are slow, that lose what is written,
// that hold something else than was written, that may not be written, and that
// never answer again.
func TestSlowAndLossyMembers(t *testing.T) {
	f := newLayered(t)

	for _, slow := range []string{"$d 2048 300 $d 2048 0", "$d 2048 0 $d 2048 300"} {
		f.relay("0 18432 delay " + slow)
		f.at(len(f.kinds), redundant, "exercise run -model $M -mix random -ops 60 -seed 51 /dev/raid/$A")

		for _, k := range f.kinds {
			if a, _ := f.array(k.name); a.Degraded != 0 {
				t.Errorf("%s lost a member that was only slow: %+v", k.name, a)
			}
		}
	}

	f.relay(plainTable)
	f.each("exercise check -model $M /dev/raid/$A")

	t.Log("a member that loses writes")
	f.relay("0 18432 flakey $d 2048 0 3600 1 drop_writes")
	// Whole rows: what computes parity from data that it reads takes the loss over.
	f.each(`dd if=/dev/urandom of=/root/$A.lost bs=1M count=2 status=none
dd if=/root/$A.lost of=/dev/raid/$A bs=1M seek=1 oflag=direct conv=fsync status=none`)
	f.relay(plainTable)
	f.finds("lost writes")
	f.each(`raid-assembler fail $A /dev/mapper/$A.1 >/dev/null
raid-assembler remove $A /dev/mapper/$A.1 >/dev/null
raid-assembler add --force $A /dev/mapper/$A.1 >/dev/null`)
	f.awaitAll("healed", whole)
	f.each(`dd if=/dev/raid/$A bs=1M skip=1 count=2 iflag=direct status=none | cmp - /root/$A.lost
raid-assembler check --wait $A >/dev/null 2>&1
exercise fill -model $M /dev/raid/$A`)

	t.Log("a member that holds something else")
	f.each(`d=$(dmsetup table $A.1 | grep -oE '[0-9]+:[0-9]+')
dd if=/dev/urandom of=/dev/block/$d bs=4k count=3 seek=1024 oflag=direct status=none`)
	f.finds("corruption")
	f.heal()

	t.Log("a member that may not be written")
	f.each(`blockdev --setro /dev/mapper/$A.1
exercise run -model $M -mix unaligned -ops 100 -seed 52 /dev/raid/$A
blockdev --setrw /dev/mapper/$A.1`)
	f.logAll()
	f.heal()

	t.Log("a member that never answers again")
	f.at(len(f.kinds), redundant, `dmsetup suspend --nolockfs --noflush $A.1
timeout 100 exercise run -model $M -mix random -ops 60 -seed 53 /dev/raid/$A`)
	f.awaitAll("rid of a member that does not answer", degradedBy(1))
	f.each("dmsetup resume $A.1\nexercise check -model $M /dev/raid/$A")
	f.heal()
	f.engineStops()
	f.mdChecks()
}

// finds checks that a check finds what is not redundant, and says where.
func (f *fleet) finds(what string) {
	f.t.Helper()
	f.each("if raid-assembler check --wait $A >/dev/null 2>&1; then echo $A: check found nothing >&2; exit 1; fi")

	for _, k := range f.kinds {
		a, _ := f.array(k.name)
		if a.Scrub == nil || a.Scrub.MismatchedBytes == 0 || len(a.Scrub.Where) == 0 || a.Degraded != 0 {
			f.t.Errorf("%s: after %s: %+v", k.name, what, a.Scrub)
		} else {
			f.t.Logf("%s: %s: %d bytes differ at %v", k.name, what, a.Scrub.MismatchedBytes, a.Scrub.Where)
		}
	}
}

// logAll logs how many members each array lacks.
func (f *fleet) logAll() {
	f.t.Helper()

	for _, k := range f.kinds {
		a, _ := f.array(k.name)
		f.t.Logf("%s lacks %d", k.name, a.Degraded)
	}
}

// TestErrors has single sectors and whole members that cannot be read, written or
// flushed, one after the other, on every level with redundancy.
func TestErrors(t *testing.T) {
	f := newFleet(t, layered, false)
	f.create()
	f.engineStarts()

	second := func(do func(*lab.GuestDisk)) {
		for _, k := range f.kinds {
			do(f.disks[k.name][1])
		}
	}

	t.Log("one sector that cannot be read")
	second(func(d *lab.GuestDisk) { d.MustInjectReadError(lab.Sectors{First: 9001, Count: 1}) })
	f.each("exercise check -model $M /dev/raid/$A\nraid-assembler check --wait $A >/dev/null 2>&1 || true")
	f.expect("one sector could not be read", 0)
	second(func(d *lab.GuestDisk) { d.MustClearErrors() })

	t.Log("the same sector of two members, or more, cannot be read")
	f.beyondRedundancy(12001)

	t.Log("a latent error is met by the rebuild of another member")
	f.each(`set -- $D
raid-assembler fail $A $1 >/dev/null
raid-assembler remove $A $1 >/dev/null`)
	f.disks["six"][1].MustInjectReadError(lab.Sectors{First: 9001, Count: 1})
	f.disks["five"][1].MustInjectReadError(lab.Sectors{First: 9001, Count: 1})
	f.each("set -- $D\nraid-assembler add --force $A $1 >/dev/null")
	// RAID5 has nothing to make the sector of: it may end in another way.
	f.awaitAll("rebuilt", func(a api.Array) bool { return whole(a) || a.Name == "five" && a.Sync == nil })
	f.logAll()
	second(func(d *lab.GuestDisk) { d.MustClearErrors() })

	t.Log("members that cannot be flushed")
	f.each("exercise fill -model $M /dev/raid/$A")
	second(func(d *lab.GuestDisk) { d.MustInjectFlushError() })
	f.each("exercise run -model $M -mix random -ops 80 -seed 61 /dev/raid/$A")
	f.awaitAll("rid of members that cannot be flushed", func(a api.Array) bool { return a.Degraded > 0 })
	f.each("exercise check -model $M /dev/raid/$A")
	f.engineStops()
}

// beyondRedundancy has a sector of members that cannot be read on so many that
// nothing tells what it held. That and nothing else is an error, until it is written.
func (f *fleet) beyondRedundancy(sector int64) {
	f.t.Helper()

	gone := func(name string, members ...int) string {
		var found []uint64

		for _, i := range members {
			d, word := f.disks[name][i], make([]byte, 8)
			if _, err := d.ReadAt(word, sector*raid.SectorSize); err != nil {
				f.t.Fatal(err)
			}

			// What is data says so, and whose; parity of two says neither.
			tells := binary.LittleEndian.Uint64(word)
			if tells>>32 == uint64(exercise.First) {
				found = append(found, tells&math.MaxUint32)
			}

			d.MustInjectReadError(lab.Sectors{First: sector, Count: 1})
		}

		slices.Sort(found)

		return strings.Trim(fmt.Sprint(slices.Compact(found)), "[]")
	}

	two := map[string]string{"one": gone("one", 0, 1), "five": gone("five", 0, 1), "ten": gone("ten", 0, 1)}

	gone("six", 0, 1)
	f.each("[ $A != six ] || exercise check -model $M /dev/raid/$A")

	two["six"] = gone("six", 0, 1, 2)

	for _, k := range f.kinds {
		f.t.Log(f.MustShell(fmt.Sprintf("exercise check -without '%s' -model /dev/shm/%[2]s.model /dev/raid/%[2]s",
			two[k.name], k.name)))
	}

	f.expect("what cannot be read is not redundant", 0)

	for _, k := range f.kinds {
		for _, d := range f.disks[k.name] {
			d.MustClearErrors()
		}
	}

	f.each("exercise fill -model $M /dev/raid/$A\nexercise check -model $M /dev/raid/$A\n" +
		"raid-assembler check --wait $A >/dev/null 2>&1")
}

// expect checks how many members every array lacks.
func (f *fleet) expect(what string, degraded int) {
	f.t.Helper()

	for _, k := range f.kinds {
		if a, _ := f.array(k.name); a.Degraded != degraded {
			f.t.Errorf("%s: %s lacks %d members, want %d: %+v", what, k.name, a.Degraded, degraded, a)
		}
	}
}
