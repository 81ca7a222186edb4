package tests

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
	"raid-assembler/pkg/api"
	"raid-assembler/pkg/raid"
)

// killed are arrays large enough for file systems, of which one lacks a member.
var killed = []kind{
	{"one", raid.Level1, "", mib(80, 2), "", 1},
	{"five", raid.Level5, "left-symmetric", mib(40, 4), "64", 1},
	{"short", raid.Level5, "left-symmetric", mib(40, 4), "64", 1},
	{"six", raid.Level6, "left-symmetric", mib(40, 5), "64", 2},
}

// number is what a variable of the environment says, or what is usual.
func number(t *testing.T, variable string, usual int) int {
	t.Helper()

	text := os.Getenv(variable)
	if text == "" {
		return usual
	}

	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}

	return n
}

// served are arrays that run, in whatever state.
func served(api.Array) bool { return true }

// TestTortureKills kills the engine every half to two seconds, whether it serves yet or
// not, while fio writes to file systems and verifies: no error, no byte that differs,
// and nothing changed that nobody wrote. Then it halts an array's thread, which the
// guardian finds. RAID_LAB_KILLS is how often it kills.
func TestTortureKills(t *testing.T) {
	takesLong(t)

	kills := number(t, "RAID_LAB_KILLS", 200)
	f := newFleet(t, killed, false)
	f.torture(kills*3/2+25, func() {
		f.MustGo(fmt.Sprintf("for i in $(seq %d); do sleep $((RANDOM %% 2)).$((RANDOM %% 5 + 5)); pkill -KILL %s || true; done",
			kills, theEngine)).MustWait(time.Duration(kills)*5*time.Second + patience)
		f.awaitAll("served", served)
		f.MustShell("set -- $(" + arrayThreads + ")\ntimeout 60 exercise halt $(basename $1)")
	})

	out := f.MustShell("journalctl -b -o cat RAID_EVENT=EngineDied")
	if !strings.Contains(out, "an array was not served any more") {
		t.Errorf("no word of a thread that hung: %s", out)
	}

	t.Logf("%d engines died of %d kills", strings.Count(out, "the engine died"), kills)
}

// TestTortureRestarts restarts the engine again and again, as an upgrade does, judged as
// by TestTortureKills. RAID_LAB_RESTARTS is how often.
func TestTortureRestarts(t *testing.T) {
	takesLong(t)

	restarts := number(t, "RAID_LAB_RESTARTS", 50)
	f := newFleet(t, killed, false)
	f.torture(restarts*3+25, func() {
		for range restarts {
			f.MustShell("systemctl restart raid-engine.service")
			time.Sleep(rand.N(2 * time.Second))
		}
	})

	if out := f.MustShell("journalctl -b -o cat RAID_EVENT=EngineDied"); out != "" {
		t.Errorf("engines died: %s", out)
	}
}

// torture makes the arrays, of which one lacks a member, puts file systems on them, and
// has fio write to these for so many seconds while it happens. Then it judges all.
func (f *fleet) torture(seconds int, it func()) {
	f.t.Helper()
	f.create()
	f.engineStarts()

	short := func(k kind) bool { return k.name == "short" }
	f.eachOf(short, "set -- $D\nraid-assembler fail $A $2 >/dev/null\nraid-assembler remove $A $2 >/dev/null")
	f.each(`case $A in
one | five) mkfs.xfs -q -f --unsupported /dev/raid/$A ;;
*) mkfs.ext4 -q -F /dev/raid/$A ;;
esac
mkdir -p /srv/$A
mount /dev/raid/$A /srv/$A
head -c 16M /dev/urandom >/srv/$A/still
sha256sum /srv/$A/still >/run/$A.sum
sync`)

	loads := make([]*lab.Job, len(f.kinds))
	for i, k := range f.kinds {
		loads[i] = f.MustGo(fmt.Sprintf("fio --name=load --directory=/srv/%s --size=12M --direct=1 "+
			"--ioengine=libaio --iodepth=8 --rw=randwrite --bsrange=4k-64k --verify=crc32c --verify_backlog=32 "+
			"--do_verify=1 --randseed=%d --time_based --runtime=%d --output-format=json", k.name, 80+i, seconds))
	}

	it()

	for i, load := range loads {
		f.t.Logf("%s: the longest stall was %v", f.kinds[i].name, longestStall(f.t, load.MustWait(patience)))
	}

	f.awaitAll("served in the end", served)
	f.MustShell("echo 3 >/proc/sys/vm/drop_caches")
	f.each("sha256sum --quiet -c /run/$A.sum\numount /srv/$A")
	f.eachOf(short, "set -- $D\nraid-assembler add --force $A $2 >/dev/null")
	f.awaitAll("whole in the end", whole)
	f.each(`case $A in
one | five) xfs_repair -n /dev/raid/$A ;;
*) fsck.ext4 -f -n /dev/raid/$A ;;
esac
raid-assembler stop $A`)
	f.MustShell("systemctl stop raid-assembler.service")
	f.each("mdadm --assemble --quiet /dev/md/$A $D\nthere /dev/md/$A")
	f.mdIsContent()
	f.MustShell("! journalctl -b -k --no-pager | grep -iE 'I/O error|blocked for more than'")
}
