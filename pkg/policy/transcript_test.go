package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/raid"

	"github.com/cockroachdb/datadriven"
)

// TestTranscripts replays testdata/*.txt in a [world]: devices come and go,
// time passes, the array is written to, and each command prints what was
// decided until nothing was left to do, then what the engine has. Rewrite with
// go test -rewrite and read the difference.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var w *world

		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "array" {
				var level, disks int

				d.ScanArgs(t, "level", &level)
				d.ScanArgs(t, "disks", &disks)
				w = newWorld(draw(t, array(raid.Level(level), disks), d.Input))

				return ""
			}

			if d.Cmd == "explain" {
				return strings.Join(Explain(w.view(), DefaultConfig(), testArray), "\n") + "\n"
			}

			if d.Cmd == "choose" {
				return choosing(w, d) + settle(t, w)
			}

			command(t, w, d)

			return settle(t, w)
		})
	})
}

// choosing has the operator choose the disks named, by force if that is said.
func choosing(w *world, d *datadriven.TestData) string {
	var (
		b      strings.Builder
		chosen []string
	)

	for _, arg := range d.CmdArgs {
		if arg.Key == "force" {
			w.forced = true
		} else {
			chosen = append(chosen, "/dev/"+arg.Key)
		}
	}

	ds := Choose(w.view(), DefaultConfig(), testArray, chosen)
	w.forced = false

	for _, dec := range ds {
		fmt.Fprintln(&b, brief(dec))
	}

	w.carryOut(ds)

	return b.String()
}

func command(t *testing.T, w *world, d *datadriven.TestData) {
	t.Helper()

	switch d.Cmd {
	case "plug", "unplug", "shun":
		for _, arg := range d.CmdArgs {
			dk := w.disks["/dev/"+arg.Key]
			if dk == nil {
				d.Fatalf(t, "no disk %s", arg.Key)
			}

			if d.Cmd == "shun" {
				dk.Shunned = "it was removed by hand"
			} else {
				w.plug(dk, d.Cmd == "plug")
			}
		}
	case "pass":
		dt, err := time.ParseDuration(d.CmdArgs[0].Key)
		if err != nil {
			d.Fatalf(t, "pass: %v", err)
		}

		w.pass(dt)
	case "remember":
		w.remembers = true
	case "boot": // of the machine after a crash, with the disks that are named
		w.running, w.waited = nil, 0
		for path, dk := range w.disks {
			w.plug(dk, d.HasArg(strings.TrimPrefix(path, "/dev/")))
		}
	case "restore": // disks as they were at the start, before the machine boots
		w.running, w.waited = nil, 0
		for _, arg := range d.CmdArgs {
			w.disks["/dev/"+arg.Key].Device = w.made["/dev/"+arg.Key]
		}
	case "write":
		w.write()
	case "recovered":
		w.recovered()
	case "restart": // of whoever asks policy: the clock starts anew
		w.waited = 0
	case "crash": // of the machine
		w.running, w.waited = nil, 0
	case "stop":
		w.stop()
		w.held = true
	case "assemble":
		w.held, w.forced = false, d.HasArg("force")
	default:
		d.Fatalf(t, "unknown command %q", d.Cmd)
	}
}

// settle decides and carries out until there is nothing to carry out.
func settle(t *testing.T, w *world) string {
	t.Helper()

	var b strings.Builder

	for range 10 {
		ds := Decide(w.view(), DefaultConfig())
		busy := false

		for _, d := range ds {
			busy = busy || d.Action != LeaveAlone && d.Action != Wait && d.Action != Refuse

			fmt.Fprintln(&b, brief(d))
		}

		if !busy {
			w.note()

			return b.String() + w.describe()
		}

		w.carryOut(ds)
	}

	t.Fatalf("no end of decisions:\n%s", b.String())

	return ""
}

func brief(d Decision) string {
	var b strings.Builder

	b.WriteString(d.Action.String())

	if d.Device != "" {
		fmt.Fprintf(&b, " %s", strings.TrimPrefix(d.Device, "/dev/"))
	}

	if len(d.Members) > 0 {
		fmt.Fprintf(&b, " [%s]", use(d))
	}

	if d.Action == Wait && d.Left < 0 {
		b.WriteString(" left=never")
	} else if d.Action == Wait {
		fmt.Fprintf(&b, " left=%v", d.Left)
	}

	fmt.Fprintf(&b, ": %s", d.Reason)

	return b.String()
}
