package roster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/raid"

	"github.com/google/go-cmp/cmp"
)

var start = time.Unix(1e9, 0).UTC()

func data(after time.Duration, serials ...string) Array {
	a := Array{UUID: raid.UUID{1}, Name: "data", Metadata: "1.2", Generation: 7, Seen: start.Add(after)}

	for slot, serial := range serials {
		a.Members = append(a.Members, Member{Slot: raid.Slot(slot), Serial: serial, Seen: a.Seen})
	}

	return a
}

// brief is the slots of the array of data.
func brief(r *Roster) string {
	var words []string

	for _, m := range r.Find(raid.UUID{1}).Members {
		words = append(words, fmt.Sprintf("%d:%s@%v", m.Slot, m.Serial, m.Seen.Sub(start)))
	}

	return strings.Join(words, " ")
}

// TestNote checks what is worth writing down, and that a member that is gone is
// known until another has its slot.
func TestNote(t *testing.T) {
	var r Roster

	for _, step := range []struct {
		array Array
		news  bool
		want  string
	}{
		{data(0, "a", "b", "c"), true, "0:a@0s 1:b@0s 2:c@0s"},
		{data(time.Minute, "a", "b", "c"), false, "0:a@0s 1:b@0s 2:c@0s"},
		{data(time.Hour, "a", "", "c"), true, "0:a@1h0m0s 1:b@0s 2:c@1h0m0s"},
		{data(time.Hour+time.Minute, "a", "x", "c"), true, "0:a@1h1m0s 1:x@1h1m0s 2:c@1h1m0s"},
		{data(time.Hour+time.Minute, "x", "a", "c", "d"), true, "0:x@1h1m0s 1:a@1h1m0s 2:c@1h1m0s 3:d@1h1m0s"},
	} {
		if news := r.Note(step.array); news != step.news || brief(&r) != step.want {
			t.Errorf("Note(%+v) = %v, %s, want %v, %s", step.array, news, brief(&r), step.news, step.want)
		}
	}

	moved := data(time.Hour+time.Minute, "x")
	moved.Machine = "another"

	if !r.Note(moved) || r.Note(moved) || r.Find(moved.UUID).Machine != "another" {
		t.Error("another machine is not noted once")
	}

	renamed := data(time.Hour+time.Minute, "x")
	renamed.Name = "other"

	if !r.Note(renamed) || r.FindNamed("other") == nil || r.FindNamed("data") != nil {
		t.Errorf("after a new name: %+v", r)
	}
}

// TestNewest checks who is known to be as new as the array was.
func TestNewest(t *testing.T) {
	var r Roster

	at := func(generation uint64, serials ...string) Array {
		a := data(0, serials...)
		a.Generation = generation

		return a
	}

	for _, step := range []struct {
		what  string
		array Array
		news  bool
		want  string
	}{
		{"nobody can tell", at(0, "a", "b"), true, "at 0:"},
		{"the first time", at(7, "a", "b"), true, "at 7: a b"},
		{"it goes on", at(9, "a", "b"), false, "at 7: a b"},
		{"one is lost, and that is being recorded", at(0, "a"), false, "at 7: a b"},
		{"that is recorded", at(11, "a"), true, "at 11: a"},
		{"another comes, and that is not recorded", at(0, "a", "c"), true, "at 11: a"},
		{"that is recorded", at(13, "a", "c"), true, "at 13: a c"},
		{"both go, and a third has one's slot", at(13, "d"), true, "at 13: d"},
	} {
		if news := r.Note(step.array); news != step.news || newest(&r) != step.want {
			t.Errorf("%s: Note() = %v, %s, want %v, %s", step.what, news, newest(&r), step.news, step.want)
		}
	}

	for _, step := range []struct {
		to, from uint64
		want     string
	}{{14, 0, "at 13: d"}, {13, 0, "at 13: d"}, {0, 0, "at 13: d"}, {12, 13, "at 0:"}, {11, 0, "at 0:"}} {
		if from := r.GoBack(raid.UUID{1}, step.to); from != step.from || newest(&r) != step.want {
			t.Errorf("GoBack(%d) = %d, %s, want %d, %s", step.to, from, newest(&r), step.from, step.want)
		}
	}

	if r.GoBack(raid.UUID{2}, 1) != 0 {
		t.Error("an array that is not known has gone back")
	}
}

func newest(r *Roster) string {
	a := r.Find(raid.UUID{1})
	text := fmt.Sprintf("at %d:", a.Generation)

	for _, m := range a.Newest() {
		text += " " + m.Serial
	}

	return text
}

// TestMergeNewest checks that who was newest is taken from what was written down if
// nothing is known of it, for the disks that have their slots still.
func TestMergeNewest(t *testing.T) {
	for now, want := range map[uint64]string{0: "at 7: a d", 9: "at 9: a x"} {
		var r Roster

		a := data(time.Hour, "a", "x", "")
		a.Generation = now
		r.Note(a)
		before := Roster{}
		before.Note(data(0, "a", "b", "d"))
		r.Merge(before)

		if got := newest(&r); got != want {
			t.Errorf("merged into one at %d: %s, want %s", now, got, want)
		}
	}
}

// TestMerge checks that what was written down fills in what is not known, and
// changes nothing else.
func TestMerge(t *testing.T) {
	var now Roster

	now.Note(data(time.Hour, "a", "", "x"))

	other := data(0, "o")
	other.UUID, other.Name = raid.UUID{2}, "other"
	now.Merge(Roster{Arrays: []Array{other, data(0, "a", "b", "c")}})

	if got := brief(&now); got != "0:a@1h0m0s 1:b@0s 2:x@1h0m0s" || now.FindNamed("other") == nil || len(now.Arrays) != 2 {
		t.Errorf("merged: %s, %+v", got, now)
	}
}

// TestMergeYounger checks that of what was written down in several places the youngest
// holds, in whatever order they are read, and that a copy has no say beside it.
func TestMergeYounger(t *testing.T) {
	at := func(after time.Duration, generation uint64, serials ...string) Roster {
		a := data(after, serials...)
		a.Generation = generation

		var r Roster

		r.Note(a)
		r.WearOut(worn(fmt.Sprint("worn", generation), after))

		return r
	}
	copied := func(r Roster) Roster {
		r.MarkCopied()

		return r
	}

	for _, tt := range []struct {
		what    string
		rosters []Roster
		copied  bool
		want    string
	}{
		{"a copy", []Roster{copied(at(0, 7, "a", "b"))}, true, "at 7: a b worn7"},
		{"it alone, as there is no file", []Roster{copied(at(0, 7, "a", "b")), {}}, true, "at 7: a b worn7"},
		{"what it was copied from", []Roster{copied(at(0, 7, "a", "b")), at(0, 7, "a", "b")}, false, "at 7: a b worn7"},
		{"that, later", []Roster{copied(at(0, 7, "a", "b")), at(time.Hour, 9, "a")}, false, "at 9: a worn9"},
		{"that, after it went back", []Roster{copied(at(0, 7, "a", "b")), at(time.Hour, 5, "b")}, false, "at 5: b worn5"},
		{"another file first", []Roster{copied(at(time.Hour, 7, "a")), at(0, 5, "a", "b"), at(2*time.Hour, 9, "b")}, false, "at 9: b worn5 worn9"},
		{"another file last", []Roster{at(2*time.Hour, 9, "a"), at(0, 5, "a", "b")}, false, "at 9: a worn5 worn9"},
	} {
		var r Roster
		for _, other := range tt.rosters {
			r.Merge(other)
		}

		got := newest(&r)
		for _, w := range r.Spent {
			got += " " + w.Serial
		}

		if got != tt.want || r.Arrays[0].Copied != tt.copied {
			t.Errorf("%s: %s, copied %v, want %s", tt.what, got, r.Arrays[0].Copied, tt.want)
		}

		text, err := r.Encode()
		if written, bad := Decode(text); err != nil || bad != nil || (len(written.Arrays)+len(written.Spent) == 0) != tt.copied {
			t.Errorf("%s: written down: %v, %v, %s", tt.what, err, bad, text)
		}
	}
}

// TestCopyRuns checks that what a copy says of an array is over once that runs, and has
// not gone back by it.
func TestCopyRuns(t *testing.T) {
	for generation, want := range map[uint64]string{0: "at 8: a b", 5: "at 5: a"} {
		var r Roster

		r.Note(data(0, "a", "c"))
		r.MarkCopied()

		if from := r.GoBack(raid.UUID{1}, 5); from != 0 {
			t.Errorf("by a copy it went back from %d", from)
		}

		now := data(2*time.Hour, "a")
		now.Generation = generation

		if !r.Note(now) || r.Find(now.UUID).Member(1) != nil {
			t.Errorf("what runs: %+v", r)
		}

		var file Roster

		written := data(time.Hour, "a", "b")
		written.Generation = 8
		file.Note(written)
		r.Merge(file)

		if got := newest(&r); got != want || r.Find(now.UUID).Member(1).Serial != "b" {
			t.Errorf("noted at %d, and merged: %s, want %s: %+v", generation, got, want, r)
		}
	}
}

// TestOutdated checks of which arrays others are the newest than a copy knows.
func TestOutdated(t *testing.T) {
	at := func(generation uint64, serials ...string) (r Roster) {
		a := data(0, serials...)
		a.Generation = generation
		r.Note(a)

		return r
	}

	for _, tt := range []struct {
		was, is Roster
		want    bool
	}{
		{at(7, "a", "b"), at(9, "a", "b"), false},
		{at(7, "a", "b"), at(9, "a"), true},
		{at(7, "a", "b"), at(9, "b", "a"), true},
		{at(7, "a"), at(9, "a", "b"), true},
		{at(7, "a"), at(0, "a"), true},
		{at(7, "a"), Roster{}, false},
		{Roster{}, at(7, "a"), true},
		{Roster{}, at(0, "a"), false},
	} {
		if got := tt.was.Outdated(tt.is); slices.Equal(got, []string{"data"}) != tt.want || len(got) > 1 {
			t.Errorf("Outdated(%+v, %+v) = %q, want %v", tt.was, tt.is, got, tt.want)
		}
	}
}

// TestBounds checks that a roster does not grow without bound, whatever is seen.
func TestBounds(t *testing.T) {
	var r Roster

	for i := range 2 * arraysMax {
		a := data(time.Duration(i)*time.Second, strings.Repeat("ä\x00", 5000))
		a.UUID = raid.UUID{byte(i >> 8), byte(i)}
		r.Note(a)
	}

	if len(r.Arrays) != arraysMax || r.Find(raid.UUID{0, 1}) != nil || r.Find(raid.UUID{1, 255}) == nil {
		t.Errorf("%d arrays, want the last %d", len(r.Arrays), arraysMax)
	}

	for i := range r.Arrays {
		serial := r.Arrays[i].Members[0].Serial
		if len(serial) > textMax || len(serial) < textMax/2 || strings.Contains(serial, "\x00") {
			t.Fatalf("serial %q of %d bytes", serial, len(serial))
		}
	}

	text, err := r.Encode()
	if err != nil || len(text) > BytesMax {
		t.Errorf("Encode() = %d bytes, %v", len(text), err)
	}
}

// TestDecode checks that what is not sound is an error.
func TestDecode(t *testing.T) {
	const array = `{"uuid": "01000000:00000000:00000000:00000000", "members": [%s]}`

	for text, want := range map[string]string{
		"":                               "unexpected end",
		"{}":                             "version 0, and only 1 is known",
		`{"version": 2}`:                 "version 2",
		`{"version": 1, "arrays": [{}]}`: `array "": raid: "" is not a UUID`,
		`{"version": 1, "arrays": [` + fmt.Sprintf(array, "") + "," + fmt.Sprintf(array, "") + `]}`: "it is there twice",
		`{"version": 1, "arrays": [` + fmt.Sprintf(array, `{"slot": -1}`) + `]}`:                    "slot -1",
		`{"version": 1, "arrays": [` + fmt.Sprintf(array, `{"slot": 2}, {"slot": 2}`) + `]}`:        "slot 2",
		strings.Repeat(" ", BytesMax+1): "more than",
	} {
		if r, err := Decode([]byte(text)); err == nil || !strings.Contains(err.Error(), want) || len(r.Arrays) > 0 {
			t.Errorf("Decode(%.40q) = %v, %v, want %q", text, r, err, want)
		}
	}
}

// TestString names a disk by what is known of it.
func TestString(t *testing.T) {
	m := Member{Serial: "S1", Model: "ACME 12", WWN: "0x5", Port: "pci-1"}
	if got := m.String(); got != "serial S1, ACME 12, WWN 0x5, last at pci-1" {
		t.Errorf("String() = %q", got)
	}

	if got := (Member{Port: "pci-1"}).String(); got != "last at pci-1" {
		t.Errorf("String() = %q", got)
	}
}

// FuzzDecode: whatever is in the file, it is a roster or an error, and a roster
// is written and read without a change.
func FuzzDecode(f *testing.F) {
	var r Roster

	r.Note(data(0, "a", "b"))

	text, err := r.Encode()
	if err != nil {
		f.Fatal(err)
	}

	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Decode(text)
		if err != nil {
			return
		}

		again, err := r.Encode()
		if err != nil {
			return // a time that JSON has no words for
		}

		back, err := Decode(again)
		if diff := cmp.Diff(r, back); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", again, err, diff)
		}
	})
}
