package tests

import (
	"fmt"
	"testing"
	"time"

	"raid-assembler/lab"
	"raid-assembler/pkg/raid"
)

// returning are arrays whose members come back after a moment.
var returning = []kind{
	{"one", raid.Level1, "", mib(24, 2), "", 1},
	{"five", raid.Level5, "left-symmetric", mib(24, 3), "64", 1},
	{"six", raid.Level6, "left-symmetric", mib(24, 4), "64", 1},
	{"ten", raid.Level10, "n2", mib(24, 4), "64", 1},
}

// TestReturns pulls a member under load and pushes it in again after 50, 200 and
// 1000 ms. The kernel gives it another name, since the array has the old one open
// still. It is taken in again, and holds what it missed.
func TestReturns(t *testing.T) {
	f := newFleet(t, returning, false)
	f.create()
	f.engineStarts()

	for i, absence := range []time.Duration{50 * time.Millisecond, 200 * time.Millisecond, time.Second} {
		var loads []*lab.Job
		for _, k := range f.kinds {
			loads = append(loads, f.MustGo(fmt.Sprintf("exercise run -model /dev/shm/%[1]s.model -mix random -for 12s "+
				"-seed %[2]d /dev/raid/%[1]s", k.name, 100+i)))
		}

		for _, k := range f.kinds {
			d := f.disks[k.name][1]
			before := d.MustDev()
			d.MustUnplug()
			time.Sleep(absence)
			d.MustReplug()
			t.Logf("%s: after %v %s is %s", k.name, absence, before, d.MustDev())
		}

		for _, load := range loads {
			load.MustWait(patience)
		}

		f.awaitAll("whole after a return", whole)
		f.each("exercise check -model $M /dev/raid/$A\nraid-assembler check --wait $A >/dev/null 2>&1")
	}

	f.note()
	f.engineStops()
	f.mdChecks()
}
