package tests

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
	"raid-assembler/pkg/api"
)

// TestBoot has file systems on arrays in fstab, by UUID, and reboots: they are
// mounted, and nothing was left unclean.
func TestBoot(t *testing.T) {
	b := start(t)
	one := array{name: "one", level: 1, members: 2, size: 32 << 20}
	five := array{name: "five", level: 5, members: 3, size: 32 << 20, args: "-c64"}
	b.make(one, b.MustDisks(one.members, one.size, "a"))
	b.make(five, b.MustDisks(five.members, five.size, "b"))
	b.install()

	for _, a := range []array{one, five} {
		b.await(a.name, patience, "assembled at start", whole)
		b.MustShell(fmt.Sprintf(`
mkfs.ext4 -q -F /dev/raid/%[1]s
udevadm settle
mkdir -p /srv/%[1]s
echo "UUID=$(blkid -o value -s UUID /dev/raid/%[1]s) /srv/%[1]s ext4 defaults 0 2" >> /etc/fstab
mount /dev/raid/%[1]s /srv/%[1]s
head -c 8M /dev/urandom > /srv/%[1]s/x
sha256sum /srv/%[1]s/x >> /root/sums`, a.name))
	}

	if err := b.Reboot(); err != nil {
		t.Fatal(err)
	}

	b.MustShell("sha256sum -c --quiet /root/sums; findmnt /srv/one; findmnt /srv/five")

	if resyncs := b.events("ResyncStarted"); len(resyncs) != 0 {
		t.Errorf("after a clean reboot: %+v", resyncs)
	}

	b.MustShell("! journalctl -b -1 --no-pager | grep -iE 'I/O error|blocked for more than'")
}

// theEngine is what pkill and pgrep find the engine by, and not its guardian.
const theEngine = "-f '^raid-engine .*serve'"

// arrayThreads prints the directories below /proc of the threads of arrays: these are
// the threads of the engine that are seen to wait in io_uring_enter, sooner or later, but
// not those of the kernel's that work for them, which come and go.
const arrayThreads = "for i in $(seq 40); do grep -ls '^426 ' " +
	"$(pgrep " + theEngine + " | sed 's,.*,/proc/&/task/*/syscall,') || true; " +
	"sleep 0.02; done | sort -u | xargs -r dirname | while read t; do grep -qs '^iou-' $t/comm || [ ! -e $t ] || " +
	"echo $t; done"

// faults returns how many page faults the threads of arrays have had: minor, and major.
func (b *box) faults() (n [2]int) {
	b.t.Helper()

	out := b.MustShell("for t in $(" + arrayThreads + "); do sed 's/.*) //' $t/stat; done | awk '{a += $8; b += $10} END {print a + 0, b + 0, NR}'")

	var threads int
	if _, err := fmt.Sscan(out, &n[0], &n[1], &threads); err != nil || threads == 0 {
		b.t.Fatalf("threads of arrays: %v in %q", err, out)
	}

	return n
}

// longestStall is how long an operation of fio took at most, by its report in JSON.
func longestStall(t *testing.T, text string) time.Duration {
	t.Helper()

	type latency struct {
		Latency struct{ Max int64 } `json:"lat_ns"`
	}

	var report struct {
		Jobs []struct{ Read, Write latency }
	}

	if err := json.Unmarshal([]byte(text), &report); err != nil || len(report.Jobs) == 0 {
		t.Fatalf("no report of fio: %v in %s", err, text)
	}

	longest := time.Duration(0)
	for _, j := range report.Jobs {
		longest = max(longest, time.Duration(max(j.Read.Latency.Max, j.Write.Latency.Max)))
	}

	return longest.Round(time.Millisecond)
}

// TestDegradedBoot boots with one member missing: the array starts at its
// deadline and not before, and takes the late member in again.
func TestDegradedBoot(t *testing.T) {
	const deadline = 30 * time.Second

	b := start(t)
	a := array{name: "five", level: 5, members: 4, size: 32 << 20, args: "-c64"}
	disks := b.MustDisks(a.members, a.size, "m")
	b.make(a, disks)
	b.install()
	b.await("five", patience, "assembled at start", whole)
	b.MustShell("raid-assembler stop five; systemctl stop raid-assembler.service")
	disks[2].MustUnplug()

	if err := b.Reboot(); err != nil {
		t.Fatal(err)
	}

	b.MustWaitFor(patience, "journalctl -b -q RAID_EVENT=Waiting | grep -q .")

	if st := b.status(); len(st.Waiting) != 1 || st.Waiting[0].Present != 3 || st.Waiting[0].Needed != 4 {
		t.Errorf("before the deadline the status is %+v, want one array that waits with 3 of 4 members", st)
	}

	b.await("five", patience, "degraded", degradedBy(1))

	seen, degraded := b.told("SuperblockFound", 3), b.told("ArrayStartedDegraded", 1)
	if len(seen) < 3 || len(degraded) != 1 {
		t.Fatalf("members %+v, degraded %+v, want three and one start", seen, degraded)
	}

	waited := degraded[0].at() - seen[0].at()
	t.Logf("started degraded %v after the first member was there", waited.Round(time.Millisecond))

	if waited < deadline-time.Second || waited > deadline+soon {
		t.Errorf("started degraded after %v, want %v", waited, deadline)
	}

	b.MustShell(`cmp /root/five.data /dev/raid/five
dd if=/dev/urandom of=/dev/raid/five bs=1M count=20 seek=3 oflag=direct status=none
cp /dev/raid/five /root/five.data`)

	// The late member missed writes. It must not be believed.
	disks[2].MustReplug()
	b.await("five", patience, "healed", func(a api.Array) bool {
		return whole(a) && a.Members[2].Serial == "m2"
	})

	if len(b.told("RecoveryFinished", 1)) != 1 {
		t.Errorf("the late member was taken in without a recovery")
	}

	b.MustShell("cmp /root/five.data /dev/raid/five; raid-assembler stop five")
	b.mdRuns(a, disks, 0)
}

// TestPowerCut cuts the power under writes, and boots. What was acknowledged as flushed is
// there afterwards, and redundancy is made right again.
func TestPowerCut(t *testing.T) {
	a := array{name: "five", level: 5, members: 4, size: 32 << 20, args: "-c64"}
	b := start(t)

	var disks []*lab.GuestDisk
	for i := range a.members {
		disks = append(disks, b.MustPlug(lab.Disk{Serial: fmt.Sprintf("m%d", i), Size: a.size, Log: true}))
	}

	b.make(a, disks)
	b.install()
	b.await(a.name, patience, "assembled at start", whole)
	b.flushedWrites(a.name)

	if err := b.PowerCut(lab.PowerCut{}); err != nil {
		t.Fatal(err)
	}

	b.await(a.name, patience, "assembled and resynced", whole)

	if len(b.told("ResyncStarted", 1)) != 1 {
		t.Errorf("no resync after a power cut under load")
	}

	b.MustShell(checkFlushed)
	b.MustShell("cp /dev/raid/five /root/five.data; raid-assembler stop five")
	b.mdRuns(a, disks, 0)
}

// flushedWrites writes blocks and notes each after its flush was acknowledged,
// on the root disk, which keeps all; beside it go writes that nobody flushes.
func (b *box) flushedWrites(name string) {
	b.t.Helper()
	b.MustGo(fmt.Sprintf("exec fio --name=load --filename=/dev/raid/%s --direct=1 --ioengine=libaio --iodepth=8 "+
		"--rw=randwrite --bs=16k --offset=16m --time_based --runtime=300", name))
	b.MustGo(fmt.Sprintf(`set +o pipefail # yes is cut off
i=0
while :; do
	i=$((i+1))
	yes "block $i" | head -c 4096 > /dev/shm/block
	dd if=/dev/shm/block of=/dev/raid/%s bs=4k seek=$((i * 7 %% 4096)) conv=notrunc oflag=direct status=none
	sync /dev/raid/%[1]s
	echo "%[1]s $i" >> /root/acked
done`, name))
	b.MustWaitFor(patience, "test $(wc -l < /root/acked) -ge 60")
}

const checkFlushed = `set +o pipefail
while read name i; do
	yes "block $i" | head -c 4096 > /dev/shm/want
	dd if=/dev/raid/$name of=/dev/shm/got bs=4k count=1 skip=$((i * 7 % 4096)) iflag=direct status=none
	cmp /dev/shm/want /dev/shm/got
done < /root/acked`

// TestKilled kills the assembler again and again while disks come, and the
// engine under load: the same end as without.
func TestKilled(t *testing.T) {
	a := array{name: "five", level: 5, members: 4, size: 32 << 20, args: "-c64"}
	b := start(t)
	disks := b.MustDisks(a.members, a.size, "m")
	b.make(a, disks)
	b.pull(disks...)
	b.install()
	b.MustShell(`mkdir -p /run/systemd/system/raid-assembler.service.d
printf '[Service]\nRestartSec=20ms\n' > /run/systemd/system/raid-assembler.service.d/fast.conf
systemctl daemon-reload`)

	killer := b.MustGo(`for i in $(seq 30); do pkill -9 -f '^/usr/sbin/raid-assembler daemon' || true; sleep 0.$((RANDOM % 4))5; done`)

	b.MustReplugAll(disks[2], disks[0], disks[3], disks[1])
	killer.MustWait(patience)
	b.await("five", patience, "assembled", whole)
	b.MustShell("cmp /root/five.data /dev/raid/five")

	if out := b.MustShell("systemctl show -p NRestarts raid-assembler.service"); strings.TrimSpace(out) == "NRestarts=0" {
		t.Errorf("the assembler was not killed once")
	}

	load := b.MustGo(fmt.Sprintf(fio, "five", 7, 32) + " --output-format=json")

	if out := b.MustShell("raid-assembler doctor || true"); !strings.Contains(out, "ok    engine: ") ||
		!strings.Contains(out, "ok    guardian: ") {
		t.Errorf("the doctor says:\n%s", out)
	}

	time.Sleep(2 * time.Second)
	before := b.faults()
	time.Sleep(3 * time.Second)

	after := b.faults()
	t.Logf("the array's thread under load, 3 s: %d minor page faults, %d major ones", after[0]-before[0], after[1]-before[1])

	if after[1] != 0 {
		t.Errorf("%d page faults of the array's thread were served from a disk", after[1])
	}

	// The next one knows by itself what it has to take over.
	b.MustShell("systemctl stop raid-assembler.service")

	// Stopped, it is found by the guardian; and without a guardian there is another, and
	// soon no engine but its own.
	for _, how := range []string{
		"pkill -KILL " + theEngine, "pkill -SEGV " + theEngine, "pkill -ABRT " + theEngine, "pkill -STOP " + theEngine,
		"kill -KILL $(systemctl show -P MainPID raid-engine.service)",
		// An upgrade is the same path, asked for.
		"systemctl restart raid-engine.service",
	} {
		time.Sleep(3 * time.Second)

		was := strings.TrimSpace(b.MustShell("pgrep " + theEngine))
		b.MustShell(how)
		b.MustWaitFor(patience, "now=$(pgrep "+theEngine+"); [ $(wc -w <<<$now) = 1 ] && [ $now != "+was+" ]")
	}

	t.Logf("the longest stall was %v", longestStall(t, load.MustWait(patience)))
	b.MustShell("systemctl start raid-assembler.service")

	if out := b.MustShell("journalctl -b -o cat RAID_EVENT=EngineDied"); !strings.Contains(out, "it was stopped") {
		t.Errorf("no word of an engine that was stopped: %s", out)
	}

	b.await("five", patience, "whole again", whole)
	b.MustShell("cp /dev/raid/five /root/five.data; raid-assembler stop five")
	b.mdRuns(a, disks, 0)
}
