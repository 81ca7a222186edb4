package tests

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
	"raid-assembler/pkg/raid"
)

// TestExhausted has the host swap to two arrays and keep its journal on another one, and
// a hog take three times the memory that there is, again and again for five minutes, or
// RAID_LAB_SECONDS. A member of an array that is swapped to is pulled meanwhile, and a
// spare takes its place. Requests are completed all the time, and nobody is killed but
// the hog.
func TestExhausted(t *testing.T) {
	takesLong(t)

	seconds := number(t, "RAID_LAB_SECONDS", 300)

	f := newFleet(t, []kind{
		{"five", raid.Level5, "left-symmetric", mib(24, 4), "64", 1},
		{"log", raid.Level1, "", mib(64, 2), "", 1},
		{"swap1", raid.Level1, "", mib(1024, 2), "", 1},
		{"swap5", raid.Level5, "left-symmetric", mib(400, 4), "64", 1},
	}, false)
	spare := f.MustPlug(lab.Disk{Serial: "swap5.spare", Size: 400 << 20})

	f.create()
	f.engineStarts()
	f.MustShell(`raid-assembler add --force swap5 ` + spare.MustDev() + `
mkfs.ext4 -q -F /dev/raid/log
mkdir -p /var/log/journal
mount /dev/raid/log /var/log/journal
systemctl restart systemd-journald.service
for a in swap1 swap5; do
	mkswap -q /dev/raid/$a
	swapon -p 5 /dev/raid/$a
done`)

	data := func(k kind) bool { return k.name == "five" }
	jobs := f.loads(data, seconds, 140)
	said := f.MustGo(fmt.Sprintf("while [ $SECONDS -lt %d ]; do logger -p user.crit says something; sleep 1; done", seconds))

	var watched []*lab.Job
	for _, k := range f.kinds {
		watched = append(watched, f.MustGo(fmt.Sprintf("exercise progress -for %ds /dev/raid/%s", seconds, k.name)))
	}

	hog := f.hog(300, seconds-15)

	time.Sleep(time.Duration(seconds/6) * time.Second)
	f.disks["swap5"][1].MustUnplug()
	f.disks["swap5"][1] = spare

	for _, w := range watched {
		f.completed(w.MustWait(time.Duration(seconds)*time.Second + patience))
	}

	endAll(jobs)
	said.MustWait(patience)
	hog.MustWait(patience)
	f.noneKilledButTheHog()
	f.awaitAll("whole after the spare took a place", whole)
	f.MustShell("swapoff -a\njournalctl --relinquish-var\numount /var/log/journal")
	f.note()
	f.eachOf(data, "exercise check -model $M /dev/raid/$A")
	f.engineStops()
	f.mdHas(data)
	f.kernelIsContent()
}

// unprotected is what a drop-in takes from the engine: that its memory is locked, that what it
// asks for is not found by writing to its arrays, what the kernel keeps back for real-time
// threads, and that it is not killed for its memory.
const unprotected = `[Service]
LimitMEMLOCK=0
LimitRTPRIO=0
CapabilityBoundingSet=
CapabilityBoundingSet=CAP_SYS_ADMIN
MemorySwapMax=infinity
OOMScoreAdjust=0
`

// TestUnprotected is a control of TestExhausted: the host swaps to an array whose engine may
// itself be swapped out to it. It may be stuck for good, and the power is cut. Nothing is
// demanded but that no data is lost; what became of it is logged.
func TestUnprotected(t *testing.T) {
	takesLong(t)

	const seconds = 90

	f := newFleet(t, []kind{
		{"five", raid.Level5, "left-symmetric", mib(24, 4), "64", 1},
		{"swap", raid.Level1, "", mib(1024, 2), "", 1},
	}, false)
	data := func(k kind) bool { return k.name != "swap" }
	seed := rand.Uint64()

	f.keepModels()
	f.create()
	f.MustShell("mkdir -p /run/systemd/system/raid-engine.service.d")
	f.MustWriteFile("/run/systemd/system/raid-engine.service.d/unprotected.conf", unprotected, 0o644)
	f.engineStarts()

	said := f.MustShell("raid-assembler doctor || true")
	if !strings.Contains(said, "its memory is not locked") {
		t.Fatalf("the engine is protected: %s", said)
	}

	f.exertOf(data, "/dev/raid", seed)
	f.MustShell(swapOn)

	watched := f.MustGo(fmt.Sprintf("exercise progress -for %ds /dev/raid/swap", seconds))

	f.hog(150, seconds)

	ctx, cancel := context.WithTimeout(context.Background(), 2*seconds*time.Second)
	defer cancel()

	if r, err := watched.Wait(ctx); err != nil {
		t.Log("control:", err)
	} else {
		t.Log("control:", r.Stdout)
	}

	f.lostNothing(data, seed)
}

// stuckMax is how long an array may complete nothing while requests wait.
const stuckMax = 10 * time.Second

// completed judges what was seen of a device.
func (f *fleet) completed(said string) {
	f.t.Helper()
	f.t.Log(strings.TrimSpace(said))

	longest := regexp.MustCompile(`completed for (\S+) at most`).FindStringSubmatch(said)
	if longest == nil {
		f.t.Fatalf("no word of progress: %s", said)
	}

	if d, err := time.ParseDuration(longest[1]); err != nil || d > stuckMax {
		f.t.Errorf("requests waited for %v (%v), want at most %v", d, err, stuckMax)
	}
}

// noneKilledButTheHog looks at whom the kernel has killed for their memory.
func (f *fleet) noneKilledButTheHog() {
	f.t.Helper()

	out := f.MustShell(`grep -E '^(pswp(in|out)|oom_kill) ' /proc/vmstat
ps -o rss,args -C raid-engine
journalctl -b -k -o cat --no-pager | grep -o 'Killed process.*([^)]*)' | sed 's/.*(/killed (/' | sort | uniq -c || true`)
	f.t.Log(out)

	for line := range strings.Lines(out) {
		if strings.Contains(line, "killed (") && !strings.Contains(line, "killed (exercise)") {
			f.t.Errorf("%s was killed", line)
		}
	}

	if strings.Contains(out, "pswpout 0\n") {
		f.t.Error("nothing was swapped out")
	}
}
