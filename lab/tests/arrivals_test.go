package tests

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
	"raid-assembler/pkg/api"
	"raid-assembler/pkg/raid"
)

// arriving are arrays that are alike, so that as many orders are tried at a time.
var arriving = []kind{
	{"five-a", raid.Level5, "left-symmetric", mib(8, 4), "64", 1},
	{"five-b", raid.Level5, "left-symmetric", mib(8, 4), "64", 1},
	{"five-c", raid.Level5, "left-symmetric", mib(8, 4), "64", 1},
	{"five-d", raid.Level5, "left-symmetric", mib(8, 4), "64", 1},
}

// deadlinesConf is where the deadlines of arrays are chosen.
const deadlinesConf = "/etc/raid-assembler.conf.d/50-deadlines.conf"

// TestArrivals has the members of arrays come in each order, while udev tells of them
// again and again; just before, at and after their deadlines; and with another disk in
// the place of one of them. Each time an array is started once, and is whole in the end,
// with its content; the other disk is left alone.
func TestArrivals(t *testing.T) {
	takesLong(t)

	for _, tt := range []struct {
		name string
		do   func(*fleet)
	}{
		{"orders", (*fleet).arriveInEachOrder},
		{"deadline", (*fleet).arriveAtTheDeadline},
		{"disguise", (*fleet).arriveInDisguise},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFleet(t, arriving, false)
			f.create()

			var conf strings.Builder
			for i, k := range f.kinds {
				fmt.Fprintf(&conf, "[Array %s]\nDeadline=%dms\n", k.name, late[i].Milliseconds())
			}

			f.MustWriteFile(deadlinesConf, conf.String(), 0o644)
			f.engineStarts()
			f.stopAndPull()
			tt.do(f)
			f.areWhole(300)
			f.note()
			f.engineStops()
			f.mdChecks()
		})
	}
}

// stopAndPull stops all arrays and pulls their disks.
func (f *fleet) stopAndPull() {
	f.t.Helper()
	f.each("raid-assembler stop $A >/dev/null")

	for _, k := range f.kinds {
		f.pull(f.disks[k.name]...)
	}
}

// starts returns how often each array was started: with all its members, and without.
func (f *fleet) starts() (whole, degraded map[string]int) {
	f.t.Helper()
	f.MustShell("journalctl --sync")

	count := func(kind string) map[string]int {
		n := make(map[string]int)
		for _, e := range f.events(kind) {
			n[e.Array]++
		}

		return n
	}

	return count("ArrayAssembled"), count("ArrayStartedDegraded")
}

// arriveInEachOrder has each array's members come one after the other, in a quarter of
// all orders, while udev tells of half of the disks as fast as it can.
func (f *fleet) arriveInEachOrder() {
	f.t.Helper()

	// Longer than any machine needs.
	f.MustWriteFile(deadlinesConf, "[Assembly]\nDeadline=5min\n", 0o644)
	f.MustShell("systemctl reload raid-assembler.service")

	orders := permutations(0, 1, 2, 3)
	each := len(orders) / len(f.kinds)

	for round := range each {
		whole, degraded := f.starts()
		end := f.flood(f.kinds[:2])

		for rank := range orders[0] {
			var next []*lab.GuestDisk

			for i, k := range f.kinds {
				next = append(next, f.disks[k.name][orders[i*each+round][rank]])
			}

			f.MustReplugAll(next...)
		}

		f.awaitAll("whole", runsWhole)
		end()
		f.areWhole(round)

		nowWhole, nowDegraded := f.starts()

		for i, k := range f.kinds {
			if got := nowWhole[k.name] - whole[k.name]; got != 1 || nowDegraded[k.name] != degraded[k.name] {
				f.t.Errorf("%s came in the order %v: started %d times whole and %d times degraded, want once whole",
					k.name, orders[i*each+round], got, nowDegraded[k.name]-degraded[k.name])
			}
		}

		if round < each-1 {
			f.stopAndPull()
		}
	}
}

// permutations returns all orders of what is given.
func permutations(of ...int) [][]int {
	if len(of) == 0 {
		return [][]int{nil}
	}

	var all [][]int

	for i, first := range of {
		for _, rest := range permutations(slices.Concat(of[:i], of[i+1:])...) {
			all = append(all, append([]int{first}, rest...))
		}
	}

	return all
}

// runsWhole reports whether a is served, and whole.
func runsWhole(a api.Array) bool { return whole(a) && a.State != string(raid.Inactive) }

// areWhole waits until all arrays are, and then writes to them and reads all of them.
func (f *fleet) areWhole(seed int) {
	f.t.Helper()
	f.awaitAll("whole", runsWhole)
	f.each(fmt.Sprintf(`exercise run -model $M -mix random -ops 40 -seed %d /dev/raid/$A >/dev/null
exercise check -model $M /dev/raid/$A`, seed))

	if n := strings.Fields(f.MustShell("pgrep " + theEngine)); len(n) != 1 {
		f.t.Errorf("engines are %v, want one", n)
	}
}

// flood has udev tell of the disks of arrays again and again, until end is called: by
// what is written to their uevent files, and by closing them after they were open for
// writing. As udev hears of each before the next time, it is not behind when that ends.
func (f *fleet) flood(kinds []kind) (end func()) {
	f.t.Helper()

	const used = `echo $(cat /sys/kernel/uevent_seqnum) $(systemctl show -P CPUUsageNSec raid-assembler)`

	before, began := numbers(f.t, f.MustShell(used)), time.Now()

	f.MustShell("touch /run/flood")

	var targets []string

	for _, k := range kinds {
		for _, d := range f.disks[k.name] {
			targets = append(targets, strconv.Itoa(d.Bay()))
		}
	}

	job := f.MustGo(`while [ -e /run/flood ]; do
	for target in ` + strings.Join(targets, " ") + `; do
		for d in /sys/bus/scsi/devices/*:0:$target:0/block/*; do
			{ echo change >$d/uevent; } 2>/dev/null || true
			dd if=/dev/null of=/dev/${d##*/} conv=notrunc,nocreat status=none 2>/dev/null || true
		done
	done
	udevadm settle -t 10 || true
done`)

	return func() {
		f.t.Helper()
		f.MustShell("rm /run/flood")
		job.MustWait(patience)

		after := numbers(f.t, f.MustShell(used))
		f.t.Logf("%d uevents in %v, for which the assembler computed %v", after[0]-before[0],
			time.Since(began).Round(time.Second), time.Duration(after[1]-before[1]).Round(time.Millisecond))
	}
}

// numbers reads numbers.
func numbers(t *testing.T, text string) []int64 {
	t.Helper()

	var all []int64

	for field := range strings.FieldsSeq(text) {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			t.Fatal(err)
		}

		all = append(all, n)
	}

	return all
}

// late are the deadlines of the arrays, so that disks which come together come at
// different times before and after them. A slow machine needs most of that for the disks
// that come before.
var late = []time.Duration{25 * time.Second, 25300 * time.Millisecond, 25600 * time.Millisecond, 25900 * time.Millisecond}

// arriveAtTheDeadline has the last member of each array come around its deadline. Each
// array is started once: with it, or without it and then it is taken in.
func (f *fleet) arriveAtTheDeadline() {
	f.t.Helper()

	lag, outcomes := 700*time.Millisecond, make(map[string]int)

	for round, ms := range []int{-800, -200, 200, 2000} {
		if round > 0 {
			f.stopAndPull()
		}

		lag = f.comeLate(round, time.Duration(ms)*time.Millisecond, lag, outcomes)
	}

	if outcomes["whole"] == 0 || outcomes["degraded"] == 0 {
		f.t.Errorf("around their deadlines arrays were started %v, want some of each", outcomes)
	}
}

// comeLate pushes the last disks in so that they are seen shift after the deadlines, in
// their middle, if it takes lag until they are seen. It returns how long it took.
func (f *fleet) comeLate(round int, shift, lag time.Duration, outcomes map[string]int) time.Duration {
	f.t.Helper()

	var first, last []*lab.GuestDisk

	for i := range 4 {
		for _, k := range f.kinds {
			if d := f.disks[k.name][i]; i == round {
				last = append(last, d)
			} else {
				first = append(first, d)
			}
		}
	}

	whole, degraded := f.starts()
	began := f.now()
	f.MustReplugAll(first...)

	var (
		deadlines = make(map[string]time.Duration)
		middle    time.Duration
	)

	for i, k := range f.kinds {
		deadlines[k.name] = f.first("Waiting", began, func(e entry) bool { return e.Array == k.name }).at() + late[i]
		middle += deadlines[k.name] / time.Duration(len(f.kinds))
	}

	time.Sleep(middle + shift - lag - f.now())

	pushed := f.now()
	f.MustReplugAll(last...)
	f.areWhole(100 + round)

	nowWhole, nowDegraded := f.starts()
	lag = 0

	for i, k := range f.kinds {
		came := f.first("NewDevice", began, func(e entry) bool { return e.Serial == last[i].Serial() }).at()
		lag += (came - pushed) / time.Duration(len(f.kinds))
		what := fmt.Sprintf("%s, whose last disk was seen %v after its deadline", k.name,
			(came - deadlines[k.name]).Round(time.Millisecond))

		switch [2]int{nowWhole[k.name] - whole[k.name], nowDegraded[k.name] - degraded[k.name]} {
		case [2]int{1, 0}:
			outcomes["whole"]++

			f.t.Logf("%s, was started whole", what)
		case [2]int{0, 1}:
			outcomes["degraded"]++

			at := f.first("ArrayStartedDegraded", began, func(e entry) bool { return e.Array == k.name }).at()
			f.t.Logf("%s, was started degraded %v after that", what, (at - deadlines[k.name]).Round(time.Millisecond))

			// What waits is told a moment after it was decided.
			if at < deadlines[k.name]-time.Second/2 || came < deadlines[k.name]-time.Second/2 {
				f.t.Errorf("%s, was started without it %v after the deadline", what, at-deadlines[k.name])
			}
		default:
			f.t.Errorf("%s, was started %d times whole and %d times degraded, want once", what,
				nowWhole[k.name]-whole[k.name], nowDegraded[k.name]-degraded[k.name])
		}
	}

	return lag
}

// now is the guest's time since its boot.
func (f *fleet) now() time.Duration { return time.Duration(f.MustMonotonicNow()) * time.Microsecond }

// first returns the first entry of the journal of one kind, since a time, that ok wants.
func (f *fleet) first(kind string, since time.Duration, ok func(entry) bool) entry {
	f.t.Helper()

	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		for _, e := range f.events(kind) {
			if e.at() >= since && ok(e) {
				return e
			}
		}
	}

	f.t.Fatalf("no %s since %v", kind, since)

	return entry{}
}

// arriveInDisguise has a disk come that has the serial number and the place of a member,
// and holds one of another array: while the array waits and of the other one nothing else
// is there, and while both run.
func (f *fleet) arriveInDisguise() {
	f.t.Helper()

	a, other := f.kinds[0], f.kinds[3]
	disguised, model := f.disks[a.name][1], f.content(f.disks[other.name][1])
	own := f.content(disguised)

	f.holds(disguised, model)
	f.MustReplugAll(f.disks[a.name]...)
	f.await(a.name, patience, "started without the disk that is not its own", degradedBy(1))
	f.isLeftAlone(disguised, "of 4 members are here", model)

	f.MustReplugAll(f.disks[other.name]...)
	f.MustWaitFor(patience, "raid-assembler explain "+other.name+" | grep 'are copies of one member'")
	f.isLeftAlone(disguised, "are copies of one member", model)

	disguised.MustUnplug()
	f.await(other.name, patience, "whole without the copy", runsWhole)
	disguised.MustReplug()
	f.isLeftAlone(disguised, "it is a copy of", model)
	f.await(a.name, patience, "without a member", degradedBy(1))

	disguised.MustUnplug()

	if !bytes.Equal(f.content(disguised), model) {
		f.t.Errorf("%s was written to", disguised.Serial())
	}

	f.holds(disguised, own)
	disguised.MustReplug()

	for _, k := range f.kinds[1:3] {
		f.MustReplugAll(f.disks[k.name]...)
	}
}

// isLeftAlone waits until it is said why a disk is left alone, and checks that it is.
func (f *fleet) isLeftAlone(d *lab.GuestDisk, why string, content []byte) {
	f.t.Helper()

	dev := d.MustDev()
	f.MustWaitFor(patience, fmt.Sprintf("raid-assembler explain %s | tee /run/explained; grep -q '%s' /run/explained", dev, why))
	f.t.Log(f.MustReadFile("/run/explained"))

	for _, a := range f.status().Arrays {
		has := slices.ContainsFunc(a.Members, func(m api.Member) bool { return m.Device == dev })
		if has && a.State != string(raid.Inactive) {
			f.t.Errorf("%s has %s: %+v", a.Name, dev, a)
		}
	}

	if got := f.MustShell("sha256sum " + dev); !strings.HasPrefix(got, sum(content)) {
		f.t.Errorf("%s holds %s, want %s", dev, got, sum(content))
	}
}

// content returns what a disk holds that is not plugged in.
func (f *fleet) content(d *lab.GuestDisk) []byte {
	f.t.Helper()

	data, err := os.ReadFile(d.Path())
	if err != nil {
		f.t.Fatal(err)
	}

	return data
}

// holds has a disk that is not plugged in hold something else.
func (f *fleet) holds(d *lab.GuestDisk, data []byte) {
	f.t.Helper()

	if err := os.WriteFile(d.Path(), data, 0o600); err != nil {
		f.t.Fatal(err)
	}
}
