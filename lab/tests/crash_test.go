package tests

import (
	"math/rand/v2"
	"testing"
	"time"

	"raid-assembler/lab"
	"raid-assembler/pkg/raid"
)

// kills is how often TestKilledDegraded kills the engine.
const kills = 6

// TestKilledDegraded kills the engine again and again while arrays with parity that
// lack members, or none, are written to. What was being written to a row is done again
// by the next engine, and so nobody sees an error, and nothing changes that nobody was
// writing, although it is computed from parity.
func TestKilledDegraded(t *testing.T) {
	f := newFleet(t, []kind{
		{"five", raid.Level5, "left-symmetric", mib(16, 3), "64", 1},
		{"four", raid.Level4, "", mib(16, 4), "64", 1},
		{"six", raid.Level6, "left-symmetric", mib(16, 5), "64", 2},
		{"whole", raid.Level5, "left-symmetric", mib(16, 3), "64", 1},
	}, false)
	f.create()
	f.engineStarts()

	short := func(k kind) bool { return k.name != "whole" }
	f.eachOf(short, `set -- $D
for d in ${@:1:$L}; do raid-assembler fail $A $d >/dev/null; raid-assembler remove $A $d >/dev/null; done`)

	// On slow disks hardly ever nothing is under way.
	throttle := func(speed lab.Speed) {
		for _, k := range f.kinds {
			for _, d := range f.disks[k.name] {
				d.MustThrottle(speed)
			}
		}
	}
	throttle(lab.Speed{IOPS: 100})

	loads := f.loads(anyKind, 6*kills, 130)

	for range kills {
		f.awaitAll("served", served)
		time.Sleep(rand.N(1500 * time.Millisecond))
		f.MustShell("pkill -9 " + theEngine)
	}

	throttle(lab.Speed{})

	endAll(loads)
	f.each("exercise check -model $M /dev/raid/$A")

	// A log that was never needed would prove nothing.
	redone := f.MustShell("journalctl -b -o json RAID_EVENT=ArrayStartedDegraded | " +
		"grep -o '[1-9][0-9]* writes to rows' | sort | uniq -c || true")
	if redone == "" {
		t.Errorf("%d kills, and nothing had to be done again", kills)
	}

	t.Log(redone)

	f.eachOf(short, `set -- $D
for d in ${@:1:$L}; do raid-assembler add --force $A $d >/dev/null; done`)
	f.awaitAll("whole in the end", whole)
	f.each("raid-assembler stop $A >/dev/null")
	f.MustShell("systemctl stop raid-assembler.service")
	f.each("mdadm --assemble --quiet /dev/md/$A $D\nthere /dev/md/$A\nexercise check -model $M /dev/md/$A")
	f.mdIsContent()
}
