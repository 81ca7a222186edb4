package daemon

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/raid"
	"raid-assembler/pkg/scan/uevent"
)

const second = time.Second

// TestArrival checks that an array starts once, soon after the last of its
// members came, whatever the order.
func TestArrival(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {1, 2, 0}, {0, 2, 1}, {2, 0, 1}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				set := w.set("data", raid.Level5, 3, 0)
				w.run()

				for _, i := range order {
					w.mustBe("")
					w.plug(set[i])
					w.pass(100 * time.Millisecond)
				}

				w.mustBe("data 0:data0:in-sync 1:data1:in-sync 2:data2:in-sync")
				w.pass(5 * time.Minute)

				if w.starts != 1 {
					t.Errorf("%d requests to start, want 1", w.starts)
				}
			})
		})
	}
}

// TestColdPlug checks that devices are found that were there before the daemon.
func TestColdPlug(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.plug(w.set("data", raid.Level1, 2, 1)...)
		w.plug(w.set("web", raid.Level0, 2, 0)...)
		w.run()
		w.pass(100 * time.Millisecond)
		w.mustBe("data 0:data0:in-sync 1:data1:in-sync S:data2:spare\nweb 0:web0:in-sync 1:web1:in-sync")
	})
}

// TestDeadline checks that an array that lacks a member is started at its
// deadline and not before, and that the late one is taken back.
func TestDeadline(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		set := w.set("data", raid.Level5, 3, 0)
		w.run()
		w.plug(set[0])
		w.pass(10 * second)
		w.plug(set[2])
		w.pass(19900 * time.Millisecond)
		w.mustBe("")

		st, err := w.daemon.status(t.Context())
		if err != nil || len(st.Waiting) != 1 || st.Waiting[0].SecondsLeft != 1 || st.Waiting[0].Present != 2 {
			t.Errorf("status = %+v, %v, want 2 members that wait for one more second", st, err)
		}

		w.pass(200 * time.Millisecond)
		w.mustBe("data 0:data0:in-sync 1::missing 2:data2:in-sync")

		w.plug(set[1])
		w.pass(200 * time.Millisecond)
		w.mustBe("data 0:data0:in-sync 1:data1:recovering 2:data2:in-sync")
	})
}

// TestHealing checks that a member that is pulled is failed and let go of, that
// a spare that is pushed in takes its place, and that the old one is not
// trusted when it is back.
func TestHealing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		set := w.set("data", raid.Level5, 3, 1)
		w.run()
		w.plug(set[:3]...)
		w.pass(second)
		w.unplug(set[1])
		w.pass(second)
		w.mustBe("data 0:data0:in-sync 1::missing 2:data2:in-sync")

		w.plug(set[3])
		w.pass(second)
		w.mustBe("data 0:data0:in-sync 1:data3:recovering 2:data2:in-sync")
		w.recovered()

		w.plug(set[1])
		w.pass(second)
		w.mustBe("data 0:data0:in-sync 1:data3:in-sync 2:data2:in-sync")

		if st, _ := w.daemon.status(t.Context()); len(st.Unused) != 1 || !strings.Contains(st.Unused[0].Reason, "stale") {
			t.Errorf("unused = %+v, want data1, stale", st.Unused)
		}
	})
}

// TestReplug checks that a member that is pulled and pushed in again between
// two looks is not taken for the one that the engine has.
func TestReplug(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		set := w.set("data", raid.Level1, 2, 0)
		w.plug(set...)
		w.run()
		w.pass(second)

		w.unplug(set[1])
		w.plug(set[1])
		w.pass(second)
		w.mustBe("data 0:data0:in-sync 1:data1:recovering")

		// Even if the kernel gives it the same name.
		w.recovered()
		w.mu.Lock()
		w.seq++
		set[1].Seq = w.seq
		w.mu.Unlock()
		w.hear("add", set[1].Path)
		w.pass(second)
		w.mustBe("data 0:data0:in-sync 1:data1:recovering")
	})
}

// TestNoEvents checks that nothing depends on being told.
func TestNoEvents(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		set := w.set("data", raid.Level5, 3, 0)
		w.run()
		w.pass(second)

		for _, f := range set {
			w.plugQuietly(f)
		}

		w.pass(rescanEvery)
		w.mustBe("data 0:data0:in-sync 1:data1:in-sync 2:data2:in-sync")

		w.unplugQuietly(set[0])
		w.pass(rescanEvery)
		w.mustBe("data 0::missing 1:data1:in-sync 2:data2:in-sync")
	})
}

// TestRescan checks that all devices are probed again when events were lost,
// and only then.
func TestRescan(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.plug(w.disk("blank"))
		w.run()
		w.pass(10 * time.Minute)

		if n := w.disks["blank"].probes; n != 1 {
			t.Errorf("%d probes of a disk that nobody touched, want 1", n)
		}

		set := w.set("data", raid.Level1, 2, 0)
		w.plug(set[0])
		w.disks["blank"].image = set[1].image // without a word
		w.events <- uevent.Event{Action: uevent.ActionRescan}
		w.pass(second)
		w.mustBe("data 0:data0:in-sync 1:blank:in-sync")
	})
}

// TestFlood: who is told of something again and again, on a machine where it takes long to
// look, decides meanwhile.
func TestFlood(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.slowly = second / 2
		w.plug(w.set("data", raid.Level1, 2, 0)...)
		w.run()

		for range 1000 {
			w.daemon.Hint()
			w.pass(second / 100)
		}

		w.mustBe("data 0:data0:in-sync 1:data1:in-sync")
		w.pass(3 * second) // what it still waits for
	})
}

// TestHang checks that a device that does not answer keeps nobody waiting for
// longer than a while, is told, and is used when it does answer.
func TestHang(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		set := w.set("data", raid.Level1, 2, 0)
		hung := w.set("web", raid.Level1, 2, 0)
		w.hang(hung[0])
		w.run()
		w.plug(hung...)
		w.plug(set...)
		w.pass(patience + second)
		w.mustBe("data 0:data0:in-sync 1:data1:in-sync")

		st, _ := w.daemon.status(t.Context())
		if len(st.Unused) != 1 || !strings.Contains(st.Unused[0].Reason, "no answer within 3s") {
			t.Errorf("unused = %+v, want web0, no answer", st.Unused)
		}

		w.hang(hung[0])
		w.pass(second)
		w.mustBe("data 0:data0:in-sync 1:data1:in-sync\nweb 0:web0:in-sync 1:web1:in-sync")
	})
}

// TestBurst checks that decisions wait for probes that are under way: half of
// what is being plugged in may look like all that is left.
func TestBurst(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		set := w.set("data", raid.Level1, 2, 0)
		w.run()
		w.plug(set...)
		w.pass(second)

		// Now each half is run without the other.
		w.unplug(set[1])
		w.pass(second)
		w.unplug(set[0])
		w.pass(second)
		w.arrays = make(map[raid.UUID]*fakeArray)
		w.plug(set[1])
		w.pass(policyDeadline)
		w.unplug(set[1])
		w.pass(second)
		w.arrays = make(map[raid.UUID]*fakeArray)
		w.mustBe("")

		w.hang(set[1])

		w.plug(set...)
		w.pass(second)
		w.mustBe("")
		w.hang(set[1])
		w.pass(second)
		w.mustBe("")

		if !strings.Contains(w.history(), "each went on without the other") {
			t.Errorf("nobody was told:\n%s", w.history())
		}

		// The operator chooses.
		if _, err := w.daemon.assemble(t.Context(), api.ChangeParameters{
			Array: "data", Devices: []string{"data1"},
		}); err != nil {
			t.Error(err)
		}

		w.pass(second)
		w.mustBe("data 0::missing 1:data1:in-sync")
	})
}

const policyDeadline = 31 * second

// TestEngineDown checks that the daemon is ready without an engine, says so, and goes on
// when there is one.
func TestEngineDown(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.down = true
		w.plug(w.set("data", raid.Level1, 2, 0)...)
		w.run()
		w.pass(10 * second)

		if !strings.Contains(strings.Join(w.states, " "), "READY=1") {
			t.Errorf("the service manager was told %q", w.states)
		}

		if len(w.warned) != 1 {
			t.Errorf("warned %q, want once", w.warned)
		}

		if _, err := w.daemon.status(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "raid-engine does not answer: ") {
			t.Errorf("status() = %v, want to be told of the engine", err)
		}

		w.mu.Lock()
		w.down = false
		w.mu.Unlock()
		w.pass(2 * second)
		w.mustBe("data 0:data0:in-sync 1:data1:in-sync")
	})
}

// TestRefusedByEngine checks that what the engine refuses is tried again, ever
// less often, and told once.
func TestRefusedByEngine(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.refuse = "no ublk driver"
		w.plug(w.set("data", raid.Level1, 2, 0)...)
		w.run()
		w.pass(10 * time.Minute)

		if w.starts < 5 || w.starts > 20 {
			t.Errorf("%d requests to start in 10 minutes", w.starts)
		}

		if n := strings.Count(w.history(), "no ublk driver"); n != 1 {
			t.Errorf("told %d times:\n%s", n, w.history())
		}

		st, _ := w.daemon.status(t.Context())
		if len(st.Arrays) != 1 || st.Arrays[0].State != "inactive" || !strings.Contains(st.Arrays[0].Reason, "ublk") {
			t.Errorf("arrays = %+v, want data, inactive", st.Arrays)
		}

		w.mu.Lock()
		w.refuse = ""
		w.mu.Unlock()
		w.pass(retryMax)
		w.mustBe("data 0:data0:in-sync 1:data1:in-sync")
	})
}

// TestQuiet checks that the journal is not told the same twice.
func TestQuiet(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		set := w.set("data", raid.Level5, 3, 1)
		junk := w.set("junk", raid.Level1, 2, 0)
		copy(junk[0].image[4096+100:], "broken")
		w.run()
		w.plug(set[0], set[3], junk[0], junk[1])
		w.pass(10 * second)
		before := w.history()
		w.pass(10 * time.Minute)

		if after := w.history(); strings.Count(after, "\n") > strings.Count(before, "\n")+2 { // a start at the deadline, and that it is degraded
			t.Errorf("journal before:\n%s\nand after:\n%s", before, after)
		}

		for _, piece := range []string{"Waiting: data waits", "DeviceIgnored: /dev/sdc", "NewDevice: /dev/sda"} {
			if strings.Count(before, piece) != 1 {
				t.Errorf("%q is not told once:\n%s", piece, before)
			}
		}
	})
}

// TestKill kills the daemon at every moment of a history, and checks that the
// end is the same as without: what is there decides, and nothing else.
func TestKill(t *testing.T) {
	history := func(kill time.Duration) (state string) {
		inWorld(t, func(t *testing.T, w *world) {
			set := w.set("data", raid.Level5, 3, 1)
			began := time.Now()

			w.run()

			step := func(act func()) {
				act()

				for range 40 {
					if time.Since(began) >= kill && kill >= 0 {
						w.killDaemon()
						w.run()

						kill = -1
					}

					// Not at rest: the daemon may be killed in the middle.
					time.Sleep(7 * time.Millisecond)
				}

				w.pass(5 * second)
			}

			step(func() { w.plug(set[0], set[1]) })
			step(func() { w.plug(set[2]) })
			step(func() { w.unplug(set[1]) })
			step(func() { w.plug(set[3]) })
			step(w.recovered)
			step(func() { w.plug(set[1]) })
			step(func() { w.unplug(set[0]) })
			w.pass(time.Minute)

			state = w.state()
		})

		return state
	}

	want := history(-1)
	if !strings.Contains(want, "data3:in-sync") || !strings.Contains(want, "missing") {
		t.Fatalf("undisturbed: %s", want)
	}

	for kill := time.Duration(0); kill < 40*second; kill += 53 * time.Millisecond {
		if got := history(kill); got != want {
			t.Fatalf("killed after %v:\n%s\nwant\n%s", kill, got, want)
		}
	}
}

// TestDeaf checks that the daemon ends when it can no longer hear of devices.
func TestDeaf(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.run()
		w.pass(second)
		close(w.events)

		if err := w.kill(); err == nil || !strings.Contains(err.Error(), "no more uevents") {
			t.Errorf("Run() = %v, want that it is deaf", err)
		}

		w.kill = nil
	})
}

// TestWatchdog checks that the service manager hears from the loop itself, and
// no more once that has ended.
func TestWatchdog(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.watchdog = second
		w.run()
		w.pass(10*second + 500*time.Millisecond)

		if n := strings.Count(strings.Join(w.states, " "), "WATCHDOG=1"); n != 10 {
			t.Errorf("%d signs of life in 10 seconds: %q", n, w.states)
		}
	})
}

// TestSuspects checks that what was wrong with a device is looked at again
// without a word, for it may pass.
func TestSuspects(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		set := w.set("data", raid.Level1, 2, 0)
		good := append([]byte(nil), set[1].image...)
		copy(set[1].image[4096+100:], "broken")
		w.plug(set...)
		w.run()
		w.pass(second)
		w.mustBe("")

		w.mu.Lock()
		copy(set[1].image, good)
		w.mu.Unlock()
		w.pass(rescanEvery)
		w.mustBe("data 0:data0:in-sync 1:data1:recovering")
	})
}

// TestArrivalsCostWhatArrives checks that disks that come one after the other are
// probed as often as something is heard of them, however many are there already.
func TestArrivalsCostWhatArrives(t *testing.T) {
	const disks = 48

	inWorld(t, func(t *testing.T, w *world) {
		w.run()

		set := w.set("data", raid.Level6, disks/2, 0)
		for i := range disks / 2 {
			for _, f := range []*fakeDisk{set[i], w.disk(fmt.Sprintf("blank%d", i))} {
				w.plug(f)
				w.hear("change", f.Path)
				w.pass(100 * time.Millisecond)
			}
		}

		w.pass(10 * second)

		for _, f := range w.disks {
			// Its arrival, and that the engine has it.
			if most := 3; f.probes < 1 || f.probes > most {
				t.Errorf("%d probes of %s, want 1 to %d", f.probes, f.Serial, most)
			}
		}

		if w.lists > 3*disks {
			t.Errorf("the devices were listed %d times for %d disks", w.lists, disks)
		}

		if w.anew != 0 {
			t.Errorf("%d times there was news of what nobody had spoken of", w.anew)
		}

		// A shelf that is switched on is one occasion.
		before := w.lists
		w.plug(w.set("shelf", raid.Level5, disks/2, 0)...)
		w.pass(10 * second)

		if n := w.lists - before; n > 5 {
			t.Errorf("the devices were listed %d times for one shelf", n)
		}

		// Whether anything is heard or not, nothing is held for known for long.
		w.pass(rescanEvery)

		if w.anew != 1 {
			t.Errorf("%d looks at everything anew within %v, want 1", w.anew, rescanEvery)
		}

		w.events <- uevent.Event{Action: uevent.ActionRescan}
		w.pass(second)

		if w.anew != 2 {
			t.Errorf("%d looks at everything anew, want another when uevents were lost", w.anew)
		}
	})
}

// TestClones checks that of a member and its copy neither is used, which is told,
// and that the array starts once one of the two is gone.
func TestClones(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		set := w.set("data", raid.Level1, 2, 0)
		clone := w.disk("clone")
		copy(clone.image, set[1].image)
		w.run()
		w.plug(set[1], clone, set[0])
		w.pass(policyDeadline)
		w.mustBe("")

		for _, what := range []string{"data", clone.Path} {
			lines, err := w.daemon.explain(t.Context(), what)
			if text := strings.Join(lines, "\n"); err != nil || !strings.Contains(text, "are copies of one member") {
				t.Errorf("explain %s = %s, %v", what, text, err)
			}
		}

		if n := strings.Count(w.history(), "are copies of one member"); n != 1 {
			t.Errorf("it was told %d times:\n%s", n, w.history())
		}

		w.unplug(clone)
		w.pass(second)
		w.mustBe("data 0:data0:in-sync 1:data1:in-sync")

		// What comes while the array runs is a copy all the same.
		w.plug(clone)
		w.pass(policyDeadline)
		w.mustBe("data 0:data0:in-sync 1:data1:in-sync")

		lines, err := w.daemon.explain(t.Context(), clone.Path)
		if text := strings.Join(lines, "\n"); err != nil || !strings.Contains(text, "it is a copy of /dev/") {
			t.Errorf("explain %s = %s, %v", clone.Path, text, err)
		}
	})
}
