package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/raid"
	"raid-assembler/pkg/roster"
)

// TestRoster checks that a member that does not come is named by what the last
// run knew of it, by whom and until when it is waited for, and that an array of
// which nothing is here can be asked about.
func TestRoster(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.roster = filepath.Join(t.TempDir(), "lib", "roster.json")
		if err := os.Mkdir(filepath.Dir(w.roster), 0o755); err != nil {
			t.Fatal(err)
		}

		data := w.set("data", raid.Level5, 3, 0)
		data[1].Model, data[1].WWN, data[1].Port = "ACME 12", "0x5000c500a1b2c3d4", "pci-1-lun-1"

		w.run()
		w.plug(data...)
		w.pass(second)
		w.mustBe("data 0:data0:in-sync 1:data1:in-sync 2:data2:in-sync")
		w.killDaemon()

		for uuid := range w.arrays { // and so does the engine
			if err := w.stop(uuid.String()); err != nil {
				t.Fatal(err)
			}
		}

		w.unplugQuietly(data[1])
		w.run()
		w.pass(10 * second)

		const who = "slot 1 (serial data1, ACME 12, WWN 0x5000c500a1b2c3d4, last at pci-1-lun-1) is missing"

		st, err := w.daemon.status(t.Context())
		if err != nil || len(st.Waiting) != 1 || !strings.Contains(st.Waiting[0].Reason, who) {
			t.Errorf("status %+v, %v, want that %s", st, err, who)
		}

		if len(st.Absent) != 1 || st.Absent[0].Serial != "data1" || st.Absent[0].Slot != 1 || st.Absent[0].Port != "pci-1-lun-1" {
			t.Errorf("absent %+v, want data1", st.Absent)
		}

		explained := func(pieces ...string) {
			t.Helper()

			lines, err := w.daemon.explain(t.Context(), "data")
			for _, piece := range pieces {
				if text := strings.Join(lines, "\n"); err != nil || !strings.Contains(text, piece) {
					t.Errorf("explain: %v\n%s\nwant ... %s ...", err, text, piece)
				}
			}
		}
		explained("It waits until ", ", for 20s more.", "Slot 1 was last held by the disk with serial data1, ACME 12", who)

		w.pass(21 * second)
		w.mustBe("data 0:data0:in-sync 1::missing 2:data2:in-sync")
		explained("Slot 1 was last held by the disk with serial data1, ACME 12")

		if st, _ = w.daemon.status(t.Context()); len(st.Absent) != 1 || st.Absent[0].Array != "data" {
			t.Errorf("absent of what runs: %+v, want data1", st.Absent)
		}

		if err := w.stop(st.Arrays[0].UUID); err != nil {
			t.Fatal(err)
		}

		w.unplug(data[0])
		w.unplug(data[2])
		w.pass(second)
		explained("No member of it is here; it last ran on", "Slot 2 was last held by the disk with serial data2")
	})
}

// TestRosterUnwritable checks that it is said once if the roster cannot be written, and that it
// is written when it can be.
func TestRosterUnwritable(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.keepRoster()
		w.run()
		w.plug(w.set("data", raid.Level1, 2, 0)...)
		w.pass(second)

		if err := os.Mkdir(w.roster+".new", 0o755); err != nil {
			t.Fatal(err)
		}

		w.plug(w.set("web", raid.Level1, 2, 0)...)
		w.pass(10 * rescanEvery)

		if len(w.warned) != 1 || !strings.Contains(w.warned[0], "is left out: open ") {
			t.Errorf("warned %d times: %q", len(w.warned), w.warned[:min(1, len(w.warned))])
		}

		if err := os.Remove(w.roster + ".new"); err != nil {
			t.Fatal(err)
		}

		w.pass(rescanEvery)

		if text, err := os.ReadFile(w.roster); err != nil || !strings.Contains(string(text), "web1") {
			t.Errorf("the roster: %v\n%s", err, text)
		}
	})
}

// TestRosterAnother checks that another member that takes a slot is the one that
// is known of from then on.
func TestRosterAnother(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.roster = filepath.Join(t.TempDir(), "roster.json")
		data := w.set("data", raid.Level1, 2, 1)
		w.run()
		w.plug(data...)
		w.pass(second)
		w.unplug(data[1])
		w.pass(second)
		w.recovered()
		w.daemon.Hint()
		w.pass(second)

		text, err := os.ReadFile(w.roster)
		if err != nil {
			t.Fatal(err)
		}

		r, err := roster.Decode(text)
		if err != nil || r.FindNamed("data").Member(1).Serial != "data2" {
			t.Errorf("%s: %v, want data2 in slot 1", text, err)
		}
	})
}

// TestRosterAtFault checks that arrays start whatever is wrong with the file: it
// is corrupt, or its file system is not there yet, in which case what it says is
// known when it is.
func TestRosterAtFault(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		dir := filepath.Join(t.TempDir(), "var")
		w.roster = filepath.Join(dir, "lib", "roster.json")
		w.plug(w.set("data", raid.Level1, 2, 0)...)
		w.run()
		w.pass(second)
		w.mustBe("data 0:data0:in-sync 1:data1:in-sync")

		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s was made: it is where something will be mounted", dir)
		}

		// It is mounted, and knows an array.
		before := roster.Roster{}
		before.Note(roster.Array{
			UUID: raid.UUID{'w'}, Name: "web", Seen: time.Now(), Members: []roster.Member{{Serial: "web0"}},
		})

		text, err := before.Encode()
		if err != nil {
			t.Fatal(err)
		}

		for _, d := range []string{dir, filepath.Dir(w.roster)} {
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}

		if err := os.WriteFile(w.roster, text, 0o600); err != nil {
			t.Fatal(err)
		}

		w.pass(rescanEvery)

		if text, err = os.ReadFile(w.roster); err != nil || !strings.Contains(string(text), "web0") || !strings.Contains(string(text), "data1") {
			t.Errorf("the roster: %v\n%s\nwant both arrays", err, text)
		}

		if len(w.warned) > 0 {
			t.Errorf("warned: %q", w.warned)
		}

		// Something overwrites it.
		w.killDaemon()

		if err := os.WriteFile(w.roster, text[:len(text)/2], 0o600); err != nil {
			t.Fatal(err)
		}

		w.run()
		w.pass(rescanEvery)

		if len(w.warned) != 1 || !strings.Contains(w.warned[0], "is left out: roster: unexpected end") {
			t.Errorf("warned: %q, want once that it cannot be read", w.warned)
		}

		if text, err = os.ReadFile(w.roster); err != nil || !strings.Contains(string(text), "data1") {
			t.Errorf("the roster: %v\n%s\nwant it anew", err, text)
		}
	})
}
