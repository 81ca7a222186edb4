package daemon

import (
	"os"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/raid"
)

// leftBehind has a mirror made and run, lose its second half and go on; then the machine is off, and
// comes with the second half alone.
func leftBehind(t *testing.T, w *world, metadata string) []*fakeDisk {
	t.Helper()

	if w.roster == "" {
		w.keepRoster()
	}

	w.configured("[Alerts]\nProgram=/alert\n")

	set := []*fakeDisk{w.disk("data0"), w.disk("data1")}
	for _, f := range set { // the metadata of DDF takes 32 MiB
		f.image = make([]byte, 8*diskBytes)
		f.Size *= 8
	}

	w.run()
	w.plug(set...)
	w.pass(second)

	if _, err := w.daemon.create(t.Context(), api.CreateParameters{
		Name: "data", Level: "raid1", Disks: 2, Metadata: metadata, SizeBytes: 1 << 20, AssumeClean: true,
		Devices: []string{"data0", "data1"},
	}); err != nil {
		t.Fatal(err)
	}

	w.pass(second)
	w.mustBe("data 0:data0:in-sync 1:data1:in-sync")
	w.unplug(set[1])
	w.pass(second)
	w.mustBe("data 0:data0:in-sync 1::missing")
	w.bootWith(set[1], set[0])

	return set
}

// bootWith reboots; what is on and what is off is so when the machine is there again.
func (w *world) bootWith(on, off *fakeDisk) {
	w.killDaemon()

	for uuid := range w.arrays {
		if err := w.stop(uuid.String()); err != nil {
			w.t.Fatal(err)
		}
	}

	w.unplugQuietly(off)

	if !on.plugged {
		w.plugQuietly(on)
	}

	w.run()
	w.pass(second)
}

// TestLeftBehind checks that a half of a mirror that was left behind is not served, and
// that status, explain and an alarm say who is newer; until that one comes.
func TestLeftBehind(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		set := leftBehind(t, w, "1.2")
		w.pass(10 * policyDeadline)
		w.mustBe("")

		const who = "slot 0 (serial data0) is missing, and newer: the array was at event "

		st, err := w.daemon.status(t.Context())
		if err != nil || len(st.Waiting) != 1 || !strings.HasPrefix(st.Waiting[0].Reason, who) || st.Waiting[0].SecondsLeft != -1 {
			t.Errorf("status %+v, %v, want that %s", st, err, who)
		}

		if len(st.Absent) != 1 || st.Absent[0].Serial != "data0" || st.Absent[0].Slot != 0 {
			t.Errorf("absent %+v, want data0", st.Absent)
		}

		lines, err := w.daemon.explain(t.Context(), "data")
		for _, piece := range []string{who, "in sync were slot 0 (serial data0).", "Slot 0 was last held by the disk with serial data0"} {
			if text := strings.Join(lines, "\n"); err != nil || !strings.Contains(text, piece) {
				t.Errorf("explain: %v\n%s\nwant ... %s ...", err, text, piece)
			}
		}

		if told := strings.Join(w.ran, "\n"); !strings.Contains(told, "RAID_ALARM=waiting RAID_ALARM_STATE=on") ||
			!strings.Contains(told, who) {
			t.Errorf("alarms: %s", told)
		}

		if out, err := w.daemon.assemble(t.Context(), array("data")); err != nil || !strings.Contains(out.Done[0], who) {
			t.Errorf("assemble = %q, %v", out.Done, err)
		}

		w.mustBe("")

		for i, e := range w.recorded() {
			if _, differences := e.State.Replay(); len(differences) > 0 {
				t.Errorf("entry %d: %s", i, differences)
			}
		}

		w.plug(set[0])
		w.pass(second)
		w.mustBe("data 0:data0:in-sync 1:data1:recovering")

		if told := strings.Join(w.ran, "\n"); !strings.Contains(told, "RAID_ALARM=waiting RAID_ALARM_STATE=over") {
			t.Errorf("alarms: %s", told)
		}
	})
}

// TestLeftBehindFormats checks that each format tells who is older.
func TestLeftBehindFormats(t *testing.T) {
	for _, metadata := range []string{"1.0", "1.2", "imsm", "ddf", "asr"} {
		t.Run(metadata, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				set := leftBehind(t, w, metadata)
				w.pass(10 * policyDeadline)
				w.mustBe("")
				w.plug(set[0])
				w.pass(second)
				w.mustBe("data 0:data0:in-sync 1:data1:recovering")
			})
		})
	}
}

// TestLeftBehindByForce checks that the operator can have it, and is not asked again: not
// even if the array was not written to, unless it was only looked at.
func TestLeftBehindByForce(t *testing.T) {
	for _, tt := range []struct {
		name     string
		readOnly bool
		served   bool // at the next boot
	}{{"served", false, true}, {"looked at", true, false}} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				set := leftBehind(t, w, "1.2")
				w.idle = true
				w.tweak = func(a *api.Array) {
					if tt.readOnly {
						a.State = string(raid.ReadOnly)
					}
				}

				p := array("data")
				p.Force, p.ReadOnly = true, tt.readOnly

				out, err := w.daemon.assemble(t.Context(), p)
				if err != nil || !strings.Contains(out.Done[0], "and it was asked for; they are at event") {
					t.Fatalf("assemble --force = %q, %v", out.Done, err)
				}

				w.pass(second)
				w.mustBe("data 0::missing 1:data1:in-sync")

				if back := strings.Contains(w.history(), "data has gone back: it was at event"); back == tt.readOnly {
					t.Errorf("the journal: %s", w.history())
				}

				clear(w.arrays) // the power fails
				w.bootWith(set[1], set[0])
				w.pass(policyDeadline)

				if served := w.state() != ""; served != tt.served {
					t.Errorf("after a boot it is served: %v, want %v", served, tt.served)
				}
			})
		})
	}
}

// TestLeftBehindUnknown checks that where nobody knows of the newer half all is as the
// superblocks have it.
func TestLeftBehindUnknown(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"no roster":       func(w *world) { _ = os.Remove(w.roster) },
		"another machine": func(w *world) { w.machine = "other" },
		"no number":       func(w *world) { w.machine = "" },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				leftBehind(t, w, "1.2")
				w.mustBe("")
				w.killDaemon()
				change(w)
				w.run()
				w.pass(policyDeadline)
				w.mustBe("data 0::missing 1:data1:in-sync")
			})
		})
	}
}

// TestSetBack checks that members which were all set back are started, which the journal
// says.
func TestSetBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.keepRoster()

		set := w.set("data", raid.Level1, 2, 0)
		before := [][]byte{append([]byte{}, set[0].image...), append([]byte{}, set[1].image...)}
		w.run()
		w.plug(set...)
		w.pass(time.Second)
		w.killDaemon()
		clear(w.arrays)

		for i, f := range set {
			copy(f.image, before[i])
		}

		w.run()
		w.pass(second)
		w.mustBe("data 0:data0:in-sync 1:data1:in-sync")

		if !strings.Contains(w.history(), "all 2 members are here; they are at event") {
			t.Errorf("the journal: %s", w.history())
		}
	})
}
