package tests

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"raid-assembler/lab"
	"raid-assembler/pkg/api"
	"raid-assembler/pkg/raid"
)

// disturbed are arrays of which all can lose a member.
var disturbed = []kind{
	{"one", raid.Level1, "", mib(16, 2), "", 1},
	{"five", raid.Level5, "left-symmetric", mib(16, 3), "64", 1},
	{"ten", raid.Level10, "n2", mib(16, 4), "64", 1},
}

// disturbedDeadline is how long these may lack members while the clock is set.
const disturbedDeadline = 8 * time.Second

// TestDisturbed has arrays be assembled, lose a member and get it back while the
// assembler is killed on and on, RAID_LAB_KILLS times; while udevd is restarted, or does
// not run; while the clock is set; has systemd execute itself anew under load; and restarts
// the engine while arrays are being started. What comes of it is what does without all that.
func TestDisturbed(t *testing.T) {
	takesLong(t)

	for _, tt := range []struct {
		name, conf string
		do         func(*fleet)
	}{
		{"kills", "", (*fleet).assemblerIsKilled},
		{"bursts", "", (*fleet).udevTellsMuch},
		{"udev", "", (*fleet).udevIsDisturbed},
		{"clock", fmt.Sprintf("[Assembly]\nDeadline=%dms\n", disturbedDeadline.Milliseconds()), (*fleet).clockIsSet},
		{"systemd", "", (*fleet).systemdStartsAnew},
		{"restarts", "", (*fleet).engineIsRestarted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFleet(t, disturbed, false)
			f.create()
			f.MustWriteFile(deadlinesConf, tt.conf, 0o644)
			f.engineStarts()
			tt.do(f)
			f.note()
			f.engineStops()
			f.mdChecks()
		})
	}
}

// all returns the disks of all arrays.
func (f *fleet) all() []*lab.GuestDisk {
	var all []*lab.GuestDisk
	for _, k := range f.kinds {
		all = append(all, f.disks[k.name]...)
	}

	return all
}

// assemblerIsKilled compares what comes of a life of the arrays with what does while the
// assembler is killed.
func (f *fleet) assemblerIsKilled() {
	f.t.Helper()

	const engines = "echo $(systemctl show -P MainPID raid-engine) $(pgrep " + theEngine + ")"

	f.stopAndPull()

	kills, want := number(f.t, "RAID_LAB_KILLS", 12), f.live(1)
	engine := f.MustShell(engines)
	began := time.Now()

	killer := f.MustGo(fmt.Sprintf(`last=0
for i in $(seq %d); do
	until p=$(systemctl show -P MainPID raid-assembler) && [ $p != 0 ] && [ $p != $last ]; do sleep 0.02; done
	last=$p
	sleep $((RANDOM %% 2)).$((RANDOM %% 10))$((RANDOM %% 10))
	kill -KILL $p
done`, kills))

	for seed := 2; ; seed++ {
		if diff := cmp.Diff(want, f.live(seed)); diff != "" {
			f.t.Errorf("what came of it while the assembler was killed (-without, +with):\n%s", diff)
		}

		r, done, err := killer.Poll(f.t.Context())
		if err != nil || done && r.ExitCode != 0 {
			f.t.Fatalf("killing the assembler: %+v, %v", r, err)
		}

		if done {
			f.t.Logf("%d kills in %d lives and %v", kills, seed-1, time.Since(began).Round(time.Second))

			break
		}
	}

	if now := f.MustShell(engines); now != engine {
		f.t.Errorf("the processes of the engine are %s, and were %s", now, engine)
	}

	f.MustWaitFor(patience, fmt.Sprintf("[ $(systemctl show -P NRestarts raid-assembler) = %d ]", kills))
	f.MustReplugAll(f.all()...)
	f.comes("assembled in the end", allAre(clean))
}

// live has arrays be assembled, lose a member, be used, get it back and be stopped, and
// returns what they were before the stop.
func (f *fleet) live(seed int) (was string) {
	f.t.Helper()
	f.MustReplugAll(f.all()...)
	f.comes("assembled", allAre(whole))

	for _, k := range f.kinds {
		f.disks[k.name][seed%len(f.disks[k.name])].MustUnplug()
	}

	f.comes("degraded", allAre(degradedBy(1)))
	f.each(fmt.Sprintf("exercise run -model $M -mix random -ops 60 -seed %d /dev/raid/$A >/dev/null", seed))

	for _, k := range f.kinds {
		f.disks[k.name][seed%len(f.disks[k.name])].MustReplug()
	}

	f.comes("whole again", func(st api.Status) bool { was = essence(f.t, st); return allAre(clean)(st) })
	f.each(`exercise check -model $M /dev/raid/$A
until [ ! -e /dev/raid/$A ]; do raid-assembler stop $A >/dev/null 2>&1 || sleep 0.2; done`)
	f.comes("stopped", func(st api.Status) bool {
		return !slices.ContainsFunc(st.Arrays, func(a api.Array) bool { return a.State != string(raid.Inactive) })
	})
	f.pull(f.all()...)

	return was
}

// clean reports whether a is whole, and no write is under way.
func clean(a api.Array) bool { return whole(a) && a.State == string(raid.Clean) }

// allAre reports whether all arrays of the fleet run, and are as wanted.
func allAre(ok func(api.Array) bool) func(api.Status) bool {
	return func(st api.Status) bool {
		n := 0

		for _, a := range st.Arrays {
			if a.State != string(raid.Inactive) && ok(a) {
				n++
			}
		}

		return n == len(disturbed)
	}
}

// comes waits until the status is as wanted. Meanwhile there may be nobody to ask.
func (f *fleet) comes(what string, ok func(api.Status) bool) {
	f.t.Helper()

	var last string

	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		res, err := f.Shell("raid-assembler status --json")
		if err != nil {
			f.t.Fatal(err)
		}

		var st api.Status
		if last = res.Stdout; json.Unmarshal([]byte(res.Stdout), &st) == nil && ok(st) {
			return
		}
	}

	f.t.Fatalf("not %s within %v: %s", what, patience, last)
}

// essence is a status without what depends on when it was asked for, and on what the
// kernel calls devices.
func essence(t *testing.T, st api.Status) string {
	t.Helper()

	for i := range st.Arrays {
		a := &st.Arrays[i]
		a.Device, a.Events, a.Recorded, a.Scrub = "", 0, 0, nil

		for m := range a.Members {
			a.Members[m].Device = ""
			a.Members[m].Errors, a.Members[m].Belated, a.Members[m].SlowSeconds = 0, 0, 0
		}
	}

	for _, idle := range [][]api.Idle{st.Spares, st.Unused} {
		for i := range idle {
			idle[i].Device, idle[i].Reason = "", ""
		}
	}

	for i := range st.Absent {
		st.Absent[i].LastSeen = ""
	}

	slices.SortFunc(st.Arrays, func(a, b api.Array) int { return strings.Compare(a.Name, b.Name) })

	text, err := json.MarshalIndent(st, "", "\t")
	if err != nil {
		t.Fatal(err)
	}

	return string(text)
}

// clockIsSet has arrays wait for a member until their deadline, while the clock is set
// back and forth: it is not by the clock that this is measured, nor by which members are
// taken for the newest.
func (f *fleet) clockIsSet() {
	f.t.Helper()
	f.stopAndPull()

	for seed, sets := range []string{
		"for by in '10 years ago' '20 years' '10 years ago'; do sleep 3; date -s \"$by\"; done",
		"for i in $(seq 10); do for by in '10 years ago' '20 years' '10 years ago'; do date -s \"$by\"; sleep 1; done; done",
	} {
		began := f.now()
		clock := f.MustGo("{ " + sets + "; } >/dev/null")

		var first, last []*lab.GuestDisk

		for _, k := range f.kinds {
			disks := f.disks[k.name]
			first, last = append(first, disks[1:]...), append(last, disks[0])
		}

		f.MustReplugAll(first...)

		for _, k := range f.kinds {
			of := func(e entry) bool { return e.Array == k.name }
			started, said := f.first("ArrayStartedDegraded", began, of).at(), f.first("Waiting", began, of).at()
			f.t.Logf("%s: %s was started degraded %v after it was said to wait, and %v after its members were plugged in",
				sets, k.name, (started - said).Round(time.Millisecond), (started - began).Round(time.Millisecond))

			// Whenever the clock is set, journald may take seconds to hear what it was told.
			if started-began < disturbedDeadline || started-said > disturbedDeadline+soon {
				f.t.Errorf("%s: %s was not started after %v", sets, k.name, disturbedDeadline)
			}
		}

		f.MustReplugAll(last...)
		clock.MustWait(patience)
		f.comes("whole", allAre(clean))
		f.each(fmt.Sprintf(`exercise run -model $M -mix random -ops 40 -seed %d /dev/raid/$A >/dev/null
exercise check -model $M /dev/raid/$A`, 100+seed))

		if seed == 0 {
			f.stopAndPull()
		}
	}

	f.MustShell(fmt.Sprintf("date -s @%d", time.Now().Unix()))
}

// udevIsDisturbed restarts udevd while members are pulled and come back. Then it stops
// it for a minute, in which the kernel loses disks of all arrays and finds them again, of
// which nobody tells.
func (f *fleet) udevIsDisturbed() {
	f.t.Helper()

	restarts := f.MustGo(`for i in $(seq 6); do
	systemctl restart systemd-udevd.service
	udevadm trigger -s block
	sleep 1
done`)

	for _, k := range f.kinds {
		d := f.disks[k.name][1]
		d.MustUnplug()
		time.Sleep(time.Second)
		d.MustReplug()
	}

	restarts.MustWait(patience)
	f.comes("whole while udevd was restarted", allAre(clean))

	// An array that was stopped, and whose disks are other ones, is started.
	f.MustShell(`raid-assembler stop one >/dev/null
systemctl stop systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udevd.service`)

	began, whole := time.Now(), len(f.events("ArrayAssembled"))
	gone := append([]*lab.GuestDisk{f.disks["five"][2], f.disks["ten"][2]}, f.disks["one"]...)

	var names strings.Builder
	for _, d := range gone {
		fmt.Fprintf(&names, " %s", strings.TrimPrefix(d.MustDev(), "/dev/"))
	}

	f.MustShell("for d in" + names.String() + `; do echo 1 >/sys/block/$d/device/delete; done
for h in /sys/class/scsi_host/host*; do echo '- - -' >$h/scan; done
until [ $(ls -d /sys/block/sd* | wc -l) = ` + fmt.Sprint(len(f.all())) + ` ]; do sleep 0.1; done`)

	now := make(map[string]string) // by serial
	for _, d := range gone {
		now[d.Serial()] = d.MustDev()
	}

	f.comes("whole without udevd", func(st api.Status) bool {
		n := 0

		for _, a := range st.Arrays {
			for _, m := range a.Members {
				if m.Device == now[m.Serial] && m.State == string(raid.InSync) {
					n++
				}
			}
		}

		return n == len(gone) && allAre(clean)(st)
	})
	f.t.Logf("whole without udevd after %v", time.Since(began).Round(time.Second))

	if got := len(f.told("ArrayAssembled", whole+1)) - whole; got != 1 {
		f.t.Errorf("arrays were assembled %d times without udevd, want 1", got)
	}

	time.Sleep(time.Minute - time.Since(began))
	f.MustShell(`systemctl start systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udevd.service
udevadm trigger -s block
udevadm settle`)
	f.comes("whole with udevd", allAre(clean))
	f.each("there /dev/raid/$A\nexercise check -model $M /dev/raid/$A")
}

// udevTellsMuch has udev tell of 1,000 and of 2,000 changes while members of an array
// come: none is lost, and the assembler does not grow. Most of them are of disks without
// metadata, about which udev itself has less to do.
func (f *fleet) udevTellsMuch() {
	f.t.Helper()
	// No more devices than udevd has workers: it has to come to the disks that are new.
	f.MustShell("modprobe null_blk nr_devices=2 gb=1; udevadm settle")

	for round, burst := range []struct{ events, every int }{{1000, 5}, {2000, 10}} {
		f.MustShell("raid-assembler stop one >/dev/null")
		f.pull(f.disks["one"]...)

		began, whole := time.Now(), len(f.events("ArrayAssembled"))

		f.MustShell(fmt.Sprintf(`echo 5 >/proc/$(systemctl show -P MainPID raid-assembler)/clear_refs
members=(%[3]s)
for i in $(seq %[1]d); do
	d=/dev/nullb$((i %% 2))
	[ $((i %% %[2]d)) != 0 ] || d=${members[$((i / %[2]d %% ${#members[@]}))]}
	echo change >/sys/block/${d##*/}/uevent
done`, burst.events, burst.every, devices(f.disks["five"])))

		sent := time.Since(began)

		f.MustReplugAll(f.disks["one"]...)
		f.comes("whole beside a burst", allAre(clean))

		there := time.Since(began)

		f.MustGo("udevadm settle -t 500").MustWait(2 * patience)

		settled := time.Since(began)
		peak := numbers(f.t, f.MustShell("awk '/^VmHWM/ {print $2}' /proc/$(systemctl show -P MainPID raid-assembler)/status"))[0]
		f.t.Logf("%d uevents sent after %v, all arrays whole after %v, udev done after %v; the assembler has taken %d KiB",
			burst.events, sent.Round(time.Second), there.Round(time.Second), settled.Round(time.Second), peak)

		if peak > 32<<10 {
			f.t.Errorf("the assembler has taken %d KiB", peak)
		}

		f.comes("whole after a burst", allAre(clean))

		if got := len(f.told("ArrayAssembled", whole+1)) - whole; got != 1 {
			f.t.Errorf("arrays were assembled %d times, want 1", got)
		}

		f.each(fmt.Sprintf("exercise run -model $M -mix random -ops 40 -seed %d /dev/raid/$A >/dev/null", 200+round))
	}
}

// systemdStartsAnew has systemd execute itself anew and read its files again, under load:
// the programs go on, and what the guardian left with systemd is there still, which the
// guardian that follows a dead one needs.
func (f *fleet) systemdStartsAnew() {
	f.t.Helper()

	const programs = "echo $(systemctl show -P MainPID raid-engine raid-assembler) $(pgrep " + theEngine +
		") files $(systemctl show -P NFileDescriptorStore raid-engine)"

	loads := f.loads(anyKind, 20, 300)
	before := f.MustShell(programs)

	for range 5 {
		f.MustShell("systemctl daemon-reexec; systemctl daemon-reload; sleep 1")
	}

	if after := f.MustShell(programs); after != before {
		f.t.Errorf("processes and files are %s, and were %s", after, before)
	}

	f.MustShell("kill -KILL $(systemctl show -P MainPID raid-engine)")
	endAll(loads)
	f.comes("served by the next guardian", allAre(clean))
	f.each("exercise check -model $M /dev/raid/$A")
}

// engineIsRestarted restarts the engine again and again, at any time after it has served:
// while arrays are being started that nobody uses, and udev looks at those.
func (f *fleet) engineIsRestarted() {
	f.t.Helper()

	for range 15 {
		f.MustGo("systemctl restart raid-engine.service; sleep $((RANDOM % 4)).$((RANDOM % 10))").MustWait(patience)
	}

	f.comes("whole in the end", allAre(clean))
	f.each("there /dev/raid/$A\nexercise check -model $M /dev/raid/$A")
}
