package tests

import (
	"fmt"
	"strings"
	"time"
)

// limits has a limit be put on the memory of the engine's unit, below what it has, and
// lifted as the doctor says. What cannot be had for want of memory is no fault of members.
func (a *adversity) limits() {
	failed := len(a.events("MemberFailed"))

	for _, property := range []string{"MemoryHigh", "MemoryMax"} {
		a.underLoad(15, func() {
			a.MustShell("half=$(($(systemctl show -P MemoryCurrent raid-engine.service) / 2))\n" +
				"systemctl set-property --runtime raid-engine.service " + property + "=$half")

			out := a.MustShell("code=0\nraid-assembler doctor 2>&1 || code=$?\n[ $code = 2 ]")
			_, said, found := strings.Cut(out, "the engine may have to wait for memory: "+property)
			_, remedy, _ := strings.Cut(said, "remedy: ")
			remedy, _, _ = strings.Cut(remedy, "\n")

			if !found || !strings.HasPrefix(remedy, "systemctl set-property raid-engine.service ") {
				a.t.Fatalf("the doctor says %s, want a word of %s, and how to lift it", out, property)
			}

			time.Sleep(8 * time.Second)
			a.t.Log(a.MustShell("cat /sys/fs/cgroup/system.slice/raid-engine.service/memory.events\n" + remedy))
		})
		a.MustShell("raid-assembler doctor >/run/doctor || [ $? = 1 ]\n! grep " + property + " /run/doctor")
	}

	if all := a.events("MemberFailed"); len(all) > failed {
		a.t.Errorf("members failed for want of memory: %+v", all[failed:])
	}
}

// broken has the engine's program be replaced by one that does not start, and kills the
// engine: the guardian runs the program that it is itself. Then it kills the guardian as
// well: its engine serves on, and nobody takes the arrays over until the good program is back.
func (a *adversity) broken() {
	a.underLoad(20, func() {
		a.MustShell("mv /usr/sbin/raid-engine /usr/sbin/raid-engine.good\ncp /bin/false /usr/sbin/raid-engine\npkill -KILL " + theEngine)
		a.awaitAll("taken over by the program that the guardian is", served)
		time.Sleep(5 * time.Second)
	})

	loads := a.loads(anyKind, 20, 170)

	time.Sleep(3 * time.Second)
	a.MustShell("kill -KILL $(systemctl show -P MainPID raid-engine)")
	// More than systemd's own limit on how often a unit may be started.
	a.MustWaitFor(patience, "[ $(systemctl show -P NRestarts raid-engine.service) -gt 8 ]")

	out := a.MustShell("code=0\nraid-assembler status 2>&1 || code=$?\n[ $code = 4 ]")
	a.t.Log(out, a.MustJournal("-b", "-n", "12", "-o", "cat", "-u", "raid-engine.service", "-u", "raid-assembler.service"))

	a.MustShell("mv /usr/sbin/raid-engine.good /usr/sbin/raid-engine")
	a.awaitAll("taken over by the good program", served)
	endAll(loads)
}

// fillMemory leaves 200 MB of the memory that is available, until /mnt is unmounted.
const fillMemory = `
ballast=$(($(awk '/^MemAvailable/ {print $2}' /proc/meminfo) - 200000))
mount -t tmpfs -o size=100% ballast /mnt
head -c ${ballast}K /dev/zero >/mnt/ballast`

// bomb makes processes that each take memory and make more of their kind, for so many
// seconds.
const bomb = `#!/bin/bash
while [ $SECONDS -lt $1 ]; do
	(
		echo 0 >/proc/$BASHPID/oom_score_adj
		exec perl -e '$n = 8 << 20; for (;;) { fork; $x = "x" x $n; select undef, undef, undef, 0.1 }'
	) || true
done
`

// bombed has the kernel end whoever asks for memory when there is none, which raid-assembler
// may be, but not who serves arrays.
func (a *adversity) bombed() {
	const seconds = 30

	a.MustWriteFile("/run/bomb", bomb, 0o755)
	// Neither the agent of the guest nor what it starts from now on.
	a.MustShell("sysctl -q vm.oom_kill_allocating_task=1\necho -1000 >/proc/$(pgrep qemu-ga)/oom_score_adj" + fillMemory)
	a.underLoad(seconds+10, func() {
		job := a.MustGo(fmt.Sprintf("systemd-run --quiet --scope --unit=bomb --slice=user.slice -p OOMPolicy=continue "+
			"-p TasksMax=300 timeout -s KILL %d /run/bomb %[1]d || true", seconds))

		time.Sleep(seconds * time.Second)
		a.MustShell("systemctl kill -s KILL bomb.scope || true")
		job.MustWait(patience)
	})

	a.MustShell("umount /mnt\nsysctl -q vm.oom_kill_allocating_task=0\necho 0 >/proc/$(pgrep qemu-ga)/oom_score_adj")

	killed := a.MustShell(`grep oom_kill /proc/vmstat
journalctl -b -k -o cat --no-pager | grep -o 'Killed process.*([^)]*)' | sed 's/.*(/killed (/' | sort | uniq -c || true`)
	a.t.Log(killed)

	if !strings.Contains(killed, "killed (") || strings.Contains(killed, "(raid-engine") {
		a.t.Errorf("want somebody to be killed, and no engine or guardian: %s", killed)
	}
}

// flooded writes several times the memory that is left to a file system, and pulls a
// member meanwhile.
func (a *adversity) flooded() {
	// Each file tells which it is.
	const file = "{ printf '%8d' $i; cat /dev/shm/noise; }"

	a.MustShell(`mkfs.ext4 -q -F /dev/raid/large
mkdir -p /srv/large
mount /dev/raid/large /srv/large
head -c 32M /dev/urandom >/dev/shm/noise
` + fillMemory)

	began := time.Now()
	writer := a.MustGo("for i in $(seq 20); do " + file + ` | dd of=/srv/large/$i bs=1M iflag=fullblock status=none; done
sync /srv/large/*`)
	watched := a.MustGo("exercise progress -for 40s /dev/raid/large")

	time.Sleep(5 * time.Second)
	a.large[1].MustUnplug()
	a.await("large", patience, "degraded", degradedBy(1))
	a.completed(watched.MustWait(patience))
	writer.MustWait(patience)
	a.t.Logf("640 MiB written after %v: %s", time.Since(began).Round(time.Second), a.MustShell("cat /proc/meminfo /proc/pressure/io; df -m /srv/large"))

	a.large[1].MustReplug()
	a.await("large", patience, "whole again", whole)
	a.MustGo("umount /mnt /srv/large\nfsck.ext4 -f -n /dev/raid/large\nmount /dev/raid/large /srv/large\n" +
		"for i in $(seq 20); do " + file + " | cmp - /srv/large/$i; done\numount /srv/large\nrm /dev/shm/noise").MustWait(patience)
}

// crumble takes all memory that there is but 2 MiB and the kernel's reserve, locks it, and lets go of three
// pages of each four. What is locked stays where it is, so that none of them can be put together.
const crumble = `sysctl -q vm.compact_unevictable_allowed=0 vm.min_free_kbytes=4096
echo 3 >/proc/sys/vm/drop_caches
perl -e '
$| = 1;
my $length = (shift) << 10;
my ($mmap, $madvise, $mlock, $nohuge, $dontneed) = (9, 28, 149, 15, 24);
my $at = syscall($mmap, 0, $length, 3, 0x22, -1, 0);
syscall($madvise, $at, $length, $nohuge) == 0 && syscall($mlock, $at, $length) == 0 or die $!;
for (my $page = 0; $page + 12288 <= $length; $page += 16384) { syscall($madvise, $at + $page, 12288, $dontneed) == 0 or die $! }
print "crumbs\n";
sleep 600' $(awk '/^MemAvailable/ {print $2 - 2048}' /proc/meminfo) >/run/crumbs`

// crumbled has the kernel have memory, but hardly any eight pages that are neighbours, and
// kills the engine: the next one needs none, nor do arrays that fail members and take them in.
func (a *adversity) crumbled() {
	reserve := strings.TrimSpace(a.MustShell("sysctl -n vm.min_free_kbytes"))
	hog := a.MustGo(crumble)
	a.MustWaitFor(patience, "grep -q crumbs /run/crumbs")
	a.MustShell("sysctl -q vm.min_free_kbytes=" + reserve)

	free := a.MustShell("cat /proc/buddyinfo\n" +
		`awk '{ for (i = 8; i <= NF; i++) n += $i * 2 ^ (i - 5) } END { print "KiB in eight neighbours or more:", n * 4 }' /proc/buddyinfo`)
	a.t.Log(free)

	if large := numbers(a.t, free[strings.LastIndexByte(free, ':')+1:])[0]; large > 24<<10 {
		a.t.Errorf("%d KiB are free in pieces of eight pages or more: this test proves nothing", large)
	}

	a.underLoad(30, func() {
		a.MustShell("pkill -KILL " + theEngine)
		a.awaitAll("taken over", served)
		a.each("set -- $D\nraid-assembler fail $A $2 >/dev/null\nraid-assembler remove $A $2 >/dev/null\nraid-assembler add $A $2 >/dev/null")
		a.awaitAll("whole meanwhile", whole)
	})

	a.t.Log(a.MustShell("cat /proc/buddyinfo"))
	hog.Kill()
	a.MustShell("sysctl -q vm.compact_unevictable_allowed=1")
}
