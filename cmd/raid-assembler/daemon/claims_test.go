package daemon

import (
	"slices"
	"testing"

	"raid-assembler/pkg/raid"
)

// TestProtected has the guard protect what the engine has, and what it had while it does not
// answer.
func TestProtected(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		data := w.set("data", raid.Level1, 2, 0)
		w.plug(data...)
		w.plug(w.disk("other"))
		w.run()
		w.pass(second)

		members := []string{data[0].Path, data[1].Path}
		if !slices.Equal(w.protected, members) {
			t.Errorf("protected are %q, want %q", w.protected, members)
		}

		w.locked(func() { w.down = true })
		w.daemon.Hint()
		w.pass(second)

		if !slices.Equal(w.protected, members) {
			t.Errorf("while the engine does not answer %q are protected, want %q", w.protected, members)
		}

		w.locked(func() { w.down, w.refuse = false, "it does not want to" })

		if err := w.stop(raid.UUID{'d'}.String()); err != nil {
			t.Fatal(err)
		}

		w.daemon.Hint()
		w.pass(second)

		if len(w.protected) > 0 {
			t.Errorf("protected are %q when the array has stopped, want none", w.protected)
		}
	})
}

// TestPartitionsComeBack has the kernel look for the partitions of members that were let
// go of, if they are whole disks, and not of those whose engine only does not answer.
func TestPartitionsComeBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		data, web := w.set("data", raid.Level1, 2, 0), w.set("web", raid.Level1, 2, 0)
		data[1].Whole = false
		w.plug(data...)
		w.plug(web...)
		w.run()
		w.pass(second)

		w.locked(func() { w.down = true })
		w.pass(second)
		w.locked(func() { w.down = false })
		w.pass(second)

		if w.partitioned != nil {
			t.Errorf("the kernel was to look for partitions of members of arrays that run: %q", w.partitioned)
		}

		if err := w.stop(raid.UUID{'d'}.String()); err != nil {
			t.Fatal(err)
		}

		w.daemon.Hint()
		w.pass(second)

		if !slices.Equal(w.partitioned, []string{"data0"}) {
			t.Errorf("the kernel was to look for partitions of %q, want data0", w.partitioned)
		}
	})
}
