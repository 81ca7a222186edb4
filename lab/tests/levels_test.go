package tests

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
	"raid-assembler/pkg/api"
	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
)

// kind is an array of the table: a level, a layout and what else matters.
type kind struct {
	name    string
	level   raid.Level
	layout  string // in mdadm's words; empty where the level has none
	members []int  // the size of each, in MiB
	chunk   string // in KiB; empty where the level has none
	loses   int    // members that it survives the loss of, at slots that are neighbours
}

// mib makes a list of sizes that are all the same.
func mib(size, n int) []int { return slices.Repeat([]int{size}, n) }

// families are all levels and layouts that md knows, as many to a guest as it
// runs at a time.
var families = map[string][]kind{
	"mirrors": {
		{"zero-original", raid.Level0, "original", []int{9, 13, 11}, "64", 0},
		{"zero-alternate", raid.Level0, "alternate", []int{13, 9, 17, 9}, "64", 0},
		{"zero-odd-chunk", raid.Level0, "", mib(9, 3), "12", 0},
		{"one-2", raid.Level1, "", mib(9, 2), "", 1},
		{"one-3", raid.Level1, "", mib(9, 3), "", 2},
		{"ten-n2-4", raid.Level10, "n2", mib(9, 4), "64", 1},
		{"ten-n2-5", raid.Level10, "n2", mib(9, 5), "64", 1},
		{"ten-n3-5", raid.Level10, "n3", mib(9, 5), "32", 2},
		{"ten-f2-3", raid.Level10, "f2", mib(9, 3), "64", 1},
		{"ten-f2-4", raid.Level10, "f2", mib(9, 4), "512", 1},
		{"ten-o2-3", raid.Level10, "o2", mib(9, 3), "64", 1},
		{"ten-o2-4", raid.Level10, "o2", mib(9, 4), "4", 1},
	},
	"parity": {
		{"four", raid.Level4, "", mib(9, 4), "64", 1},
		{"five-la", raid.Level5, "left-asymmetric", mib(9, 3), "64", 1},
		{"five-ra", raid.Level5, "right-asymmetric", mib(9, 4), "4", 1},
		{"five-ls", raid.Level5, "left-symmetric", mib(9, 4), "512", 1},
		{"five-rs", raid.Level5, "right-symmetric", mib(9, 5), "64", 1},
		{"five-first", raid.Level5, "parity-first", mib(9, 4), "64", 1},
		{"five-last", raid.Level5, "parity-last", mib(9, 4), "64", 1},
	},
	"six": {
		{"six-la", raid.Level6, "left-asymmetric", mib(9, 5), "64", 2},
		{"six-ra", raid.Level6, "right-asymmetric", mib(9, 5), "4", 2},
		{"six-ls", raid.Level6, "left-symmetric", mib(9, 6), "512", 2},
		{"six-rs", raid.Level6, "right-symmetric", mib(9, 4), "64", 2},
		{"six-first", raid.Level6, "parity-first", mib(9, 5), "64", 2},
		{"six-last", raid.Level6, "parity-last", mib(9, 5), "64", 2},
	},
	"six-others": {
		{"six-zr", raid.Level6, "ddf-zero-restart", mib(9, 5), "64", 2},
		{"six-Nr", raid.Level6, "ddf-N-restart", mib(9, 5), "64", 2},
		{"six-Nc", raid.Level6, "ddf-N-continue", mib(9, 5), "64", 2},
		{"six-la-6", raid.Level6, "left-asymmetric-6", mib(9, 5), "64", 2},
		{"six-ra-6", raid.Level6, "right-asymmetric-6", mib(9, 5), "64", 2},
		{"six-ls-6", raid.Level6, "left-symmetric-6", mib(9, 5), "64", 2},
		{"six-rs-6", raid.Level6, "right-symmetric-6", mib(9, 5), "64", 2},
		{"six-first-6", raid.Level6, "parity-first-6", mib(9, 5), "64", 2},
	},
}

// TestLevels has mdadm make arrays of all levels and layouts and md fill them.
// The engine runs them, whole, degraded and during recovery; md takes them back,
// finds every byte and nothing that its check would mend.
func TestLevels(t *testing.T) {
	for _, family := range []string{"mirrors", "parity", "six", "six-others"} {
		t.Run(family, func(t *testing.T) {
			f := newFleet(t, families[family])
			f.create()
			f.engineStarts()
			f.each("exercise check -model $M /dev/raid/$A")
			f.each("exercise run -model $M -mix mixed -ops 250 -seed 11 /dev/raid/$A")
			f.failAndReturn()
			f.each("exercise run -model $M -mix discard -ops 40 -seed 14 /dev/raid/$A")
			f.each("exercise check -model $M /dev/raid/$A")
			f.engineStops()
			f.mdChecks()
		})
	}
}

// fleet is a guest with several arrays that are treated alike.
type fleet struct {
	*box
	kinds  []kind
	disks  map[string][]*lab.GuestDisk
	models string // directory
}

// newFleet plugs disks in for those kinds that are served.
func newFleet(t *testing.T, kinds []kind) *fleet {
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
			all = append(all, lab.Disk{Serial: fmt.Sprintf("%s.%d", k.name, i), Size: int64(size) << 20})
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

// unserved says why the engine does not run such arrays, or is empty.
func (k kind) unserved(t *testing.T) string {
	t.Helper()

	g := raid.Geometry{Level: k.level, Disks: len(k.members), Chunk: 128}

	if k.layout != "" && k.level != raid.Level0 {
		var err error
		if g.Layout, err = raid.ParseLayout(k.level, k.layout); err != nil {
			t.Fatal(err)
		}
	}

	return policy.Served(g)
}

// each runs a script with a variable A for the name of each array, M for its
// model, D for its devices and L for how many it may lose.
func (f *fleet) each(script string) string {
	f.t.Helper()

	return f.eachOf(func(kind) bool { return true }, script)
}

// eachOf is each for those arrays that which wants. Two are treated at a time,
// as there are two processors.
func (f *fleet) eachOf(which func(kind) bool, script string) string {
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
	f.MustWriteFile("/run/script", "set -euo pipefail\n. /run/$1.is\n"+
		"trap 'echo \"$A: $BASH_COMMAND\" >&2' ERR\n"+script+"\n", 0o600)

	out := f.MustGo("xargs -a /run/todo -P 2 -I @ bash /run/script @").MustWait(10 * time.Minute)
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

		fmt.Fprintf(&script, "echo \"A=%[1]s M=%[2]s/%[1]s.model L=%[3]d D='%[4]s' C='%[5]s'\" >/run/%[1]s.is\n",
			k.name, f.models, k.loses, strings.Join(devices, " "), args)
	}

	f.MustShell(script.String())
}

// redundant are the arrays that survive the loss of a member.
func redundant(k kind) bool { return k.loses > 0 }

// create has mdadm make the arrays, and md fill and stop them.
func (f *fleet) create() {
	f.t.Helper()
	f.note()
	f.each(`mdadm --create /dev/md/$A --run --quiet --assume-clean --homehost=%none --data-offset=1M $C $D
exercise fill -model $M /dev/md/$A
mdadm --stop --quiet /dev/md/$A`)
	f.MustShell("udevadm settle")
}

// engineStarts installs our programs and waits until all arrays run.
func (f *fleet) engineStarts() {
	f.t.Helper()

	if f.MustShell("test -e /usr/sbin/raid-engine && echo there || echo none") == "there\n" {
		f.MustShell("systemctl start raid-assembler.service")
	} else {
		f.install()
	}

	f.awaitAll("assembled", whole)
}

// awaitAll waits until ok says so of all arrays.
func (f *fleet) awaitAll(what string, ok func(api.Array) bool) {
	f.t.Helper()

	began := time.Now()

	for _, k := range f.kinds {
		f.await(k.name, 2*time.Minute, what, ok)
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

	f.each("mdadm --assemble --quiet /dev/md/$A $D\nexercise check -model $M /dev/md/$A")

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

	f.each("mdadm --stop --quiet /dev/md/$A")
}
