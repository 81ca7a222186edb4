package tests

import (
	"fmt"
	"testing"
	"time"

	"raid-assembler/lab"
	"raid-assembler/pkg/api"
	"raid-assembler/pkg/raid"
)

// yanked is an array that loses more members than it survives.
var yanked = []kind{{"six-pulled", 6, "left-symmetric", mib(16, 5), "64", 2}}

// TestYanked pulls two members of a RAID6 at once under writes, and a third one a second
// later: writes fail, nothing is written any more, and with the disks back the array
// holds what was acknowledged.
func TestYanked(t *testing.T) {
	takesLong(t)

	const (
		known = "-model /dev/shm/six-pulled.model -log /dev/shm/six-pulled.log -mix random -seed 7"
		row   = 3 * 64 << 10 / raid.SectorSize // of three chunks of data
	)

	f := newFleet(t, yanked, false)
	f.create()
	f.engineStarts()

	disks := f.disks["six-pulled"]
	load := f.MustGo(fmt.Sprintf("exercise run %s -for 60s /dev/raid/six-pulled", known))

	time.Sleep(3 * time.Second)
	disks[1].MustUnplug()
	disks[2].MustUnplug()
	time.Sleep(time.Second)
	disks[3].MustUnplug()
	f.await("six-pulled", patience, "broken", func(a api.Array) bool { return a.State == "broken" })

	if r, err := load.Wait(t.Context()); err != nil || r.ExitCode == 0 {
		t.Errorf("the writer says %+v, %v; want an error of I/O", r, err)
	} else {
		t.Log(r.Stderr)
	}

	left := []*lab.GuestDisk{disks[0], disks[4]}
	before := f.MustShell("sha256sum " + devices(left))
	f.MustShell("! dd if=/dev/zero of=/dev/raid/six-pulled bs=4k count=1 oflag=direct 2>/dev/null")
	time.Sleep(3 * time.Second)

	if after := f.MustShell("sha256sum " + devices(left)); after != before {
		t.Errorf("written to since it is broken: %s, before %s", after, before)
	}

	f.MustShell("raid-assembler stop six-pulled")
	f.MustReplugAll(disks[1:4]...)
	f.refuses(f.kinds[0])
	f.MustShell("raid-assembler assemble --accept-loss six-pulled")
	f.awaitAll("whole", whole)
	f.MustShell(fmt.Sprintf("exercise crashed %s -row %d /dev/raid/six-pulled", known, row))
	f.engineStops()
}
