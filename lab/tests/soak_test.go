package tests

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"raid-assembler/lab"
	"raid-assembler/pkg/api"
	"raid-assembler/pkg/raid"
)

// soaked are arrays of which all can lose a member.
var soaked = []kind{
	{"one", raid.Level1, "", mib(24, 2), "", 1},
	{"five", raid.Level5, "left-symmetric", mib(24, 4), "64", 1},
	{"six", raid.Level6, "left-symmetric", mib(24, 5), "64", 2},
	{"ten", raid.Level10, "n2", mib(24, 4), "64", 1},
}

// soak is a fleet to which things happen.
type soak struct {
	*fleet
	spares map[string]*lab.GuestDisk
	rng    *rand.Rand
}

// blow is something that happens to an array, which is whole again afterwards.
type blow struct {
	name  string
	kills bool // a process, whose successor begins with the memory that it needs
	do    func(s *soak, k kind)
}

var blows = []blow{
	{"the engine was killed", true, func(s *soak, _ kind) { s.MustShell("pkill -KILL " + theEngine) }},
	{"the assembler was killed", true, func(s *soak, _ kind) { s.MustShell("pkill -KILL -x raid-assembler") }},
	{"a member was pulled and came back", false, func(s *soak, k kind) {
		d := s.disks[k.name][s.rng.IntN(len(k.members))]
		d.MustUnplug()
		s.await(k.name, patience, "degraded", degradedBy(1))
		time.Sleep(time.Duration(s.rng.IntN(3000)) * time.Millisecond)
		d.MustReplug()
	}},
	{"a member failed, was removed and added", false, func(s *soak, k kind) {
		s.MustShell(fmt.Sprintf("for verb in fail remove 'add --force'; do raid-assembler $verb %s %s >/dev/null; done",
			k.name, s.disks[k.name][s.rng.IntN(len(k.members))].MustDev()))
	}},
	{"a member was replaced", false, func(s *soak, k kind) {
		slot, spare := s.rng.IntN(len(k.members)), s.spares[k.name]
		old := s.disks[k.name][slot]
		s.MustShell(fmt.Sprintf("raid-assembler replace --force %s %s %s >/dev/null", k.name, old.MustDev(), spare.MustDev()))
		s.await(k.name, patience, "replaced", func(a api.Array) bool {
			return whole(a) && a.Members[slot].Serial == spare.Serial()
		})
		s.MustShell(fmt.Sprintf("raid-assembler remove %[1]s %[2]s >/dev/null 2>&1 || true; raid-assembler erase --force %[2]s >/dev/null",
			k.name, old.MustDev()))
		s.disks[k.name][slot], s.spares[k.name] = spare, old
	}},
	{"udev told of everything, three times", false, func(s *soak, _ kind) {
		// A guest that shares its processors may take minutes for it.
		s.MustGo("for i in 1 2 3; do udevadm trigger -s block; done\nudevadm settle -t 500").MustWait(2 * patience)
	}},
	{"it was checked", false, func(s *soak, k kind) { s.MustShell("raid-assembler check --wait " + k.name + " >/dev/null") }},
}

// TestSoak has arrays be written to, and what is read be compared, for an hour or
// RAID_LAB_SECONDS, while one thing after the other happens to them, by a seed that it
// says, or RAID_LAB_SEED. In the first quarter processes are killed, too. In the end
// none takes more memory than before, or has more files open.
func TestSoak(t *testing.T) {
	takesLong(t)

	seconds := number(t, "RAID_LAB_SECONDS", 3600)
	seed := number(t, "RAID_LAB_SEED", int(time.Now().Unix()))
	t.Logf("RAID_LAB_SEED=%d", seed)

	f := newFleet(t, soaked, false)
	s := &soak{fleet: f, spares: f.plugSpares(false), rng: rand.New(rand.NewPCG(uint64(seed), 0))}

	s.create()
	s.engineStarts()

	var (
		began  = time.Now()
		period = time.Duration(seconds) * time.Second
		loads  = s.loads(anyKind, seconds, seed)
		uses   []usage
	)

	for time.Since(began) < period {
		k, b := s.kinds[s.rng.IntN(len(s.kinds))], blows[s.rng.IntN(len(blows))]
		if b.kills && time.Since(began) > period/4 {
			continue
		}

		start := time.Now()

		b.do(s, k)
		s.await(k.name, patience, "whole after "+b.name, whole)

		t.Logf("%4.0f s: %s: %s, %.1f s", start.Sub(began).Seconds(), k.name, b.name, time.Since(start).Seconds())

		if start.Sub(began) > period/4 {
			uses = append(uses, s.usage())
		}
	}

	for _, l := range loads {
		l.MustWait(period + patience)
	}

	s.awaitAll("whole in the end", whole)
	flat(t, uses)
	s.note()
	s.each("exercise check -model $M /dev/raid/$A")
	s.engineStops()
	s.mdHas(anyKind)
	s.kernelIsContent()
}

// usage is what the guardian, the engine and the assembler take, but for the program and for
// the arrays' own memory, which is a file of a size that does not change.
type usage struct {
	Guardian, Engine, Assembler struct{ KiB, Files int }
}

func (u usage) String() string {
	return fmt.Sprintf("guardian %d KiB and %d files, engine %d and %d, assembler %d and %d",
		u.Guardian.KiB, u.Guardian.Files, u.Engine.KiB, u.Engine.Files, u.Assembler.KiB, u.Assembler.Files)
}

func (s *soak) usage() usage {
	s.t.Helper()

	out := s.MustShell(`for p in $(systemctl show -P MainPID raid-engine) $(pgrep ` + theEngine + `) $(systemctl show -P MainPID raid-assembler); do
	awk '/^RssAnon/ {print $2}' /proc/$p/status
	ls /proc/$p/fd | wc -l
done`)

	var u usage
	if _, err := fmt.Sscan(out, &u.Guardian.KiB, &u.Guardian.Files, &u.Engine.KiB, &u.Engine.Files,
		&u.Assembler.KiB, &u.Assembler.Files); err != nil {
		s.t.Fatalf("what they take: %v in %q", err, out)
	}

	s.t.Log(u)

	return u
}

// flat compares what was taken in the last third of the time with the third before.
func flat(t *testing.T, uses []usage) {
	t.Helper()

	third := len(uses) / 3
	if third < 3 {
		t.Logf("%d measurements tell nothing", len(uses))

		return
	}

	for _, tt := range []struct {
		what string
		of   func(usage) int
		more int // than before, which is too much
	}{
		{"KiB of the guardian", func(u usage) int { return u.Guardian.KiB }, 256},
		{"KiB of the engine", func(u usage) int { return u.Engine.KiB }, 1024},
		// Its recording fills up, which is a MiB, and it may be given a huge page.
		{"KiB of the assembler", func(u usage) int { return u.Assembler.KiB }, 3072},
		{"files of the guardian", func(u usage) int { return u.Guardian.Files }, 0},
		{"files of the engine", func(u usage) int { return u.Engine.Files }, 0},
		{"files of the assembler", func(u usage) int { return u.Assembler.Files }, 0},
	} {
		before, after := median(uses[third:2*third], tt.of), median(uses[2*third:], tt.of)
		t.Logf("%s: %d, then %d", tt.what, before, after)

		if after > before+tt.more {
			t.Errorf("%s: %d, then %d: want at most %d more", tt.what, before, after, tt.more)
		}
	}
}

func median(uses []usage, of func(usage) int) int {
	numbers := make([]int, 0, len(uses))
	for _, u := range uses {
		numbers = append(numbers, of(u))
	}

	slices.Sort(numbers)

	return numbers[len(numbers)/2]
}
