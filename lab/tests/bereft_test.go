package tests

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
	"raid-assembler/pkg/api"
	"raid-assembler/pkg/raid"
)

// bereft are arrays that lack their second member after a power cut: those that are
// called pulled had lost it before. Those called log keep partial parity logs.
var bereft = []kind{
	{"one", raid.Level1, "", mib(9, 2), "", 1},
	{"ten", raid.Level10, "n2", mib(9, 3), "64", 1},
	{"five-log", raid.Level5, "left-symmetric", mib(9, 3), "4", 1},
	{"five-log-pulled", raid.Level5, "left-symmetric", mib(9, 3), "4", 1},
	{"five", raid.Level5, "left-symmetric", mib(9, 3), "4", 1},
	{"five-pulled", raid.Level5, "left-symmetric", mib(9, 3), "4", 1},
	{"six", raid.Level6, "left-symmetric", mib(9, 4), "4", 1},
}

// TestPowerCutTakesAMember cuts the power of arrays that lack a member, or lose it
// in the same cut. Those start in which all is right that was not being written.
// The others do not, and say what can be done: after which no more is lost than
// rows that were being written.
func TestPowerCutTakesAMember(t *testing.T) {
	takesLong(t)

	// Rows of two chunks of data, in sectors.
	const row = 2 * 4096 / raid.SectorSize

	named := func(names ...string) func(kind) bool {
		return func(k kind) bool { return slices.Contains(names, k.name) }
	}
	f := newFleet(t, bereft, true)
	f.keepModels()
	f.create()
	f.engineStarts()

	var lost []*lab.GuestDisk

	for _, k := range f.kinds {
		if d := f.disks[k.name][1]; !strings.HasSuffix(k.name, "-pulled") {
			lost = append(lost, d)
		} else {
			d.MustUnplug()
			f.await(k.name, patience, "degraded", degradedBy(1))
		}
	}

	seed := rand.Uint64()
	f.exertUntilCut("/dev/raid", seed)

	// What is under way is now on some members and not on the last.
	for _, k := range f.kinds {
		f.disks[k.name][len(k.members)-1].MustThrottle(lab.Speed{BytesPerSecond: 1})
	}

	time.Sleep(time.Second)
	f.loseThePower(seed, lost...)
	f.MustShell("systemctl start raid-engine.socket raid-assembler.service")

	starts := named("one", "ten", "five-log", "five-log-pulled")

	for _, k := range f.kinds {
		if starts(k) {
			f.await(k.name, patience, "degraded", degradedBy(1))
		} else {
			f.refuses(k)
		}
	}

	f.judgeOf(named("one", "ten"), "/dev/raid", seed, 0)
	// What was being written may be neither old nor new where it is computed.
	f.judgeOf(named("five-log", "five-log-pulled"), "/dev/raid", seed, 1)

	// The ways out.
	f.disks["five"][1].MustReplug()
	f.await("five", patience, "whole with the lost member", whole)
	f.judgeOf(named("five"), "/dev/raid", seed, 0)
	f.eachOf(named("five-pulled", "six"), "raid-assembler assemble --accept-loss $A >/dev/null")
	f.judgeOf(named("five-pulled", "six"), "/dev/raid", seed, row)

	for _, k := range f.kinds {
		if k.name != "five" {
			f.disks[k.name][1].MustReplug()
		}
	}

	f.awaitAll("whole after the return of what was lost", whole)
	// Of two parities only one was used to fill the member.
	f.eachOf(named("six"), "raid-assembler repair --wait $A >/dev/null 2>&1 || [ $? = 1 ]")
	f.note()
	f.each("exercise check -model $M /dev/raid/$A")
	f.engineStops()
	f.mdChecks()
}

// refuses waits until an array is refused, tries what is not enough, and checks
// that it says what is.
func (f *fleet) refuses(k kind) {
	f.t.Helper()

	var a api.Array

	for deadline := time.Now().Add(patience); !strings.Contains(a.Reason, "not stopped cleanly"); {
		if time.Now().After(deadline) {
			f.t.Fatalf("%s is not refused: %+v, %+v", k.name, a, f.status())
		}

		time.Sleep(200 * time.Millisecond)

		a, _ = f.array(k.name)
	}

	ways := []string{"raid-assembler assemble --accept-loss " + a.UUID}
	if !strings.HasSuffix(k.name, "-pulled") {
		ways = append(ways, "plug in slot 1")
	}

	out := f.MustShell("[ ! -e /dev/raid/" + k.name + " ]; code=0; raid-assembler assemble --force " + k.name +
		" 2>&1 || code=$?; [ $code = 3 ]")
	f.t.Log(out)

	for _, way := range ways {
		if !strings.Contains(a.Reason, way) || !strings.Contains(out, way) {
			f.t.Errorf("%s is refused since %q, and %q; want %q among both", k.name, a.Reason, out, way)
		}
	}
}
