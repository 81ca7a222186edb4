package tests

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"raid-assembler/lab"
	"raid-assembler/pkg/api"
	"raid-assembler/pkg/raid"
)

// super is what tests read of a superblock of version 1.2, on the host.
type super struct {
	array  [16]byte
	size   uint64 // of what is used of each member, in sectors
	events uint64
}

// superOf reads a disk's superblock, which is all zero where there is none.
func (f *fleet) superOf(d *lab.GuestDisk) super {
	f.t.Helper()

	block := make([]byte, 256)
	if _, err := d.ReadAt(block, 4096); err != nil {
		f.t.Fatal(err)
	}

	return super{
		array: [16]byte(block[16:]), size: binary.LittleEndian.Uint64(block[80:]),
		events: binary.LittleEndian.Uint64(block[200:]),
	}
}

// held is an array in the middle of whose next record the power is to be cut.
type held struct {
	name  string
	disks []*lab.GuestDisk // that get the record
	of    func(super) any  // what the record changes
}

// differ reports whether a record is on some of the disks but not on all.
func (f *fleet) differ(h *held) bool {
	first := h.of(f.superOf(h.disks[0]))

	return slices.ContainsFunc(h.disks[1:], func(d *lab.GuestDisk) bool { return h.of(f.superOf(d)) != first })
}

// hold waits until each array has such a record on one disk but not on another,
// and has all its disks stop then. They are slow meanwhile, but for the first.
func (f *fleet) hold(what string, all []*held, trigger func()) {
	f.t.Helper()

	began := time.Now()

	for _, h := range all {
		for _, d := range h.disks[1:] {
			d.MustThrottle(lab.Speed{IOPS: 24})
		}
	}

	trigger()

	for deadline := time.Now().Add(patience); len(all) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("%s: of %d arrays none was seen in the middle of its record: %+v", what, len(all), all)
		}

		all = slices.DeleteFunc(all, func(h *held) bool {
			if !f.differ(h) {
				return false
			}

			for _, d := range slices.Backward(h.disks) {
				d.MustThrottle(lab.Speed{BytesPerSecond: 1})
			}

			return true
		})
	}

	f.t.Logf("%s: all were in the middle of it after %v", what, time.Since(began).Round(100*time.Millisecond))
}

// moving are arrays that lose a member, get a spare for it, and fill that.
var moving = []kind{
	{"one", raid.Level1, "", mib(9, 3), "", 1},
	{"five-log", raid.Level5, "left-symmetric", mib(9, 3), "4", 1},
	{"ten", raid.Level10, "n2", mib(9, 4), "64", 1},
}

// TestPowerCutDuringARecord cuts the power while the failure of a member, what a
// spare becomes, or how far its recovery came is on some members and not yet on
// others. Whoever is stale does not win.
func TestPowerCutDuringARecord(t *testing.T) {
	takesLong(t)

	f := newFleet(t, moving, true)
	f.keepModels()

	spares := f.plugSpares(true)

	f.create()
	f.engineStarts()
	f.cutDuring("a failure", "set -- $D\nexec raid-assembler fail $A $2")

	for _, k := range f.kinds {
		f.disks[k.name][1].MustUnplug()
		f.disks[k.name][1] = spares[k.name]
	}

	f.awaitAll("without the one that failed", idleBy(1))
	f.note()
	f.cutDuring("a spare", "set -- $D\nexec raid-assembler add --force $A $2")
	// Again from the beginning, and slowly.
	f.each(`set -- $D
raid-assembler fail $A $2 || true
raid-assembler remove $A $2 || true
raid-assembler limit $A --min 64K --max 128K
raid-assembler add --force $A $2`)
	f.awaitAll("recovering", func(a api.Array) bool { return a.Sync != nil && a.Sync.DoneBytes > 0 })
	f.cutDuring("a checkpoint", "")
	f.awaitAll("whole", whole)
	f.each("exercise check -model $M /dev/raid/$A")
	f.engineStops()
	f.mdChecks()
}

// idleBy is degradedBy for arrays that nothing goes on at.
func idleBy(n int) func(api.Array) bool {
	return func(a api.Array) bool { return a.Degraded == n && a.Sync == nil }
}

// cutDuring cuts the power of arrays that are in use, each in the middle of a
// record that a script leads to, and judges them.
func (f *fleet) cutDuring(what, script string) {
	f.t.Helper()

	seed := rand.Uint64()
	f.exertUntilCut("/dev/raid", seed)

	var all []*held

	for _, k := range f.kinds {
		// The second one is the one that fails, or was it.
		disks := slices.Delete(slices.Clone(f.disks[k.name]), 1, 2)
		all = append(all, &held{name: k.name, disks: disks, of: func(s super) any { return s.events }})
	}

	f.hold(what, all, func() {
		for _, k := range f.kinds {
			f.MustGo(fmt.Sprintf(". /run/%s.is\n%s", k.name, script))
		}
	})
	f.loseThePower(seed)

	for _, k := range f.kinds {
		var events []uint64
		for _, d := range f.disks[k.name] {
			events = append(events, f.superOf(d).events)
		}

		f.t.Logf("%s: cut during the record of %s, members are at %d", k.name, what, events)
	}

	f.MustShell("systemctl start raid-engine.socket raid-assembler.service")
	f.awaitAll("started after a cut", func(a api.Array) bool { return a.Device != "" })

	log := func(k kind) bool { return k.name == "five-log" }
	f.judgeOf(log, "/dev/raid", seed, 1)
	f.judgeOf(func(k kind) bool { return !log(k) }, "/dev/raid", seed, 0)
}
