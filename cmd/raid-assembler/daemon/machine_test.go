package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"raid-assembler/pkg/config"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// keepRoster has daemons keep a roster.
func (w *world) keepRoster() {
	w.roster = filepath.Join(w.t.TempDir(), "lib", "roster.json")
	if err := os.Mkdir(filepath.Dir(w.roster), 0o755); err != nil {
		w.t.Fatal(err)
	}
}

// reboot ends the daemon and the engine, and starts them.
func (w *world) reboot() {
	w.killDaemon()

	for uuid := range w.arrays {
		if err := w.stop(uuid.String()); err != nil {
			w.t.Fatal(err)
		}
	}

	w.run()
	w.pass(second)
}

// configured has the next daemon work by a configuration.
func (w *world) configured(text string) {
	w.settings = config.Read(fstest.MapFS{"etc/" + config.Name: &fstest.MapFile{Data: []byte(text)}})
	if len(w.settings.Faults) > 0 {
		w.t.Fatal(w.settings.Faults)
	}
}

// TestRenamedHost has an array of a host run on it, and then the host be called
// otherwise while foreign arrays are left alone: it is ours still, but not where nobody
// remembers, nor on another machine.
func TestRenamedHost(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(w *world)
		runs   bool
	}{
		{"renamed", func(*world) {}, true},
		{"renamed, and nobody remembers", func(w *world) { _ = os.Remove(w.roster) }, false},
		{"another machine with the roster of the first", func(w *world) { w.machine = "other" }, false},
		{"a machine without a number", func(w *world) { w.machine = "" }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.keepRoster()
				w.configured("[Assembly]\nForeign=no\n")
				w.run()
				w.plug(w.setOf("data", metadata.NewArray{Name: "data", Host: "host"}, raid.Level1, 2, 0)...)
				w.pass(second)
				w.mustBe("data 0:data0:in-sync 1:data1:in-sync")

				w.hostname = "new"
				tt.change(w)
				w.reboot()

				want := ""
				if tt.runs {
					want = "data 0:data0:in-sync 1:data1:in-sync"
				}

				w.mustBe(want)

				lines, err := w.daemon.explain(t.Context(), "data")
				if said := strings.Contains(strings.Join(lines, "\n"), `it is of the host "host"`); err != nil || said == tt.runs {
					t.Errorf("explain: %v, %q", err, lines)
				}
			})
		})
	}
}

// TestForeignStaysForeign has an array of another host run read-only, again and again:
// that it ran does not make it ours. Where foreign arrays run as our own it does.
func TestForeignStaysForeign(t *testing.T) {
	for foreign, ours := range map[string]bool{"read-only": false, "yes": true} {
		inWorld(t, func(t *testing.T, w *world) {
			w.keepRoster()
			w.configured("[Assembly]\nForeign=" + foreign + "\n")
			w.run()
			w.plug(w.setOf("data", metadata.NewArray{Name: "data", Host: "there"}, raid.Level1, 2, 0)...)
			w.pass(second)

			w.configured("[Assembly]\nForeign=read-only\n")
			w.reboot()

			for _, a := range w.arrays {
				if a.ReadOnly == ours {
					t.Errorf("after Foreign=%s it is started read-only: %v", foreign, a.ReadOnly)
				}
			}

			if len(w.arrays) != 1 {
				t.Errorf("%d arrays run", len(w.arrays))
			}
		})
	}
}

// TestNamesOfForeign plugs in an array of this host and one of another that has the same
// name, in every order: each runs, and ours has the name if it is known to be ours when
// the other one comes.
func TestNamesOfForeign(t *testing.T) {
	const (
		ours, suffixed     = "data 0:z0:in-sync 1:z1:in-sync", "data_7a000000 0:z0:in-sync 1:z1:in-sync"
		theirs, theirsTail = "data 0:a0:in-sync 1:a1:in-sync", "data_61000000 0:a0:in-sync 1:a1:in-sync"
	)

	for _, tt := range []struct {
		name  string
		known bool // ours ran here before
		order string
		wantO string
		wantF string
	}{
		{"at once", false, "=", ours, theirsTail},
		{"ours first", false, "of", ours, theirsTail},
		{"theirs first", false, "fo", suffixed, theirs},
		{"theirs first, and ours is known", true, "fo", ours, theirsTail},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.keepRoster()
				w.run()

				// Theirs has the lower UUID.
				own := w.setOf("z", metadata.NewArray{Name: "data", Host: "host"}, raid.Level1, 2, 0)
				foreign := w.setOf("a", metadata.NewArray{Name: "data", Host: "there"}, raid.Level1, 2, 0)

				if tt.known {
					w.plug(own...)
					w.pass(second)

					for _, f := range own {
						w.unplugQuietly(f)
					}

					w.reboot()
				}

				switch tt.order {
				case "=":
					w.plug(append(slices.Clone(foreign), own...)...)
				case "of":
					w.plug(own...)
					w.pass(second)
					w.plug(foreign...)
				case "fo":
					w.plug(foreign...)
					w.pass(second)
					w.plug(own...)
				}

				w.pass(second)

				if got := w.state(); !strings.Contains(got, tt.wantO) || !strings.Contains(got, tt.wantF) {
					t.Errorf("state:\n%s\nwant:\n%s\n%s\n%s", got, tt.wantO, tt.wantF, w.history())
				}

				if strings.Contains(w.history(), "ArrayRefused") {
					t.Errorf("the engine refused a name:\n%s", w.history())
				}

				// The names are the same when all is there at once, later.
				w.reboot()

				if got := w.state(); tt.known && (!strings.Contains(got, tt.wantO) || !strings.Contains(got, tt.wantF)) {
					t.Errorf("after a boot:\n%s\nwant:\n%s\n%s", got, tt.wantO, tt.wantF)
				}
			})
		})
	}
}

// TestNamesOfOurs plugs in two arrays of this host that have one name, one after the other,
// and then in the other order: each has the name that it had.
func TestNamesOfOurs(t *testing.T) {
	for _, order := range []string{"az", "za"} {
		inWorld(t, func(t *testing.T, w *world) {
			w.keepRoster()
			w.run()

			sets := make(map[byte][]*fakeDisk)
			for _, letter := range []byte("az") {
				array := metadata.NewArray{Name: "data", Host: "host"}
				sets[letter] = w.setOf(string(letter), array, raid.Level1, 2, 0)
			}

			come := func(letter byte, want ...string) {
				w.plug(sets[letter]...)
				w.pass(second)

				for _, name := range want {
					if !strings.Contains(w.state(), name) {
						t.Errorf("%s: %s is not there:\n%s\n%s", order, name, w.state(), w.history())
					}
				}
			}

			first, last := order[0], order[1]
			one, two := fmt.Sprintf("data 0:%c0", first), fmt.Sprintf("data_%x000000 0:%c0", last, last)

			come(first, one)
			come(last, one, two)

			for _, f := range slices.Concat(sets['a'], sets['z']) {
				w.unplugQuietly(f)
			}

			w.reboot()
			come(last, two)
			come(first, one, two)
		})
	}
}

func TestMachine(t *testing.T) {
	file := func(text string) fstest.MapFS {
		return fstest.MapFS{"etc/machine-id": &fstest.MapFile{Data: []byte(text)}}
	}

	one := Machine(file("0123456789abcdef0123456789abcdef\n"))
	if len(one) != 32 || strings.Contains(one, "0123456789") || one == Machine(file("0123456789abcdef0123456789abcdee\n")) {
		t.Errorf("Machine() = %q", one)
	}

	for _, text := range []string{"", "uninitialized\n", "0123"} {
		if got := Machine(file(text)); got != "" {
			t.Errorf("Machine(%q) = %q", text, got)
		}
	}

	if got := Machine(fstest.MapFS{}); got != "" {
		t.Errorf("without a file it is %q", got)
	}
}
