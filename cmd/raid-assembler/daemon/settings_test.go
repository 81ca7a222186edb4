package daemon

import (
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/config"
	"raid-assembler/pkg/raid"
)

func configured(text string) config.Config { return config.Parse(config.File{Path: "f", Text: text}) }

// TestConfiguredDeadline checks that a deadline holds for the array that it is
// about, and for no other.
func TestConfiguredDeadline(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.settings = configured("[Array data]\nDeadline=5\n")
		data, web := w.set("data", raid.Level1, 2, 0), w.set("web", raid.Level1, 2, 0)
		w.run()
		w.plug(data[0], web[0])
		w.pass(4900 * time.Millisecond)
		w.mustBe("")
		w.pass(200 * time.Millisecond)
		w.mustBe("data 0:data0:in-sync 1::missing")
		w.pass(25 * second)
		w.mustBe("data 0:data0:in-sync 1::missing\nweb 0:web0:in-sync 1::missing")
	})
}

// TestLentSpare checks that a spare goes from the array that has it to one of
// its domain that needs it, whether the first has got it already or not, and
// that nothing is lost if the daemon dies between the two steps.
func TestLentSpare(t *testing.T) {
	for _, crash := range []bool{false, true} {
		inWorld(t, func(t *testing.T, w *world) {
			w.settings = configured("[Domain d]\nArray=data\nArray=web\n")
			data, web := w.set("data", raid.Level1, 2, 1), w.set("web", raid.Level1, 2, 0)
			w.run()
			w.plug(data...)
			w.plug(web...)
			w.pass(second)
			w.mustBe("data 0:data0:in-sync 1:data1:in-sync S:data2:spare\nweb 0:web0:in-sync 1:web1:in-sync")

			if crash {
				w.killDaemon()

				if err := w.change("Remove", api.MemberParameters{Array: raid.UUID{'d'}.String(), Device: data[2].Path}); err != nil {
					t.Fatal(err)
				}

				w.unplugQuietly(web[1])
				w.run()
			} else {
				w.unplug(web[1])
			}

			w.pass(second)
			w.mustBe("data 0:data0:in-sync 1:data1:in-sync\nweb 0:web0:in-sync 1:data2:recovering")
			w.recovered()
			w.plug(web[1])
			w.pass(5 * time.Minute)
			w.mustBe("data 0:data0:in-sync 1:data1:in-sync\nweb 0:web0:in-sync 1:data2:in-sync")
		})
	}
}

// TestReadOnlyByConfiguration checks that an array is started read-only that is
// to be, stays writable over a crash of the engine if the operator made it so,
// and not once it was stopped.
func TestReadOnlyByConfiguration(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.settings = configured("[Array data]\nAssemble=read-only\n")
		w.tweak = func(a *api.Array) {
			if w.readOnly[a.Device] {
				a.State = string(raid.ReadOnly)
			}
		}

		uuid := raid.UUID{'d'}
		w.run()
		w.plug(w.set("data", raid.Level1, 2, 0)...)
		w.pass(second)

		readOnly := func(want bool, when string) {
			t.Helper()

			a := w.arrays[uuid]
			if a == nil || a.ReadOnly != want || w.readOnly["/dev/ublkb0"] != want {
				t.Errorf("%s: array %+v, the kernel %v, want read-only %v", when, a, w.readOnly, want)
			}
		}
		readOnly(true, "at first")

		w.mu.Lock()
		w.readOnly["/dev/ublkb0"] = false // as readwrite has it
		w.mu.Unlock()
		w.daemon.Hint()
		w.pass(second)

		w.mu.Lock()
		delete(w.arrays, uuid) // the engine dies
		w.mu.Unlock()
		w.daemon.Hint()
		w.pass(second)
		readOnly(false, "after a crash")

		if _, err := w.daemon.stop(t.Context(), api.ChangeParameters{Array: "data"}); err != nil {
			t.Fatal(err)
		}

		if _, err := w.daemon.assemble(t.Context(), api.ChangeParameters{Array: "data"}); err != nil {
			t.Fatal(err)
		}

		w.pass(second)
		readOnly(true, "asked for anew")
	})
}

// TestLeftAlone checks that an array is left to mdadm, is shown with the reason,
// and started when it is asked for.
func TestLeftAlone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.settings = configured("[Array data]\nAssemble=leave-to-mdadm\n")
		w.run()
		w.plug(w.set("data", raid.Level1, 2, 0)...)
		w.pass(time.Minute)
		w.mustBe("")

		st, err := w.daemon.status(t.Context())
		if err != nil || len(st.Arrays) != 1 || !strings.Contains(st.Arrays[0].Reason, "Assemble=leave-to-mdadm in f:2") || len(st.Unused) > 0 {
			t.Errorf("status %+v, %v, want one array, with the reason", st, err)
		}

		if _, err := w.daemon.assemble(t.Context(), api.ChangeParameters{Array: "data"}); err != nil {
			t.Fatal(err)
		}

		w.mustBe("data 0:data0:in-sync 1:data1:in-sync")
	})
}

// TestReconfigure checks that what is read again holds from then on, and that
// what is wrong does not, whatever else it says.
func TestReconfigure(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.settings = configured("[Assembly]\nAssemble=no\n")
		w.run()
		w.plug(w.set("data", raid.Level1, 2, 0)...)
		w.pass(second)
		w.mustBe("")

		w.daemon.Reconfigure(configured("[Assembly]\nAssemble=yes\nOops=1\n"))
		w.pass(time.Minute)
		w.mustBe("")

		if history := w.history(); !strings.Contains(history, "what was read before goes on to hold: f:3: unknown key \"Oops\"") {
			t.Errorf("journal:\n%s\nwant what is wrong", history)
		}

		w.daemon.Reconfigure(configured("[Assembly]\nAssemble=yes\n"))
		w.pass(second)
		w.mustBe("data 0:data0:in-sync 1:data1:in-sync")
	})
}

// TestFaultyAtStart checks that a configuration that something is wrong with at
// the start keeps from being started what it may be about, and nothing else, and
// that what runs is looked after.
func TestFaultyAtStart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		data := w.set("data", raid.Level1, 2, 1)
		w.plug(data[:2]...)
		w.run()
		w.pass(second)
		w.killDaemon()

		w.settings = configured("[Array data]\nOops=1\n[Array web]\nOops=1\n")
		w.run()
		w.plug(w.set("web", raid.Level1, 2, 0)...)
		w.plug(w.set("home", raid.Level1, 2, 0)...)
		w.unplug(data[1])
		w.plug(data[2])
		w.pass(time.Minute)
		w.mustBe("data 0:data0:in-sync 1:data2:recovering\nhome 0:home0:in-sync 1:home1:in-sync")

		if _, err := w.daemon.assemble(t.Context(), api.ChangeParameters{Array: "web"}); err != nil {
			t.Fatal(err)
		}

		w.mustBe("data 0:data0:in-sync 1:data2:recovering\nhome 0:home0:in-sync 1:home1:in-sync\n" +
			"web 0:web0:in-sync 1:web1:in-sync")
	})
}
