package tests

import (
	"testing"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/raid"
)

// handed are arrays that md and we hand back and forth.
var handed = []kind{
	{"one", raid.Level1, "", mib(9, 2), "", 1},
	{"four", raid.Level4, "", mib(9, 3), "64", 1},
	{"five", raid.Level5, "left-symmetric", mib(9, 4), "64", 1},
	{"six", raid.Level6, "left-symmetric", mib(9, 5), "64", 2},
	{"six-ddf", raid.Level6, "ddf-N-continue", mib(9, 5), "64", 2},
	{"ten-near", raid.Level10, "n2", mib(9, 5), "64", 1},
	{"ten-far", raid.Level10, "f2", mib(9, 3), "64", 1},
	{"ten-offset", raid.Level10, "o2", mib(9, 4), "64", 1},
}

// TestHandOver has md and the engine take arrays from each other while they are
// dirty, and in the middle of a recovery.
func TestHandOver(t *testing.T) {
	f := newFleet(t, sample(handed, "four", "six-ddf", "ten-offset"), false)
	f.keepModels()
	f.create()

	// Dirty, from md to us.
	f.each("mdadm --assemble --quiet /dev/md/$A $D\nthere /dev/md/$A")
	f.exertUntilCut("/dev/md", 31)
	f.loseThePower(1)
	f.engineStarts()

	if n := len(f.told("ResyncStarted", len(f.kinds))); n != len(f.kinds) {
		t.Errorf("%d resyncs of %d arrays that md left dirty", n, len(f.kinds))
	}

	f.judge("/dev/raid", 31)

	// Half recovered, from us to md.
	f.each(`set -- $D
raid-assembler limit $A --min 32K --max 64K >/dev/null
raid-assembler fail $A $2 >/dev/null
raid-assembler remove $A $2 >/dev/null
raid-assembler add --force $A $2 >/dev/null`)
	f.awaitAll("recovering", func(a api.Array) bool { return a.Sync != nil && a.Sync.DoneBytes > 1<<17 })
	f.each("exercise run -model $M -mix unaligned -ops 60 -seed 32 /dev/raid/$A")
	f.engineStops()
	f.halfRecovered("by us")
	f.each(`mdadm --assemble --quiet /dev/md/$A $D
there /dev/md/$A
exercise check -model $M /dev/md/$A`)
	f.mdMakesWhole()
	f.mdIsContent()

	// Half recovered, from md to us.
	f.each(`set -- $D
md=/sys/block/$(basename $(readlink -f /dev/md/$A))/md
echo 50 >$md/sync_speed_min
echo 100 >$md/sync_speed_max
mdadm --quiet /dev/md/$A --fail $2
mdadm --quiet /dev/md/$A --remove $2
mdadm --zero-superblock $2
mdadm --quiet /dev/md/$A --add $2`)
	time.Sleep(5 * time.Second)
	f.each(`exercise run -model $M -mix unaligned -ops 60 -seed 33 /dev/md/$A
mdadm --stop --quiet /dev/md/$A`)
	f.halfRecovered("by md")
	f.MustShell("systemctl start raid-assembler.service")
	f.each("raid-assembler assemble $A >/dev/null") // they were stopped by hand
	f.awaitAll("recovered", whole)
	f.each("exercise check -model $M /dev/raid/$A")

	// Dirty, from us to md.
	f.exertUntilCut("/dev/raid", 34)
	f.loseThePower(2)
	f.each("mdadm --assemble --quiet /dev/md/$A $D\nthere /dev/md/$A")
	f.mdMakesWhole()
	f.judge("/dev/md", 34)
	f.mdIsContent()
	f.each("mdadm --stop --quiet /dev/md/$A")
}

// mdMakesWhole has md do now what Debian has it leave until the first write, so that no
// check is made into it: resyncs and recoveries.
func (f *fleet) mdMakesWhole() {
	f.t.Helper()
	f.t.Log(f.eachOf(redundant, `md=/sys/block/$(basename $(readlink -f /dev/md/$A))/md
echo $A $(cat $md/array_state), whole up to $(cat $md/resync_start), degraded $(cat $md/degraded)
echo active >$md/array_state
come '[ "$(cat $md/sync_action $md/resync_start $md/degraded | paste -sd" ")" = "idle none 0" ]'`))
}

// halfRecovered checks that the second member of each array says that it is
// filled in part, so that the other side has to go on from there.
func (f *fleet) halfRecovered(who string) {
	f.t.Helper()
	f.t.Logf("half recovered %s:\n%s", who, f.each(`set -- $D
offset=$(mdadm --examine $2 | grep "Recovery Offset")
echo $A $offset`))
}
