package tests

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
	"raid-assembler/pkg/raid"
)

// serving prints the process that serves arrays, of those that there may be: the others
// stand by.
const serving = `for p in $(pgrep ` + theEngine + `); do ls -l /proc/$p/fd 2>/dev/null | grep /dev/ublkc >/dev/null && echo $p || true; done`

// memories prints of each array that is served which file its memory is, of which there is
// one in its file system.
const memories = `awk '$6 ~ "^/#" {print $4}' /proc/$(set -- $(` + serving + `); echo $1)/maps | sort -u`

// killServing kills the process that serves, and prints which that was.
const killServing = `set -- $(` + serving + `)
kill -KILL $1
echo $1`

// killGuardian kills the guardian.
const killGuardian = `kill -KILL $(systemctl show --property=MainPID --value raid-engine.service)`

// urgentThreads counts the threads of the process that serves that are real-time ones.
const urgentThreads = `ps -L -o cls= -p $(` + serving + `) | grep -cv TS || true`

// TestTakeOver kills the engine while the assembler does not run: the next one knows by
// itself which arrays there are and who is in them, also of those that recover. Then the
// host swaps to one of them, a hog takes all memory that there is, and the engine is
// killed on and on: another one stands by, and nothing is ever stuck.
func TestTakeOver(t *testing.T) {
	takesLong(t)

	f := newFleet(t, []kind{
		{"five", raid.Level5, "left-symmetric", mib(24, 4), "64", 1},
		{"six", raid.Level6, "left-symmetric", mib(24, 5), "64", 2},
		{"swap", raid.Level1, "", mib(768, 2), "", 1},
	}, false)
	f.create()
	f.engineStarts()

	data := func(k kind) bool { return k.name != "swap" }

	// One recovers, one lacks a member.
	f.MustShell(`set -- $(. /run/five.is; echo $D)
raid-assembler limit five --max 2M
raid-assembler fail five $2
raid-assembler remove five $2
raid-assembler add --force five $2
set -- $(. /run/six.is; echo $D)
raid-assembler fail six $3
raid-assembler remove six $3
systemctl stop raid-assembler.service`)

	f.MustWaitFor(patience, fmt.Sprintf("[ $(%s) = 0 ]", urgentThreads))

	had := f.MustShell(memories)
	if n := strings.Count(had, "\n"); n != len(f.kinds) {
		t.Errorf("%d arrays have memory that outlives the engine: %s", n, had)
	}

	jobs := f.loads(data, 20, 130)

	for range 4 {
		time.Sleep(4 * time.Second)

		was := strings.TrimSpace(f.MustShell(serving))
		f.MustShell("kill -KILL " + was)
		f.MustWaitFor(patience, `[ "$(`+serving+`)" != "`+was+`" ] && [ -n "$(`+serving+`)" ]`)
	}

	endAll(jobs)
	f.eachOf(data, "exercise check -model $M /dev/raid/$A")
	f.swapAndKill(data)

	if has := f.MustShell(memories); has != had {
		t.Errorf("the memory of arrays was %s, and is %s", had, has)
	}

	f.MustShell("swapoff -a\nsystemctl start raid-assembler.service")
	f.awaitAll("served", served)
	f.eachOf(data, "exercise check -model $M /dev/raid/$A")
	f.eachOf(func(k kind) bool { return k.name == "six" }, "set -- $D\nraid-assembler add --force $A $3 >/dev/null || [ $? = 3 ] # it is back already")
	f.awaitAll("whole in the end", whole)
	f.engineStops()
	f.mdHas(data)
	f.kernelIsContent()
}

// swapAndKill has the host swap to an array, has a hog take half more memory than there
// is, and kills the engine meanwhile, again and again, a while after another one stands by:
// for 200 s, or RAID_LAB_SECONDS.
func (f *fleet) swapAndKill(data func(kind) bool) {
	f.t.Helper()

	seconds := number(f.t, "RAID_LAB_SECONDS", 200)
	hog := f.swapAndHog(seconds + 60)
	jobs := f.loads(data, seconds, 130)

	var (
		longest time.Duration
		kills   int
		end     = time.Now().Add(time.Duration(seconds) * time.Second)
	)

	for ; time.Now().Before(end); kills++ {
		began := time.Now()

		was := strings.TrimSpace(f.MustShell(killServing))
		f.MustWaitFor(patience, "! kill -0 "+was+" 2>/dev/null && [ $(pgrep "+theEngine+" | wc -l) = 2 ]")

		longest = max(longest, time.Since(began))
		time.Sleep(2 * time.Second)
	}

	endAll(jobs)
	hog.MustWait(patience)
	f.t.Logf("%d kills, and at most %v until another engine stood by", kills, longest.Round(time.Millisecond))

	out := f.MustShell("grep -E '^pswp(in|out)' /proc/vmstat; ps -o rss,args -C raid-engine || true; journalctl -b -k --no-pager | grep -i oom || true")
	f.t.Log(out)

	if !strings.Contains(out, "pswpout") || strings.Contains(out, "pswpout 0\n") {
		f.t.Errorf("nothing was swapped out: %s", out)
	}
}

// swapOn has the host swap to an array.
const swapOn = "mkswap -q /dev/raid/swap\nswapon /dev/raid/swap"

// swapAndHog has the host swap to an array, and a hog take half more memory than there is
// for so many seconds. It returns once another engine stands by and pages were swapped out.
func (f *fleet) swapAndHog(seconds int) *lab.Job {
	f.t.Helper()
	f.MustShell(swapOn)
	f.MustWaitFor(patience, "[ $(pgrep "+theEngine+" | wc -l) = 2 ]")

	hog := f.hog(150, seconds)

	f.MustWaitFor(patience, "! grep -qx 'pswpout 0' /proc/vmstat")

	return hog
}

// TestWithoutGuardian kills the guardian, which starts engines, again and again while the host
// swaps to an array and a hog takes all memory that there is: its engine serves on, or systemd
// might wait for ever for a page that it needs to start the next. As a control it then kills
// all of them at a time: of that nothing is demanded but that no data is lost.
func TestWithoutGuardian(t *testing.T) {
	takesLong(t)

	const (
		kills, seconds = 8, 240
		forGood        = 3 * time.Minute
	)

	f := newFleet(t, []kind{
		{"five", raid.Level5, "left-symmetric", mib(24, 4), "64", 1},
		{"swap", raid.Level1, "", mib(768, 2), "", 1},
	}, false)
	data := func(k kind) bool { return k.name != "swap" }
	seed := rand.Uint64()

	f.keepModels()
	f.create()
	f.engineStarts()
	f.swapAndHog(seconds + int(2*forGood/time.Second))

	jobs := f.loads(data, seconds, 150)
	watched := f.MustGo(fmt.Sprintf("exercise progress -for %ds /dev/raid/swap", seconds))

	for range kills {
		time.Sleep(rand.N(15 * time.Second))

		was := strings.TrimSpace(f.MustShell(serving + "\n" + killGuardian))
		began := time.Now()

		f.MustWaitFor(patience, `now=$(`+serving+`); [ -n "$now" ] && [ "$now" != "`+was+`" ]`)
		t.Logf("another engine than %s served %v after the guardian's death", was, time.Since(began).Round(time.Millisecond))
	}

	f.completed(watched.MustWait(seconds*time.Second + patience))
	endAll(jobs)
	f.eachOf(data, "exercise check -model $M /dev/raid/$A")

	f.exertOf(data, "/dev/raid", seed)
	f.MustShell("kill -KILL $(cat /sys/fs/cgroup/system.slice/raid-engine.service/cgroup.procs)")

	if err := f.WaitFor(forGood, "[ -n \"$("+serving+")\" ]"); err != nil {
		t.Logf("control: systemd alone started no engine: %v", err)
	} else {
		t.Log("control: systemd alone started an engine")
	}

	f.lostNothing(data, seed)
}

// lostNothing cuts the power of arrays that were written to as exertOf does, and has what they
// hold then judged.
func (f *fleet) lostNothing(which func(kind) bool, seed uint64) {
	f.t.Helper()
	f.loseThePower(seed)
	f.engineStarts()
	f.judgeOf(which, "/dev/raid", seed, 0)
	f.engineStops()
	f.mdHas(which)
}

// hog has somebody take so many hundredths of the memory for so many seconds. Whenever
// the kernel has ended it, it comes back: systemd would end all of the service that it is
// in, which is the agent of the guest.
func (f *fleet) hog(percent, seconds int) *lab.Job {
	f.MustWriteFile("/run/hog", `#!/bin/bash
size=$(awk "/^MemTotal/ {print int(\$2 * $1 / 100 / 1024)}" /proc/meminfo)
while left=$(($2 - SECONDS)) && [ $left -gt 0 ]; do
	exercise hog -for ${left}s $size || [ $? = 137 ] || exit 1
done
`, 0o755)

	return f.MustGo(fmt.Sprintf("systemd-run --quiet --scope -p OOMPolicy=continue /run/hog %d %d", percent, seconds))
}
