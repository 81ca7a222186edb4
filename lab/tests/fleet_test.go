package tests

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
	"raid-assembler/pkg/api"
)

// fleet is a guest with several arrays that are treated alike.
type fleet struct {
	*box
	kinds  []kind
	disks  map[string][]*lab.GuestDisk
	mixes  map[string]string // workloads of power cuts, by name; "random" if not there
	models string            // directory
	safe   *lab.GuestDisk    // holds that directory through power cuts; nil if it need not
}

// newFleet plugs disks in for those kinds that are served. Those that are logged
// lose with the power what they had not flushed.
func newFleet(t *testing.T, kinds []kind, logged bool) *fleet {
	t.Helper()

	f := &fleet{box: start(t), disks: make(map[string][]*lab.GuestDisk), models: "/dev/shm"}
	f.MustInstall(tools)

	var all []lab.Disk

	for _, k := range kinds {
		if why := k.unserved(t); why != "" {
			t.Logf("%s: %s", k.name, why)

			continue
		}

		f.kinds = append(f.kinds, k)

		for i, size := range k.members {
			all = append(all, lab.Disk{Serial: fmt.Sprintf("%s.%d", k.name, i), Size: int64(size) << 20, Log: logged})
		}
	}

	if len(f.kinds) == 0 {
		t.Fatal("no array of this family is served")
	}

	began := time.Now()
	plugged := f.MustPlugAll(all...)
	t.Logf("%d disks plugged in after %v", len(all), time.Since(began).Round(time.Second))

	for _, k := range f.kinds {
		f.disks[k.name], plugged = plugged[:len(k.members)], plugged[len(k.members):]
	}

	return f
}

// plugSpares plugs in a disk more for each array, as large as its members, and returns them by
// the array's name. Those that are logged lose with the power what they had not flushed.
func (f *fleet) plugSpares(logged bool) map[string]*lab.GuestDisk {
	f.t.Helper()

	spares := make(map[string]*lab.GuestDisk)
	for _, k := range f.kinds {
		spares[k.name] = f.MustPlug(lab.Disk{Serial: k.name + ".spare", Size: int64(k.members[0]) << 20, Log: logged})
	}

	return spares
}

// each runs a script with a variable A for the name of each array, M for its
// model, D for its devices and L for how many it may lose. mdadm takes disks of IMSM
// in it, though the machine has none of Intel's firmware.
func (f *fleet) each(script string) string {
	f.t.Helper()

	return f.eachOf(func(kind) bool { return true }, script)
}

// eachOf is each for those arrays that which wants. Two are treated at a time,
// as there are two processors.
func (f *fleet) eachOf(which func(kind) bool, script string) string {
	f.t.Helper()

	return f.at(2, which, script)
}

// at is eachOf for so many at once, for those that wait more than they compute.
func (f *fleet) at(once int, which func(kind) bool, script string) string {
	f.t.Helper()

	began := time.Now()

	var todo strings.Builder

	for _, k := range f.kinds {
		if which(k) {
			fmt.Fprintf(&todo, "%s\n", k.name)
		}
	}

	if todo.Len() == 0 {
		return ""
	}

	f.MustWriteFile("/run/todo", todo.String(), 0o600)
	f.MustWriteFile("/run/script", "set -euo pipefail\nexport IMSM_NO_PLATFORM=1\n. /run/$1.is\n"+
		"come() { for i in $(seq 600); do eval \"$1\" && return; sleep 0.1; done; false; }\n"+
		"there() { come \"[ -b $1 ]\"; }\n"+
		"trap 'echo \"$A: $BASH_COMMAND\" >&2' ERR\n"+script+"\n", 0o600)

	out := f.MustGo(fmt.Sprintf("xargs -a /run/todo -P %d -I @ bash /run/script @", once)).MustWait(2 * patience)
	f.t.Logf("%v for: %s", time.Since(began).Round(100*time.Millisecond), strings.TrimSpace(script))

	return out
}

// note writes down what scripts want to know of each array. Device nodes change
// when disks are plugged in again.
func (f *fleet) note() {
	f.t.Helper()

	nodes := make(map[string]string)

	for line := range strings.Lines(f.MustShell("lsblk -dnpo SERIAL,NAME")) {
		if fields := strings.Fields(line); len(fields) == 2 {
			nodes[fields[0]] = fields[1]
		}
	}

	var script strings.Builder

	for _, k := range f.kinds {
		var devices []string
		for _, d := range f.disks[k.name] {
			devices = append(devices, nodes[d.Serial()])
		}

		args := fmt.Sprintf("-l%d -n%d", k.level, len(k.members))
		if k.layout != "" {
			args += " --layout=" + k.layout
		}

		if k.chunk != "" {
			args += " -c" + k.chunk
		}

		fmt.Fprintf(&script, "echo \"A=%[1]s M=%[2]s/%[1]s.model L=%[3]d D='%[4]s' C='%[5]s' W=%[6]s\" >/run/%[1]s.is\n",
			k.name, f.models, k.loses, strings.Join(devices, " "), args, f.mix(k))
	}

	f.MustShell(script.String())
}

// redundant are the arrays that survive the loss of a member.
func redundant(k kind) bool { return k.loses > 0 }

// createScript has mdadm make an array, and md fill and stop it. Two of mdadm may
// choose the same free device, or one that is just going.
const createScript = `case $A in
*-log*) C="$C --consistency-policy=ppl" O=2M ;;
*) O=1M ;;
esac
for try in 1 2 3; do
	flock -o /run/create mdadm --create /dev/md/$A --run --quiet --assume-clean --homehost=%none \
		--data-offset=$O $C $D && break
	[ $try != 3 ]
	sleep 1
done
there /dev/md/$A
exercise fill -model $M /dev/md/$A
mdadm --stop --quiet /dev/md/$A`

// create has mdadm make the arrays, and md fill and stop them.
func (f *fleet) create() {
	f.t.Helper()
	f.note()
	f.each(createScript)
	f.MustShell("udevadm settle")
}

// engineStarts installs our programs and waits until all arrays run.
func (f *fleet) engineStarts() {
	f.t.Helper()

	if res, err := f.Shell("test -e /usr/sbin/raid-engine"); err != nil || res.ExitCode != 0 {
		f.MustInstall(stage)
	}

	// While our rules were not there yet, mdadm's took members for md again that md
	// had just let go of, if udev came late to the news of that.
	f.MustShell("udevadm settle; mdadm --stop --scan --quiet; systemctl start raid-engine.socket raid-assembler.service")
	f.awaitAll("assembled", whole)
}

// awaitAll waits until ok says so of all arrays.
func (f *fleet) awaitAll(what string, ok func(api.Array) bool) {
	f.t.Helper()

	began := time.Now()

	for _, k := range f.kinds {
		f.await(k.name, patience, what, ok)
	}

	f.t.Logf("%v until all were %s", time.Since(began).Round(100*time.Millisecond), what)
}

func (f *fleet) engineStops() {
	f.t.Helper()
	f.each("raid-assembler stop $A >/dev/null")
	f.MustShell("systemctl stop raid-assembler.service")
}

// failAndReturn takes as many members out of each array as it survives, uses it,
// and has them return as new ones, one after the other.
func (f *fleet) failAndReturn() {
	f.t.Helper()

	f.eachOf(redundant, "set -- $D\nraid-assembler fail $A $2 >/dev/null")
	f.eachOf(redundant, "exercise run -model $M -mix unaligned -ops 150 -seed 12 /dev/raid/$A")
	f.eachOf(func(k kind) bool { return k.loses > 1 }, `set -- $D
raid-assembler fail $A $3 >/dev/null
exercise run -model $M -mix mixed -ops 150 -seed 13 /dev/raid/$A
exercise check -model $M /dev/raid/$A`)

	for _, k := range f.kinds {
		if a, _ := f.array(k.name); a.Degraded != k.loses {
			f.t.Errorf("%s lacks %d members, want %d: %+v", k.name, a.Degraded, k.loses, a)
		}
	}

	f.eachOf(redundant, `set -- $D
for d in $2 $( ((L < 2)) || echo $3); do
	raid-assembler remove $A $d >/dev/null
	raid-assembler add --force $A $d >/dev/null
done
exercise run -model $M -mix random -ops 150 -seed 15 /dev/raid/$A`)
	f.awaitAll("whole again", whole)
}

// mdChecks has md run all arrays, compares what they hold, and has it check
// their redundancy.
func (f *fleet) mdChecks() {
	f.t.Helper()

	f.mdHas(anyKind)
	f.each("mdadm --stop --quiet /dev/md/$A")
}

// mdHas has md run all arrays, compares what those hold that which wants, and has it
// check their redundancy.
func (f *fleet) mdHas(which func(kind) bool) {
	f.t.Helper()

	f.each("mdadm --assemble --quiet /dev/md/$A $D\nthere /dev/md/$A")
	f.eachOf(which, "exercise check -model $M /dev/md/$A")
	f.mdIsContent()
}

// kernelIsContent fails if the kernel has told of an error, or of who is stuck, but for the
// errors of disks, which have some when they are pulled.
func (f *fleet) kernelIsContent() {
	f.t.Helper()
	f.MustShell("! journalctl -b -k --no-pager | grep -iE 'I/O error|blocked for more than' | grep -vE 'dev sd[a-z]+,'")
}

// mdIsContent has md check the arrays that it runs, and fails if it finds
// anything.
func (f *fleet) mdIsContent() {
	f.t.Helper()

	out := f.eachOf(redundant, `md=/sys/block/$(basename $(readlink -f /dev/md/$A))/md
until [ $(cat $md/sync_action) = idle ]; do sleep 0.2; done
echo 1000000 >$md/sync_speed_min
echo check >$md/sync_action
until [ $(cat $md/sync_action) = idle ]; do sleep 0.2; done
echo $A degraded $(cat $md/degraded) mismatches $(cat $md/mismatch_cnt)`)

	for _, k := range f.kinds {
		want := k.name + " degraded 0 mismatches 0\n"
		if redundant(k) && !strings.Contains(out, want) {
			f.t.Errorf("md says %q, want %q among it", out, want)
		}
	}
}

// keepModels puts the models on a disk of their own, which loses nothing when the
// power is cut.
func (f *fleet) keepModels() {
	f.t.Helper()

	f.safe, f.models = f.MustPlug(lab.Disk{Serial: "models", Size: 160 << 20}), "/models"
	f.MustShell("mkfs.ext4 -q " + f.safe.MustDev() + "; mkdir -p /models; mount " + f.safe.MustDev() + " /models")
}

// loseThePower cuts the power, and brings back what the tests themselves need, and
// all disks but those that are lost.
func (f *fleet) loseThePower(seed uint64, lost ...*lab.GuestDisk) {
	f.t.Helper()
	// Our rules keep mdadm's from taking the disks as they appear.
	f.MustPowerCut(lab.PowerCut{
		Seed: seed, Lost: lost, Restore: true,
		Restored: func() error { return errors.Join(f.hasten(), f.Install(tools, stage)) },
	})
	f.MustShell("mkdir -p /models; mount " + f.safe.MustDev() + " /models")
	f.note()
}

// hasten makes disks as fast as they were that were slow when the power failed.
func (f *fleet) hasten() error {
	var errs []error

	for _, disks := range f.disks {
		for _, d := range disks {
			errs = append(errs, d.Throttle(lab.Speed{}))
		}
	}

	return errors.Join(errs...)
}

// exertUntilCut begins to write to all arrays, named as where says, and returns
// once each has flushed three times.
func (f *fleet) exertUntilCut(where string, seed uint64) {
	f.t.Helper()
	f.exertOf(anyKind, where, seed)
}

// exertOf is exertUntilCut for those arrays that which wants.
func (f *fleet) exertOf(which func(kind) bool, where string, seed uint64) {
	f.t.Helper()

	for _, k := range f.kinds {
		if !which(k) {
			continue
		}

		f.MustGo(fmt.Sprintf("exec exercise run -model /models/%[1]s.model -log /models/%[1]s.log -mix %s -seed %d "+
			"-depth 4 %s/%[1]s >/run/%[1]s.exert 2>&1", k.name, f.mix(k), seed, where))
	}

	f.eachOf(which, `for i in $(seq 600); do
	head -c 1536 /models/$A.log | tail -c 512 | grep -q . && exit
	sleep 0.1
done
cat /run/$A.exert
exit 1`)
}

// anyKind is for what is to be done with all arrays.
func anyKind(kind) bool { return true }

// loads writes to those arrays that which wants for so many seconds.
func (f *fleet) loads(which func(kind) bool, seconds, seed int) []*lab.Job {
	f.t.Helper()

	var jobs []*lab.Job

	for i, k := range f.kinds {
		if which(k) {
			jobs = append(jobs, f.MustGo(fmt.Sprintf("exercise run -model %[1]s/%[2]s.model -mix random -for %[3]ds "+
				"-seed %[4]d /dev/raid/%[2]s", f.models, k.name, seconds, seed+i)))
		}
	}

	return jobs
}

func endAll(jobs []*lab.Job) {
	for _, j := range jobs {
		j.MustWait(patience)
	}
}

// judge has each array's content compared with what may be there after a cut.
func (f *fleet) judge(where string, seed uint64) {
	f.t.Helper()
	f.judgeOf(anyKind, where, seed, 0)
}

// judgeOf is judge for those arrays that which wants. In them, all of a row of so
// many sectors may be lost that was being written.
func (f *fleet) judgeOf(which func(kind) bool, where string, seed uint64, row int) {
	f.t.Helper()
	f.t.Log(f.eachOf(which, fmt.Sprintf("exercise crashed -model $M -log /models/$A.log -mix $W -seed %d -row %d %s/$A",
		seed, row, where)))
}

// mix is the workload of an array that the power is cut of.
func (f *fleet) mix(k kind) string { return cmp.Or(f.mixes[k.name], "random") }
