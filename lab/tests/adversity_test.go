package tests

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
	"raid-assembler/pkg/api"
)

// adversity is a fleet that bears one hardship after the other. Beside the arrays whose
// content is known, it has a large one for file systems and swap.
type adversity struct {
	*fleet
	spares map[string]*lab.GuestDisk
	large  []*lab.GuestDisk
}

// hardship is something that arrays have to bear, after which they are whole.
type hardship struct {
	name string
	ends bool // processes of ours
	bear func(a *adversity)
}

var hardships = []hardship{
	{"many administrators at once", false, (*adversity).administrators},
	{"arrays in use that are to be stopped", false, (*adversity).stops},
	{"a journal that listens to nobody", false, (*adversity).silence},
	{"a state directory of no use", true, (*adversity).stateless},
	{"limits on the engine's memory", false, (*adversity).limits},
	{"a broken program", true, (*adversity).broken},
	{"a fork bomb", true, (*adversity).bombed},
	{"more written than memory holds", false, (*adversity).flooded},
	{"memory in crumbs", true, (*adversity).crumbled},
}

// TestAdversity has arrays be written to, and what is read be compared, while the host
// and those who look after it treat them badly: after each hardship all are whole, every
// byte is right, the same processes run, and the kernel has told of no error and of
// nobody who is stuck.
func TestAdversity(t *testing.T) {
	takesLong(t)

	f := newFleet(t, soaked, false)
	a := &adversity{fleet: f, spares: f.plugSpares(false)}

	a.create()
	a.engineStarts()
	a.large = a.MustDisks(4, 1<<30, "large")
	a.MustShell("sysctl -q kernel.hung_task_timeout_secs=60 vm.oom_dump_tasks=0\n" +
		"raid-assembler create large --level 5 --devices 4 --assume-clean " + devices(a.large) + " >/dev/null")
	a.await("large", patience, "made", whole)

	for _, h := range hardships {
		t.Run(h.name, func(t *testing.T) {
			a.t = t
			a.bears(h)
		})
	}

	a.t = t
	a.MustShell("raid-assembler stop large >/dev/null")
	a.engineStops()
	a.mdHas(anyKind)
}

// bears has a hardship happen, and judges what there is afterwards.
func (a *adversity) bears(h hardship) {
	a.t.Helper()

	began, before := time.Now(), a.processes()

	h.bear(a)
	a.t.Logf("borne after %v", time.Since(began).Round(time.Second))

	a.awaitAll("whole afterwards", whole)
	a.await("large", patience, "whole afterwards", whole)
	a.note()
	a.each("exercise check -model $M /dev/raid/$A")
	a.kernelIsContent()

	if after := a.processes(); after != before && !h.ends {
		a.t.Errorf("the guardian, the engine and the assembler are %q, and were %q", after, before)
	}
}

// processes are those of ours.
func (a *adversity) processes() string {
	a.t.Helper()

	return a.MustShell("systemctl show -P MainPID raid-engine raid-assembler\n" + serving)
}

// underLoad has all arrays be written to for so many seconds while something happens to
// them, and fails if one completes nothing for long.
func (a *adversity) underLoad(seconds int, happens func()) {
	a.t.Helper()

	loads := a.loads(anyKind, seconds, 150)

	var watched []*lab.Job
	for _, k := range a.kinds {
		watched = append(watched, a.MustGo(fmt.Sprintf("exercise progress -for %ds /dev/raid/%s", seconds, k.name)))
	}

	happens()
	endAll(loads)

	for _, w := range watched {
		a.completed(w.MustWait(patience))
	}
}

// throttle makes all disks of arrays whose content is known slow, or fast again.
func (a *adversity) throttle(speed lab.Speed) {
	for _, k := range a.kinds {
		for _, d := range a.disks[k.name] {
			d.MustThrottle(speed)
		}
	}
}

// administrator does what comes to its mind to all arrays for a while, and notes what
// each command came to, and what it said that did not end well.
const administrator = `#!/bin/bash
RANDOM=$1
arrays=(one five six ten)
verbs=('fail @ %' 'remove @ %' 'add --force @ %' 'fail @ %' 'remove @ %' 'add --force @ %' 'add @ %' 'erase --force %'
	'replace --force @ %' 'check @' 'repair @' 'idle @' 'limit --max 50M @' 'limit --min 1M @' 'stop --dry-run @' 'stop @'
	'grow --dry-run --size max @' 'grow --size max @' 'readonly --dry-run @' 'assemble @' 'explain @' 'examine %'
	'status' 'status --json' 'plan' 'doctor')
while [ $SECONDS -lt $2 ]; do
	. /run/${arrays[RANDOM % 4]}.is
	devices=($D)
	verb=${verbs[RANDOM % ${#verbs[@]}]}
	args=${verb//@/$A}
	code=0
	since=${EPOCHREALTIME/./}
	timeout -s KILL 90 raid-assembler ${args//%/${devices[RANDOM % ${#devices[@]}]}} >/run/said.$1 2>&1 || code=$?
	echo $((${EPOCHREALTIME/./} - since)) $code $verb >>/run/took.$1
	! grep -qE '^(panic:|fatal error:|goroutine )' /run/said.$1 || code=crash
	echo "$code $verb" >>/run/did.$1
	case $code in [0-3]) ;; *) sed "s/^/$code $args: /" /run/said.$1 >>/run/complaints ;; esac
done
`

// administrators has 32 shells give random orders to arrays that are in use.
func (a *adversity) administrators() {
	const shells, seconds = 32, 45

	// Slow disks leave them something of the processors.
	a.throttle(lab.Speed{IOPS: 100})

	// For as long as the last order may take.
	open := a.MustGo("exec sleep 600 3</dev/raid/one 4</dev/raid/five 5</dev/raid/six 6</dev/raid/ten")
	loads := a.loads(anyKind, seconds, 160)

	a.MustWriteFile("/run/administrator", administrator, 0o755)
	a.MustGo(fmt.Sprintf("seq %[1]d | xargs -P %[1]d -I @ /run/administrator @ %[2]d", shells, seconds)).MustWait(patience)
	endAll(loads)
	open.Kill()
	a.throttle(lab.Speed{})

	a.t.Log("microseconds, exit code and order: ", a.MustShell("cat /run/took.* | sort -n | tail -n 3"))

	did := a.MustShell("cat /run/did.* | sort | uniq -c; cat /run/complaints 2>/dev/null || true")
	a.t.Log(did)

	for line := range strings.Lines(did) {
		n, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if _, err := strconv.Atoi(n); err != nil {
			continue // a complaint
		}

		code, verb, _ := strings.Cut(rest, " ")
		if !slices.Contains([]string{"0", "1", "2", "3"}, code) {
			a.t.Errorf("%s times %s ended with %s", n, verb, code)
		}

		if code == "0" && (verb == "stop @" || verb == "grow --size max @") {
			a.t.Errorf("%s times an array in use was stopped by %s", n, verb)
		}
	}

	// Whatever they left out is taken in again.
	a.each(`raid-assembler idle $A >/dev/null || true
raid-assembler limit --min default --max default $A >/dev/null
for d in $D; do
	raid-assembler remove $A $d >/dev/null 2>&1 || true
	raid-assembler add --force $A $d >/dev/null 2>&1 || [ $? = 3 ] # it is there
done`)
}

// stops tries to stop arrays that are in use, in all ways that there are, and one that
// recovers, which goes on when it is started again.
func (a *adversity) stops() {
	a.refusesToStop("large", "/srv/large", "mkfs.ext4 -q -F /dev/raid/large\nmkdir -p /srv/large\nmount /dev/raid/large /srv/large")
	a.refusesToStop("large", "swap", "umount /srv/large\nmkswap -q /dev/raid/large\nswapon /dev/raid/large")
	a.MustShell("swapoff /dev/raid/large")

	reader := a.MustGo("exec sleep 600 3</dev/raid/five")
	a.refusesToStop("five", "sleep (process", "come() { until \"$@\"; do sleep 0.1; done; }\ncome pgrep -x sleep >/dev/null")
	reader.Kill()

	before := len(a.events("RecoveryStarted"))

	a.MustShell(`set -- $(. /run/five.is; echo $D)
raid-assembler limit five --max 1M
for verb in fail remove 'add --force'; do raid-assembler $verb five $2 >/dev/null; done`)
	a.await("five", patience, "well into its recovery", func(a api.Array) bool {
		return a.Sync != nil && a.Sync.DoneBytes > a.Sync.TotalBytes/4
	})
	a.MustShell("raid-assembler stop five >/dev/null\n! [ -e /dev/raid/five ]\nraid-assembler assemble five >/dev/null")

	if begun := a.told("RecoveryStarted", before+2); len(begun) != before+2 || strings.Contains(begun[before+1].Message, " at 0 MiB") {
		a.t.Errorf("the recovery does not go on where it was: %+v", begun[before:])
	}
}

// refusesToStop has an array be used, and it not be stopped, with the reason.
func (a *adversity) refusesToStop(array, reason, use string) {
	a.t.Helper()

	out := a.MustShell(use + "\ncode=0\nraid-assembler stop " + array + " 2>&1 || code=$?\n[ $code = 3 ]\n[ -b /dev/raid/" + array + " ]")
	if !strings.Contains(out, reason) {
		a.t.Errorf("stop says %q, want the reason %q in it", out, reason)
	}

	a.t.Log(strings.TrimSpace(out))
}

// deafen stops journald, fills the socket that we write to, and pulls a member of an
// array and pushes it in again. All of that without the guest's agent, which logs too.
const deafen = `journald=$(systemctl show -P MainPID systemd-journald)
trap 'kill -CONT $journald' EXIT
kill -STOP $journald
perl -MSocket -e '
my ($n, @all) = (0);
for (1 .. 16) {
	socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die $!;
	push @all, $s;
	connect($s, sockaddr_un("/run/systemd/journal/socket")) or die $!;
	$n++ while send($s, "MESSAGE=of no interest\n", MSG_DONTWAIT);
}
print "$n messages until: $!\n"'
set -- $(. /run/five.is; echo $D)
disk=$(readlink -f /sys/block/$(basename $2)/device)
address=$(basename $disk)
degraded() { { raid-assembler status || true; } | grep -q '^five .*degraded'; }
since=$SECONDS
echo 1 >$disk/delete
until degraded; do sleep 0.1; done
echo "degraded after $((SECONDS - since)) s"
sleep 5
since=$SECONDS
echo "${address#*:}" | sed 's/:/ /g' >/sys/class/scsi_host/host${address%%:*}/scan
while degraded; do sleep 0.1; done
echo "whole after $((SECONDS - since)) s"
left=$((30 - SECONDS))
[ $left -lt 0 ] || sleep $left
`

// silence has the journal take nothing for half a minute, while a member is pulled and
// comes back.
func (a *adversity) silence() {
	const seconds = 30

	a.underLoad(seconds, func() {
		job := a.MustGo(deafen)

		time.Sleep(seconds * time.Second)
		a.t.Log(job.MustWait(patience))
	})

	if got := a.told("MemberFailed", 1); len(got) == 0 {
		a.t.Error("the journal does not know of the member that was pulled")
	}
}

// useless are ways in which the state directory can be of no use.
var useless = []struct{ name, array, script string }{
	{"full", "one", `mount -t tmpfs -o size=16k state /var/lib/raid-assembler
head -c 64k /dev/zero >/var/lib/raid-assembler/full || true`},
	{"read-only", "six", "mount -t tmpfs -o ro state /var/lib/raid-assembler"},
	{"garbage", "ten", `mount -t tmpfs state /var/lib/raid-assembler
head -c 100k /dev/urandom >/var/lib/raid-assembler/roster.json`},
}

// stateless has the assembler begin without what it had written down, and unable to write
// anything down: arrays are started, and spares used.
func (a *adversity) stateless() {
	for _, u := range useless {
		a.MustShell("systemctl stop raid-assembler.service\n" + u.script + "\nsystemctl start raid-assembler.service")
		a.MustShell(fmt.Sprintf("raid-assembler stop %[1]s >/dev/null\nraid-assembler assemble %[1]s >/dev/null", u.array))
		a.awaitAll("started with a state directory that is "+u.name, whole)

		old, spare := a.disks[u.array][1], a.spares[u.array]
		a.MustShell(fmt.Sprintf("raid-assembler add --force %s %s >/dev/null", u.array, spare.MustDev()))
		a.underLoad(10, func() {
			old.MustUnplug()
			a.await(u.array, patience, "whole by its spare", func(a api.Array) bool {
				return whole(a) && a.Members[1].Serial == spare.Serial()
			})
		})

		old.MustReplug()
		a.MustShell(fmt.Sprintf("raid-assembler remove %[1]s %[2]s >/dev/null 2>&1 || true\nraid-assembler erase --force %[2]s >/dev/null",
			u.array, old.MustDev()))
		a.disks[u.array][1], a.spares[u.array] = spare, old

		a.t.Log(u.name, a.MustShell("ls -l /var/lib/raid-assembler; umount /var/lib/raid-assembler"))
	}

	if out := a.MustJournal("-b", "-o", "cat", "-u", "raid-assembler.service", "--grep", "left out"); strings.Count(out, "left out") < len(useless) {
		a.t.Errorf("the assembler said %q, want a word of each", out)
	}

	a.MustShell("systemctl restart raid-assembler.service")
	a.MustWaitFor(patience, "grep -q one.spare /var/lib/raid-assembler/roster.json")
}
