package tests

import (
	"math/rand/v2"
	"strconv"
	"testing"

	"raid-assembler/pkg/raid"
)

// cut are arrays of every level, on disks that lose with the power what they had
// not flushed.
var cut = []kind{
	{"zero", raid.Level0, "", mib(9, 2), "64", 0},
	{"one", raid.Level1, "", mib(9, 2), "", 1},
	{"four", raid.Level4, "", mib(9, 3), "64", 1},
	{"five", raid.Level5, "left-symmetric", mib(9, 3), "64", 1},
	{"six", raid.Level6, "left-symmetric", mib(9, 4), "64", 2},
	{"ten-near", raid.Level10, "n2", mib(9, 3), "64", 1},
	{"ten-far", raid.Level10, "f2", mib(9, 3), "64", 1},
}

// workloads are what the power is cut of.
var workloads = []string{"sequential", "random", "unaligned", "fua", "discard"}

// TestPowerCuts cuts the power of arrays of all levels, each under another
// workload at every cut. What was flushed is there, nothing is there that was
// never written, and md finds redundancy whole in the end. RAID_LAB_CUTS is how
// many cuts there are: by default as many as there are workloads, so that each array
// meets each of them, and one in "make test".
func TestPowerCuts(t *testing.T) {
	rounds := len(workloads)
	if testing.Short() {
		rounds = 1
	}

	rounds = number(t, "RAID_LAB_CUTS", rounds)

	f := newFleet(t, cut, true)
	f.keepModels()
	f.create()
	f.engineStarts()

	first := rand.IntN(len(workloads))
	f.mixes = make(map[string]string)

	for round := range rounds {
		for i, k := range f.kinds {
			f.mixes[k.name] = workloads[(first+round+i)%len(workloads)]
		}

		seed := rand.Uint64()
		t.Logf("seed %d, workloads %v", seed, f.mixes)
		f.exertUntilCut("/dev/raid", seed)
		f.loseThePower(seed)
		f.engineStarts()
		f.judge("/dev/raid", seed)
	}

	// Cuts of what goes on after a cut: the next one finds a resync in its middle.
	seed := rand.Uint64()
	f.exertUntilCut("/dev/raid", seed)

	const nested = 2

	for range nested {
		f.loseThePower(0)
		f.MustShell("systemctl start raid-engine.socket raid-assembler.service")
		f.MustWaitFor(patience, "test $(ls /dev/raid | wc -l) = "+strconv.Itoa(len(f.kinds)))
	}

	f.awaitAll("assembled after cuts of resyncs", whole)
	f.judge("/dev/raid", seed)
	t.Logf("%d cuts of %d arrays", rounds+nested, len(f.kinds))
	f.engineStops()
	f.mdChecks()
}
