package tests

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/policy"
)

// TestConfiguration has a drop-in set the deadline of an array and let spares
// move: the array starts without a member when it says, and is given the spare of
// another array, with which md finds it whole. A reload of what is wrong fails.
func TestConfiguration(t *testing.T) {
	takesLong(t)

	one := array{name: "one", level: 1, members: 2, size: 24 << 20, args: "-x1"}
	web := array{name: "web", level: 1, members: 2, size: 24 << 20}
	b := start(t)
	disks := b.MustDisks(5, one.size, "m")
	spare, late := disks[2], disks[4]

	b.make(one, disks[:3])
	b.make(web, disks[3:])
	b.pull(late)
	b.MustShell("mkdir -p /etc/raid-assembler.conf.d")
	b.MustWriteFile("/etc/raid-assembler.conf.d/50-test.conf",
		"[Array web]\nDeadline=4\n[Domain shelf]\nSerial=m[0-9]\nPath=*scsi*\n", 0o644)
	b.install()

	b.await("web", patience, "given the spare of the other array", func(a api.Array) bool {
		return whole(a) && a.Members[1].Serial == spare.Serial()
	})

	started := b.told("ArrayStartedDegraded", 1)[0]
	waited := started.at() - b.told("Waiting", 1)[0].at()
	t.Logf("web was started %v after it began to wait", waited.Round(time.Millisecond))

	if started.Array != "web" || waited < 3900*time.Millisecond || waited >= policy.DefaultDeadline {
		t.Errorf("%s was started degraded after it waited for %v, want web, after 4 s", started.Array, waited)
	}

	if a, _ := b.array("one"); len(a.Members) != 2 || !whole(a) {
		t.Errorf("the array that lent its spare: %+v", a)
	}

	b.MustReplugAll(late)
	b.MustWaitFor(patience, `raid-assembler explain `+late.Serial()+` | grep -q 'its slot is taken'`)
	b.reloads()
	b.mountsWait()
	b.onlookers()
	b.MustShell("(raid-assembler doctor || true) | grep -E '^ok    owners: raid-engine runs .*[(]one[)].*[(]web[)]'; " +
		"cmp /root/one.data /dev/raid/one; cmp /root/web.data /dev/raid/web; " +
		"raid-assembler stop one; raid-assembler stop web")
	b.mdRuns(web, append(disks[3:4], spare), 0)
	b.owners(devices(append(disks[3:4], spare)))
}

// owners has md run an array on the devices given, of which doctor tells.
func (b *box) owners(devices string) {
	b.t.Helper()

	out := b.MustShell(fmt.Sprintf(`mdadm --assemble --quiet /dev/md/web %s
udevadm settle
raid-assembler doctor || true
printf '[Array web]\nAssemble=leave-to-mdadm\n' >/run/raid-assembler.conf
raid-assembler doctor || true
rm /run/raid-assembler.conf
mdadm --stop --quiet /dev/md/web`, devices))

	for _, line := range []string{
		`(?m)^warn  owners: md runs md\d+ \(web\)$`,
		`(?m)^ok    owners: md runs md\d+ \(web\): Assemble=leave-to-mdadm in /run/raid-assembler.conf:2$`,
	} {
		if !regexp.MustCompile(line).MatchString(out) {
			b.t.Errorf("doctor says:\n%s\nwant %s", out, line)
		}
	}
}

// reloads checks what a reload says and does.
func (b *box) reloads() {
	b.t.Helper()

	out := b.MustShell(`echo '[Aray web]' >/run/raid-assembler.conf
! systemctl reload raid-assembler.service
raid-assembler config check 2>&1 || [ $? = 1 ]
journalctl -b -u raid-assembler.service
rm /run/raid-assembler.conf
systemctl reload raid-assembler.service
raid-assembler config show`)

	for _, piece := range []string{
		"/run/raid-assembler.conf:1: unknown section \"[Aray web]\"", // of check
		"]: /run/raid-assembler.conf:1: unknown section",             // of the unit, in the journal
		"# /etc/raid-assembler.conf.d/50-test.conf:2\nDeadline=4\n",
	} {
		if !strings.Contains(out, piece) {
			b.t.Errorf("a reload says:\n%s\nwant ... %s ...", out, piece)
		}
	}

	if loaded := b.told("ConfigLoaded", 1); len(loaded) != 1 {
		b.t.Errorf("%d reloads took effect, want 1", len(loaded))
	}
}

// mountsWait has an array wait for longer than systemd does, which then waits as well for
// what may be on it.
func (b *box) mountsWait() {
	b.t.Helper()

	out := b.MustShell(`cp /etc/fstab /root/fstab
echo 'UUID=12-34 /srv/web ext4 defaults' >>/etc/fstab
shown() { systemctl daemon-reload; systemctl show -P JobRunningTimeoutUSec 'dev-disk-by\x2duuid-12\x2d34.device'; }
shown
printf '[Array other]\nDeadline=3min\n' >/run/raid-assembler.conf
shown
rm /run/raid-assembler.conf
mv /root/fstab /etc/fstab
systemctl daemon-reload`)

	if out != "1min 30s\n4min\n" {
		b.t.Errorf("systemd waits for a device for %q, want 1min 30s, and 4min with a deadline of 3min", out)
	}
}

// onlookers: who has the daemon's group may look, and nothing else.
func (b *box) onlookers() {
	b.t.Helper()
	b.MustShell(`groupadd --system storage
mkdir -p /run/systemd/system/raid-assembler.service.d
printf '[Service]\nGroup=storage\n' >/run/systemd/system/raid-assembler.service.d/group.conf
systemctl daemon-reload
systemctl restart raid-assembler.service`)
	b.await("web", patience, "seen again", whole)
	b.MustShell(`as() { setpriv --reuid=nobody --regid=$1 --clear-groups -- raid-assembler "${@:2}"; }
as storage status --json | grep -q '"web"'
as storage explain web | grep -q web
! as storage stop web
! as nogroup status
raid-assembler status >/dev/null`)
	b.await("web", patience, "still there", whole)
}
