package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"raid-assembler/pkg/raid"
)

// library is the file system that the roster is on, which can be there or not.
type library struct {
	t   *testing.T
	dir string
}

// keepLibrary has daemons keep a roster in a library.
func (w *world) keepLibrary() library {
	l := library{w.t, filepath.Join(w.t.TempDir(), "lib")}
	w.roster = filepath.Join(l.dir, "raid-assembler", "roster.json")
	w.copied = filepath.Join(w.t.TempDir(), "roster.json")
	l.must(os.Mkdir(l.dir, 0o755))

	return l
}

func (l library) must(err error) {
	l.t.Helper()

	if err != nil {
		l.t.Fatal(err)
	}
}

// unmount leaves nothing in its place, or a directory where it is mounted.
func (l library) unmount(point bool) {
	l.t.Helper()
	l.must(os.Rename(l.dir, l.dir+".off"))

	if point {
		l.must(os.Mkdir(l.dir, 0o755))
	}
}

func (l library) mount() {
	l.t.Helper()
	l.must(os.RemoveAll(l.dir))
	l.must(os.Rename(l.dir+".off", l.dir))
}

// copyRoster has the initramfs know what is known now.
func (w *world) copyRoster() {
	w.t.Helper()

	text, err := os.ReadFile(w.roster)
	if err == nil {
		err = os.WriteFile(w.copied, text, 0o600)
	}

	if err != nil {
		w.t.Fatal(err)
	}
}

// TestLeftBehindUnmounted checks that a half that was left behind waits before the roster can
// be read, if the initramfs has a copy; and whatever it is copied from when that is there.
func TestLeftBehindUnmounted(t *testing.T) {
	const copied = ", says the copy in the initramfs), and what is here was left behind"

	for _, tt := range []struct {
		name    string
		point   bool // where it will be mounted there is a directory
		copy    bool
		mount   time.Duration // when it is mounted; 0 for not before the deadline
		started bool
	}{
		{"with a copy", false, true, 0, false},
		{"with a copy and a mount point", true, true, 0, false},
		{"without a copy", false, false, 0, true},
		{"without a copy, with a mount point", true, false, 0, true},
		{"without a copy, and it is mounted in time", false, false, 5 * second, false},
		{"without a copy, and it is mounted in time over a directory", true, false, 5 * second, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				l := w.keepLibrary()
				set := leftBehind(t, w, "1.2")
				w.mustBe("")

				if tt.copy {
					w.copyRoster()
				}

				w.killDaemon()
				l.unmount(tt.point)

				w.ran = nil
				w.run()
				w.pass(policyDeadline - 15*second)

				if tt.mount > 0 {
					l.mount() // of which nobody tells
				}

				w.pass(10 * policyDeadline)

				if started := w.state() != ""; started != tt.started {
					t.Fatalf("it was started: %v\n%s", started, w.history())
				}

				if tt.started {
					return
				}

				told := strings.Join(w.ran, "\n")
				if !strings.Contains(told, "RAID_ALARM=waiting RAID_ALARM_STATE=on") || strings.Contains(told, copied) != tt.copy {
					t.Errorf("alarms: %s", told)
				}

				if tt.copy {
					l.mount()
					w.pass(rescanEvery)
				}

				lines, err := w.daemon.explain(t.Context(), "data")
				if text := strings.Join(lines, "\n"); err != nil || strings.Contains(text, copied) || !strings.Contains(text, "in sync were slot 0 (serial data0)") {
					t.Errorf("explain: %v, %s", err, text)
				}

				w.plug(set[0])
				w.pass(second)
				w.mustBe("data 0:data0:in-sync 1:data1:recovering")
			})
		})
	}
}

// TestCopyOutOfDate checks that a copy from before what happened since keeps nobody waiting
// for longer than the superblocks do: not the half that went on, and not the one that the
// operator went back to.
func TestCopyOutOfDate(t *testing.T) {
	const newer, older = "data 0:data0:in-sync 1::missing", "data 0::missing 1:data1:in-sync"

	t.Run("the half that went on", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			l := w.keepLibrary()
			set := leftBehind(t, w, "1.2")
			w.bootWith(set[0], set[1])
			w.mustBe(newer)
			w.plug(set[1])
			w.pass(second)
			w.recovered()
			w.pass(second)
			w.copyRoster() // with both in sync
			w.unplug(set[1])
			w.pass(second)
			w.mustBe(newer)
			l.unmount(false)
			w.bootWith(set[0], set[1])
			w.mustBe(newer)
		})
	})

	t.Run("the half that was gone back to", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			l := w.keepLibrary()
			set := leftBehind(t, w, "1.2")
			w.copyRoster() // with the other one alone in sync, which has come far

			text, err := os.ReadFile(w.copied)
			l.must(err)
			l.must(os.WriteFile(w.copied, []byte(strings.Replace(string(text), `"generation": `, `"generation": 1000`, 1)), 0o600))

			p := array("data")
			p.Force = true

			if out, err := w.daemon.assemble(t.Context(), p); err != nil {
				t.Fatalf("assemble --force = %q, %v", out.Done, err)
			}

			w.pass(second)
			w.mustBe(older)
			l.unmount(false)
			w.journal = nil
			w.bootWith(set[1], set[0])
			w.mustBe(older)

			if strings.Contains(w.history(), "gone back") {
				t.Errorf("the journal: %s", w.history())
			}
		})
	})
}

// TestMountedOver checks that what is known of arrays that are not here is neither lost nor
// made old when the file system of the roster is mounted over another one that has a roster
// as well, and taken away again.
func TestMountedOver(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		l := w.keepLibrary()
		leftBehind(t, w, "1.2")
		w.mustBe("")

		text, err := os.ReadFile(w.roster)
		l.must(err)
		w.killDaemon()
		l.unmount(true)

		// From before the array lost a member, with another one that is not known any more.
		old := strings.NewReplacer(`"generation": `, `"generation": 1, "was": `, `"seen": "2`, `"seen": "1`).Replace(string(text))
		l.must(os.Mkdir(filepath.Dir(w.roster), 0o755))
		l.must(os.WriteFile(w.roster, []byte(old), 0o600))

		w.run()
		w.pass(5 * second)
		l.mount()
		w.pass(10 * policyDeadline)
		w.mustBe("")

		// Something is new, and then the file system is taken away.
		w.plug(w.set("web", raid.Level1, 2, 0)...)
		w.pass(rescanEvery)

		now, err := os.ReadFile(w.roster)
		if err != nil || !strings.Contains(string(now), "web0") || !strings.Contains(string(now), lineOf(string(text), "generation")) {
			t.Errorf("the roster: %v\n%s\nwas\n%s", err, now, text)
		}

		l.unmount(true)
		l.must(os.Mkdir(filepath.Dir(w.roster), 0o755))
		l.must(os.WriteFile(w.roster, []byte(old), 0o600))
		w.pass(10 * policyDeadline)
		w.mustBe("web 0:web0:in-sync 1:web1:in-sync")
	})
}

// lineOf returns the first line of text that has a word in it.
func lineOf(text, word string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			return line
		}
	}

	return ""
}

// TestCopyAtFault checks that arrays start whatever is in the place of the copy, and that
// what a copy says of arrays that do not run is not written down.
func TestCopyAtFault(t *testing.T) {
	for name, put := range map[string]func(file string) error{
		"garbage":     func(file string) error { return os.WriteFile(file, []byte("garbage"), 0o600) },
		"a pipe":      func(file string) error { return syscall.Mkfifo(file, 0o600) },
		"a directory": func(file string) error { return os.Mkdir(file, 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				l := w.keepLibrary()
				l.must(put(w.copied))
				w.plug(w.set("data", raid.Level1, 2, 0)...)
				w.run()
				w.pass(second)
				w.mustBe("data 0:data0:in-sync 1:data1:in-sync")

				if len(w.warned) != 1 || !strings.Contains(w.warned[0], "what the initramfs knew of members") {
					t.Errorf("warned: %q", w.warned)
				}
			})
		})
	}

	inWorld(t, func(t *testing.T, w *world) {
		l := w.keepLibrary()
		leftBehind(t, w, "1.2")
		w.copyRoster()
		w.killDaemon()
		l.must(os.Remove(w.roster))
		w.run()
		w.pass(second)
		w.plug(w.set("web", raid.Level1, 2, 0)...)
		w.pass(second)

		text, err := os.ReadFile(w.roster)
		if err != nil || !strings.Contains(string(text), "web0") || strings.Contains(string(text), "data0") {
			t.Errorf("the roster: %v\n%s", err, text)
		}
	})
}
