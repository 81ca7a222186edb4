package host

import (
	"io"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/loop"
	"raid-assembler/pkg/engine/member"
	"raid-assembler/pkg/raid"
)

// TestInherit: the devices that an engine had are asked for as what the freshest
// superblock says, and one that it was about to let go of is not asked for.
func TestInherit(t *testing.T) {
	table := []raid.Role{0, 1, faulty, spare, 2}
	all := []candidate{device(0, 9, table...)}

	for number := 1; number < 5; number++ {
		all = append(all, device(number, 8, 0, 1, 2, spare, spare))
	}

	kept, useless := inherit(all)

	got := make(map[string]int)

	for _, c := range kept {
		got[c.dev.Path] = -1
		if c.asked.Slot != nil {
			got[c.dev.Path] = *c.asked.Slot
		}
	}

	want := map[string]int{"/dev/sda": 0, "/dev/sdb": 1, "/dev/sdd": -1, "/dev/sde": 2}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	if len(useless) != 1 || useless[0].dev.Path != "/dev/sdc" {
		t.Errorf("useless: %v, want the faulty one", useless)
	}
}

// kept is a shelf of one file.
type kept struct {
	name, text string
	times      int
}

func (k *kept) Keep(name string, file *os.File) error {
	text, err := io.ReadAll(io.NewSectionReader(file, 0, math.MaxInt64))
	k.name, k.text = name, string(text)
	k.times++

	return err
}

func (k *kept) Drop(string) error { return nil }

// TestServed: the next engine is told of what is handed over, and of what was started but
// not of what was stopped.
func TestServed(t *testing.T) {
	shelf := new(kept)
	h := New(Config{Logs: shelf})
	h.served[raid.UUID{2}] = Served{
		UUID: raid.UUID{2}.String(), Name: "two", Devices: []ServedDevice{{"/dev/sda", "A"}, {"/dev/sdb", "B"}},
	}
	h.served[raid.UUID{1}] = Served{UUID: raid.UUID{1}.String(), Name: "one"}

	h.touch()
	h.touch()

	if shelf.name != ServedFile || shelf.times != 1 {
		t.Fatalf("%q is kept %d times", shelf.name, shelf.times)
	}

	got, err := ReadServed(strings.NewReader(shelf.text))
	if want := []Served{h.served[raid.UUID{1}], h.served[raid.UUID{2}]}; err != nil || !cmp.Equal(want, got) {
		t.Errorf("%v: %s", err, cmp.Diff(want, got))
	}

	delete(h.served, raid.UUID{2})
	h.touch()

	if got, err := ReadServed(strings.NewReader(shelf.text)); err != nil || len(got) != 1 || shelf.times != 2 {
		t.Errorf("%v, %v, kept %d times; want one array", got, err, shelf.times)
	}
}

// TestServes: members that have failed are not told, those that recover and spares are.
func TestServes(t *testing.T) {
	r := &running{name: "five", devices: make(map[engine.DeviceID]*member.Device)}
	for id := range engine.DeviceID(5) {
		r.devices[id] = &member.Device{Path: string(rune('a' + id))}
	}

	st := loop.Status{
		Members: []engine.Member{
			{Device: 3, State: raid.InSync},
			{Device: 1, State: raid.Faulty},
			{Device: 0, State: raid.Recovering},
			{Device: engine.None, State: raid.Missing},
		},
		Successor: engine.Member{Device: 4, State: raid.Recovering}, Spares: []engine.DeviceID{2},
	}

	want := Served{UUID: raid.UUID{7}.String(), Name: "five", Devices: []ServedDevice{{Path: "a"}, {Path: "c"}, {Path: "d"}, {Path: "e"}}}
	if diff := cmp.Diff(want, r.serves(raid.UUID{7}, st)); diff != "" {
		t.Error(diff)
	}
}

// TestReadServedNot: what is cut off, too new or something else is not believed.
func TestReadServedNot(t *testing.T) {
	for _, text := range []string{"", "{", `{"version":2}`, `{"version":1,"arrays":[`} {
		if got, err := ReadServed(strings.NewReader(text)); err == nil {
			t.Errorf("%q says %v", text, got)
		}
	}
}
