package daemon

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// TestFailing checks that a member is replaced that fails too often within an hour, and
// that one is not that fails as often in a day, or did before the daemon was there.
func TestFailing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.settings = parsed(t, "[Array data]\nReplaceErrors=10\n")
		errors := 50
		w.tweak = func(a *api.Array) {
			a.Members[1].Errors = errors

			if len(w.asked) > 0 { // it is being done
				a.Members[2].State, a.Members[2].Slot, a.Members[2].Replaces = string(raid.Recovering), a.Members[1].Slot, true
			}
		}

		w.plug(w.set("data", raid.Level1, 2, 1)...)
		w.run()
		w.pass(5 * time.Minute)

		for range 24 {
			w.mu.Lock()
			errors += 10
			w.mu.Unlock()
			w.pass(61 * time.Minute)
		}

		if len(w.asked) != 0 {
			t.Fatalf("the engine was asked %q", w.asked)
		}

		w.mu.Lock()
		errors += 11
		w.mu.Unlock()
		w.pass(rescanEvery + second)

		const want = "Replace {Array:64000000:00000000:00000000:00000000 Device:/dev/sdb With: " +
			"Reason:more than 10 of its operations failed within an hour: it is copied to a spare while it can be}"
		if len(w.asked) == 0 || w.asked[0] != want {
			t.Errorf("the engine was asked %q, want %q", w.asked, want)
		}
	})
}

// failing is a world with a RAID1 whose slot 1 fails too often, and what is asked for.
func failing(t *testing.T, w *world) []*fakeDisk {
	t.Helper()

	w.settings = parsed(t, "[Array data]\nReplaceErrors=10\n")
	w.roster = filepath.Join(t.TempDir(), "roster.json")
	errors := 0
	w.tweak = func(a *api.Array) {
		for i := range a.Members {
			if a.Members[i].Serial == "data1" && a.Members[i].State == string(raid.InSync) {
				a.Members[i].Errors = errors
			}
		}
	}

	data := w.set("data", raid.Level1, 2, 1)
	w.plug(data...)
	w.run()
	w.pass(second)
	w.mu.Lock()
	errors = 11
	w.mu.Unlock()
	w.daemon.Hint()
	w.pass(second)

	return data
}

// replaceAsked does what the engine was asked for.
func (w *world) replaceAsked() {
	w.mu.Lock()
	defer w.mu.Unlock()

	for _, a := range w.arrays {
		old := slices.IndexFunc(a.members, func(m *fakeMember) bool { return m.record.Slot == 1 })
		spare := slices.IndexFunc(a.members, func(m *fakeMember) bool { return m.record.State == raid.Spare })
		a.members[old].record, a.members[spare].record = metadata.MemberRecord{State: raid.Faulty, Slot: raid.NoSlot},
			metadata.MemberRecord{State: raid.InSync, Slot: 1}
		a.write()
	}
}

// TestFailingAgain checks that an engine that refuses, or that does nothing, is asked
// ever less often, and that this is told.
func TestFailingAgain(t *testing.T) {
	for name, answer := range map[string]error{"does nothing": nil, "refuses": refused("not now")} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.answer = answer
				failing(t, w)

				// It keeps failing, or it would not be asked for any more after an hour.
				tweak, more := w.tweak, 0
				w.tweak = func(a *api.Array) {
					tweak(a)

					a.Members[1].Errors += more
				}

				var asked []int

				for range 200 {
					asked = append(asked, len(w.asked))
					w.mu.Lock()
					more++
					w.mu.Unlock()
					w.daemon.Hint()
					w.pass(time.Minute)
				}

				for minute, want := range map[int]int{0: 1, 2: 2, 4: 3, 8: 4, 16: 5, 32: 6, 62: 6, 64: 7, 122: 7, 124: 8, 199: 9} {
					if asked[minute] != want {
						t.Errorf("after %d minutes it was asked %d times, want %d", minute, asked[minute], want)
					}
				}

				const told = "/dev/sdb (serial data1) of data is a member still: its replacement is asked for again, and no more for 2m0s"
				if !strings.Contains(w.history(), told) {
					t.Errorf("not told %q:\n%s", told, w.history())
				}
			})
		})
	}
}

// TestWorn checks that a member that was replaced is let go of, and used no more:
// neither when its slot is vacant again, nor by the next daemon, nor when it is plugged
// in anew, but once the operator adds it.
func TestWorn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		data := failing(t, w)

		if len(w.asked) != 1 || !strings.HasPrefix(w.asked[0], "Replace ") {
			t.Fatalf("the engine was asked %q", w.asked)
		}

		// It goes on for longer than whoever asked waits.
		w.replaceAsked()
		w.daemon.Hint()
		w.pass(second)
		w.mustBe("data 0:data0:in-sync 1:data2:in-sync")

		const why = "it is worn, and a spare was to take its place: more than 10 of its operations failed within an hour, on "
		told := func() {
			t.Helper()

			st, err := w.daemon.status(t.Context())
			if err != nil || len(st.Unused) != 1 || !strings.HasPrefix(st.Unused[0].Reason, why) {
				t.Errorf("status %+v, %v, want %s", st.Unused, err, why)
			}
		}
		told()

		w.unplug(data[2])
		w.pass(second)
		w.mustBe("data 0:data0:in-sync 1::missing")
		told()

		w.killDaemon()
		w.run()
		w.pass(5 * second)
		w.mustBe("data 0:data0:in-sync 1::missing")
		told()

		w.unplug(data[1])
		w.pass(second)
		w.plug(data[1])
		w.pass(second)
		w.mustBe("data 0:data0:in-sync 1::missing")
		told()

		if _, err := w.daemon.add(t.Context(), api.ChangeParameters{Array: "data", Devices: []string{"data1"}}); err != nil {
			t.Fatal(err)
		}

		w.pass(second)
		w.mustBe("data 0:data0:in-sync 1:data1:recovering")
		w.unplug(data[1])
		w.pass(second)
		w.plug(data[1])
		w.pass(second)
		w.mustBe("data 0:data0:in-sync 1:data1:recovering")
	})
}

// TestNotWorn checks that a member is none that is worn if nothing comes of its
// replacement.
func TestNotWorn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		data := failing(t, w)
		w.pass(3 * healthWindow)
		w.unplug(data[2])
		w.unplug(data[1])
		w.pass(second)
		w.plug(data[1])
		w.pass(second)
		w.mustBe("data 0:data0:in-sync 1:data1:recovering")
	})
}

// TestFailingAnew checks that counts begin anew with the array.
func TestFailingAnew(t *testing.T) {
	var h health

	at := time.Unix(1e9, 0)
	note := func(n int) int {
		h.note([]api.Array{{UUID: "u", Members: []api.Member{{Device: "/dev/sda", Errors: n}, {}}}}, at)
		at = at.Add(time.Minute)

		errors, _ := h.recent("u /dev/sda ")

		return errors
	}

	for i, step := range [][2]int{{5, 0}, {7, 2}, {3, 3}, {4, 4}} {
		if got := note(step[0]); got != step[1] {
			t.Errorf("%d: after %d errors %d are recent, want %d", i, step[0], got, step[1])
		}
	}

	if errors, _ := h.recent("another"); errors != 0 {
		t.Errorf("%d errors of a member that nobody knows", errors)
	}
}
