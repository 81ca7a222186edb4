// Package tests holds the tests that need a kernel: our two programs, built and
// installed as a user would, in a Debian guest, on arrays that the real mdadm
// and md made, judged by them afterwards.
package tests

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
	"raid-assembler/pkg/api"
)

// stage is what `make install` made of this tree; tools is what the tests
// themselves run in the guest.
var stage, tools string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "raid-assembler-tests-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)

		return 1
	}

	defer func() { _ = os.RemoveAll(dir) }()

	stage, tools = filepath.Join(dir, "stage"), filepath.Join(dir, "tools")

	out, err := exec.Command("make", "-s", "-C", "../..", "install", "DESTDIR="+stage).CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "make install: %v\n%s", err, out)

		return 1
	}

	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w",
		"-o", filepath.Join(tools, "usr/local/bin/exercise"), "../cmd/exercise")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")

	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)

		return 1
	}

	if _, err := lab.Image(context.Background(), os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)

		return 1
	}

	return m.Run()
}

// box is a guest with our programs.
type box struct {
	*lab.Guest
	t *testing.T
}

// takesLong leaves a test to "make test-long": "make test" has no time for it.
func takesLong(t *testing.T) {
	t.Helper()

	if testing.Short() {
		t.Skip("takes minutes: make test-long runs it")
	}
}

// start restores a guest; nothing of ours is in it until install.
func start(t *testing.T) *box {
	t.Helper()

	return &box{Guest: lab.Start(t), t: t}
}

// install puts our programs in and starts them as a boot would.
func (b *box) install() {
	b.t.Helper()
	b.MustInstall(stage)
	b.MustShell("sync; systemctl start raid-engine.socket raid-assembler.service")
}

// array is an array that mdadm makes in the guest.
type array struct {
	name    string
	level   int
	members int
	size    int64 // of each member
	args    string
}

// make has mdadm make a on disks, fill it with noise that is kept in
// /root/NAME.data, and stop it.
func (b *box) make(a array, disks []*lab.GuestDisk) {
	b.t.Helper()
	b.MustShell(fmt.Sprintf(`
mdadm --create /dev/md/%[1]s --run --quiet --assume-clean --homehost=%%none -l%[2]d -n%[3]d %[4]s %[5]s
udevadm settle
size=$(blockdev --getsize64 /dev/md/%[1]s)
head -c $size /dev/urandom > /root/%[1]s.data
dd if=/root/%[1]s.data of=/dev/md/%[1]s bs=1M oflag=direct status=none
mdadm --detail /dev/md/%[1]s | sed -n 's/.*UUID : //p' > /root/%[1]s.uuid
mdadm --stop --quiet /dev/md/%[1]s
udevadm settle`, a.name, a.level, a.members, a.args, devices(disks)))
}

// devices returns the nodes of disks.
func devices(disks []*lab.GuestDisk) string {
	nodes := make([]string, 0, len(disks))
	for _, d := range disks {
		nodes = append(nodes, d.MustDev())
	}

	return strings.Join(nodes, " ")
}

// mdRuns has md run the array on disks and checks what it thinks of it: the
// content is that of /root/NAME.data, and nothing is inconsistent.
func (b *box) mdRuns(a array, disks []*lab.GuestDisk, degraded int) {
	b.t.Helper()
	b.MustShell("systemctl stop raid-assembler.service")
	out := b.MustShell(fmt.Sprintf(`
mdadm --assemble /dev/md/%[1]s --run %[2]s 2>&1
cmp /root/%[1]s.data /dev/md/%[1]s
md=$(basename $(readlink -f /dev/md/%[1]s))
if [ %[4]d != 0 ]; then cat /sys/block/$md/md/degraded; fi
if [ -e /sys/block/$md/md/sync_action ] && [ %[3]d = 0 ]; then
	echo check > /sys/block/$md/md/sync_action
	until [ $(cat /sys/block/$md/md/sync_action) = idle ]; do sleep 0.2; done
	echo mismatches=$(cat /sys/block/$md/md/mismatch_cnt)
fi
mdadm --stop --quiet /dev/md/%[1]s`, a.name, devices(disks), degraded, a.level))

	if a.level != 0 && degraded == 0 && !strings.Contains(out, "mismatches=0\n") {
		b.t.Errorf("md's check of %s: %s", a.name, out)
	}

	if a.level != 0 && !strings.Contains(out, "\n"+strconv.Itoa(degraded)+"\n") {
		b.t.Errorf("md runs %s with another number of members missing than %d: %s", a.name, degraded, out)
	}
}

// status returns what raid-assembler status says. While an engine takes arrays over it may
// be unable to, on a slow machine.
func (b *box) status() api.Status {
	b.t.Helper()

	res, err := b.Shell(`for i in 1 2 3 4 5; do
	raid-assembler status --json && exit
	code=$?
	[ $code = 4 ] || break
done
[ $code -le 2 ]`)
	if err != nil || res.ExitCode != 0 {
		b.t.Fatalf("raid-assembler status: %v %+v", err, res)
	}

	var st api.Status
	if err := json.Unmarshal([]byte(res.Stdout), &st); err != nil {
		b.t.Fatalf("raid-assembler status --json: %v in %s", err, res.Stdout)
	}

	return st
}

// array returns one array of the status.
func (b *box) array(name string) (api.Array, bool) {
	b.t.Helper()

	for _, a := range b.status().Arrays {
		if a.Name == name {
			return a, true
		}
	}

	return api.Array{}, false
}

// patience is how long to wait for what must come. A slow machine needs some of
// it; nothing that works is waited for so long.
const patience = 5 * time.Minute

// await waits until ok says so of the array, and returns it.
func (b *box) await(name string, limit time.Duration, what string, ok func(api.Array) bool) api.Array {
	b.t.Helper()

	var last api.Array

	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if a, found := b.array(name); found {
			if last = a; ok(a) {
				// Udev makes the link a moment after the device.
				b.MustWaitFor(patience, "test -b "+a.Node)

				return a
			}
		}
	}

	b.t.Fatalf("%s within %v: array %s is %+v; status %+v", what, limit, name, last, b.status())

	return last
}

// whole reports whether a has all its members, and nothing left to sync.
func whole(a api.Array) bool { return a.Degraded == 0 && a.Sync == nil }

// entry is an entry of the journal.
type entry struct {
	Event   string `json:"RAID_EVENT"`
	Array   string `json:"RAID_ARRAY"`
	Serial  string `json:"RAID_SERIAL"`
	Reason  string `json:"RAID_REASON"`
	Message string `json:"MESSAGE"`
	At      string `json:"__MONOTONIC_TIMESTAMP"`
}

// at is when it was written, in the guest's time since its boot.
func (e entry) at() time.Duration {
	us, err := strconv.ParseInt(e.At, 10, 64)
	if err != nil {
		return 0
	}

	return time.Duration(us) * time.Microsecond
}

// events returns the journal's entries of one kind.
func (b *box) events(kind string) []entry {
	b.t.Helper()

	return parseEntries(b.t, b.MustJournal("-b", "-o", "json", "RAID_EVENT="+kind))
}

// told is events once there are at least n: the journal may be a moment behind
// what it tells of.
func (b *box) told(kind string, n int) []entry {
	b.t.Helper()

	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		if all := b.events(kind); len(all) >= n || time.Now().After(deadline) {
			return all
		}
	}
}

func parseEntries(t *testing.T, text string) []entry {
	t.Helper()

	var all []entry

	for line := range strings.Lines(text) {
		var e entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("journal: %v in %s", err, line)
		}

		all = append(all, e)
	}

	return all
}

// pluggedAt is when the kernel said of the last disk that it is there.
func (b *box) pluggedAt() time.Duration {
	b.t.Helper()

	all := parseEntries(b.t, b.MustShell(`journalctl -b -k -o json --grep 'Attached SCSI disk'`))
	if len(all) == 0 {
		b.t.Fatal("no disk was ever plugged in")
	}

	return all[len(all)-1].at()
}
