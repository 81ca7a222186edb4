package daemon

import (
	"bytes"
	"context"
	"flag"
	"os"
	"reflect"
	"testing"
	"time"

	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
	"raid-assembler/pkg/recording"
)

var update = flag.Bool("update", false, "write the recording that the transcripts of the program use")

// recorded returns what the daemon has recorded, as the program would.
func (w *world) recorded() []recording.Entry {
	w.t.Helper()

	var entries []recording.Entry

	for next := int64(0); next >= 0; {
		var packed [][]byte

		err := w.daemon.do(context.Background(), func() { packed, next, _ = w.daemon.recording.From(next, 1) })
		if err != nil {
			w.t.Fatal(err)
		}

		for _, p := range packed {
			e, err := recording.Unpack(p)
			if err != nil {
				w.t.Fatal(err)
			}

			entries = append(entries, e)
		}
	}

	return entries
}

// TestRecord has an array wait for a member and start at the deadline, a spare come
// and a member go, and replays what the daemon recorded of it.
func TestRecord(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.run()

		set := w.set("data", raid.Level5, 3, 1)
		w.plug(set[0], set[1])
		w.pass(policy.DefaultDeadline / 2)
		w.plug(w.set("other", raid.Level1, 2, 0)...)
		w.pass(policy.DefaultDeadline)
		w.plug(set[3])
		w.pass(time.Hour)
		w.unplug(set[3])
		w.pass(time.Minute)

		entries := w.recorded()
		if n := len(entries); n < 5 || n > 30 {
			t.Errorf("%d entries for a handful of events and an hour", n)
		}

		started := false

		for i, e := range entries {
			ds, differences := e.State.Replay()
			for _, difference := range differences {
				t.Errorf("entry %d: %s", i, difference)
			}

			for _, d := range ds {
				started = started || d.Action == policy.Start && d.Degraded
			}
		}

		if !started {
			t.Error("the recording has no start at the deadline")
		}

		var b bytes.Buffer

		header := recording.Header{Version: recording.Version, Program: "raid-assembler test"}
		if err := recording.Write(&b, header, entries); err != nil {
			t.Fatal(err)
		}

		_, read, err := recording.Read(&b)
		if err != nil || !reflect.DeepEqual(read, entries) {
			t.Errorf("what is read is not what was written: %v", err)
		}

		if *update {
			_ = recording.Write(&b, header, entries)
			if err := os.WriteFile("../testdata/recording.jsonl", b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestSnapshot looks once, as the program does without a daemon, and compares that with
// what a daemon sees. Nothing is done.
func TestSnapshot(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		set := w.set("data", raid.Level5, 3, 0)
		w.plug(set[0], set[1])

		hung := w.set("hung", raid.Level1, 2, 0)
		w.plug(hung...)
		w.hang(hung[1])

		state, err := snapshot(t.Context(), Config{Policy: policy.DefaultConfig(), Host: w, Engine: w, HeldDir: w.heldDir})
		if err != nil {
			t.Fatal(err)
		}

		w.run()
		w.pass(2 * patience)

		seen := w.recorded()[0].State
		if !reflect.DeepEqual(seen.View.Devices, state.View.Devices) {
			t.Errorf("devices are\n%+v, a daemon sees\n%+v", state.View.Devices, seen.View.Devices)
		}

		if w.starts != 0 || len(state.Decisions) == 0 {
			t.Errorf("%d starts, decisions %v", w.starts, state.Decisions)
		}
	})
}
