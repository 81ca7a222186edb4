package recording

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// member is a device with one of the two slots of an array.
func member(slot raid.Slot, serial string) policy.Device {
	return policy.Device{
		Path: fmt.Sprintf("/dev/sd%c", 'a'+slot), Serial: serial, Size: 1 << 20, Block: 512,
		Superblock: &policy.Superblock{
			Array: raid.UUID{1}, Device: raid.UUID{2, byte(slot)}, Name: "data", Format: "1.2",
			Geometry: raid.Geometry{Level: raid.Level1, Disks: 2, Size: 1 << 19}, Number: int(slot),
			Roles: []raid.Role{0, 1, raid.RoleSpare, raid.RoleSpare}, Events: 7, DataSize: 1 << 19,
			ResyncOffset: raid.MaxSectors, RecoveryOffset: raid.MaxSectors,
		},
	}
}

// waiting is the state of an array that waits for its second member, which is known.
func waiting(waited time.Duration) State {
	v := policy.View{
		Devices: []policy.Device{member(0, "SERIAL-0")},
		Waited:  map[raid.UUID]time.Duration{{1}: waited},
		Known: map[raid.UUID]map[raid.Slot]string{{1}: {
			1: "serial WD-1 x, WDC, WWN 0x5000c500a1b2c3d4, last at pci-0000:00:1f.2-sas-0x5000c500a1b2c3d5-lun-0",
		}},
	}
	cfg := policy.DefaultConfig()
	cfg.For = func(id policy.Identity) policy.Choice {
		return policy.Choice{Deadline: time.Minute, DeadlineBy: "a file for " + id.Name}
	}

	return StateOf(v, cfg, policy.Decide(v, cfg))
}

// TestRoundTrip writes and reads a recording, and replays what comes of it.
func TestRoundTrip(t *testing.T) {
	entries := []Entry{{start, start.Add(time.Second), 2, waiting(0)}, {start, start, 1, waiting(time.Hour)}}

	var b bytes.Buffer
	if err := Write(&b, Header{Version: Version, Dropped: 3}, entries); err != nil {
		t.Fatal(err)
	}

	h, read, err := Read(&b)
	if err != nil || h.Dropped != 3 || !reflect.DeepEqual(read, entries) {
		t.Fatalf("Read() = %v, %+v, %v, want %+v", h, read, err, entries)
	}

	for i, want := range []policy.Action{policy.Wait, policy.Start} {
		ds, differences := read[i].State.Replay()
		if len(differences) > 0 || ds[0].Action != want {
			t.Errorf("entry %d is decided as %v, differing in %q, want %v", i, ds, differences, want)
		}
	}

	if reason := read[0].State.Decisions[0].Reason; !strings.Contains(reason, "1m0s (a file for data)") {
		t.Errorf("the deadline that was configured is not recorded: %q", reason)
	}
}

// TestDiffers alters what was recorded, which a replay has to find.
func TestDiffers(t *testing.T) {
	for what, alter := range map[string]func(s *State){
		"reason":  func(s *State) { s.Decisions[0].Reason = "none" },
		"none":    func(s *State) { s.Decisions = nil },
		"more":    func(s *State) { s.Decisions = append(s.Decisions, policy.Decision{}) },
		"view":    func(s *State) { s.View.Devices = nil },
		"waited":  func(s *State) { s.View.Waited[raid.UUID{1}] = time.Hour },
		"setting": func(s *State) { s.Settings.Choices[0].Choice.Mode = policy.Leave },
	} {
		s := waiting(0)
		alter(&s)

		if _, differences := s.Replay(); len(differences) == 0 {
			t.Errorf("%s: no difference was found", what)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                         "it does not begin as one",
		"[]":                       "it does not begin as one",
		`{"recording":2}`:          "version 2",
		`{"recording":1}{"new":1}`: `entry 1: json: unknown field "new"`,
		`{"recording":1}{"times":`: "entry 1: unexpected EOF",
		`{"recording":1}{"state":{"decisions":[{"Action":"jump"}]}}`: `no action is called "jump"`,
		`{"recording":1}{"state":{"view":{"Held":{"12":true}}}}`:     `"12" is not a UUID`,
	} {
		if _, _, err := Read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Read(%q) = %v, want %q", text, err, want)
		}
	}
}

// TestRing merges what is alike but for the time, gives entries in parts, and forgets
// the oldest when there are too many.
func TestRing(t *testing.T) {
	var r Ring

	add := func(at int, s State) {
		t.Helper()

		if err := r.Add(start.Add(time.Duration(at)*time.Second), s); err != nil {
			t.Fatal(err)
		}
	}

	if packed, next, err := r.From(-1, 1); len(packed) != 0 || next >= 0 || err != nil {
		t.Errorf("an empty ring has %v, %d, %v", packed, next, err)
	}

	for at := range 10 {
		add(at, waiting(time.Duration(at)*time.Second))
	}

	add(60, waiting(time.Minute))

	entries := all(t, &r)
	if len(entries) != 2 || entries[0].Times != 10 || !entries[0].Until.Equal(start.Add(9*time.Second)) ||
		!reflect.DeepEqual(entries[0].State, waiting(0)) || entries[1].State.Decisions[0].Action != policy.Start {
		t.Errorf("the ring has %+v", entries)
	}

	// Noise does not pack well.
	random := rand.New(rand.NewPCG(1, 2))

	for at := range 1000 {
		s := waiting(0)
		for range 200 {
			s.View.Devices[0].Content += fmt.Sprintf("%x", random.Uint64())
		}

		add(100+at, s)
	}

	entries = all(t, &r)
	last := entries[len(entries)-1]

	if r.bytes > packedMax || r.Dropped() == 0 || int(r.Dropped())+len(entries) != 1002 || !last.Time.Equal(start.Add(1099*time.Second)) {
		t.Errorf("%d entries of %d bytes are kept, %d were dropped, the last of %v",
			len(entries), r.bytes, r.Dropped(), last.Time)
	}

	if newest, next, err := r.From(-1, 1); len(newest) != 1 || next >= 0 || err != nil {
		t.Errorf("the newest is %d entries, next %d, %v", len(newest), next, err)
	}
}

// all asks for all entries, one at a time.
func all(t *testing.T, r *Ring) []Entry {
	t.Helper()

	var entries []Entry

	for next := int64(0); next >= 0; {
		packed, after, err := r.From(next, 1)
		if err != nil || len(packed) != 1 {
			t.Fatalf("From(%d) = %d entries, %v", next, len(packed), err)
		}

		e, err := Unpack(packed[0])
		if err != nil {
			t.Fatal(err)
		}

		entries = append(entries, e)
		next = after
	}

	return entries
}

// TestHash looks for what was to be replaced, and replays what was.
func TestHash(t *testing.T) {
	s := waiting(0)
	s.View.Devices = append(s.View.Devices, member(0, "1"), policy.Device{Path: "/dev/disk/by-id/ata-X_SERIAL-0-part1"})
	s.View.Last = map[raid.UUID]policy.Last{{1}: {
		Events: 1 << 40, Members: []policy.LastMember{{Serial: s.View.Devices[0].Serial}, {Serial: "GONE-9", Slot: 1}},
	}}
	s.Decisions = policy.Decide(s.View, s.Settings.Config(policy.DefaultConfig()))

	hashed, err := Hash([]Entry{{start, start, 1, s}}, []byte("key"))
	if err != nil {
		t.Fatal(err)
	}

	b, err := json.Marshal(hashed)
	if err != nil {
		t.Fatal(err)
	}

	for _, secret := range []string{"SERIAL-0", "GONE-9", "WD-1", "5000c500", `"Serial":"1"`} {
		if bytes.Contains(b, []byte(secret)) {
			t.Errorf("%q is left in %s", secret, b)
		}
	}

	d := hashed[0].State.View.Devices
	if d[0].Serial == d[1].Serial || d[2].Path != "/dev/disk/by-id/ata-X_"+d[0].Serial+"-part1" {
		t.Errorf("the same is not the same: %q, %q, %q", d[0].Serial, d[1].Serial, d[2].Path)
	}

	if d[0].Superblock.ResyncOffset != raid.MaxSectors || d[0].Superblock.Array != (raid.UUID{1}) {
		t.Errorf("other values changed: %+v", d[0].Superblock)
	}

	if last := hashed[0].State.View.Last[raid.UUID{1}].Members; last[0].Serial != d[0].Serial {
		t.Errorf("who was in sync is not who is here: %+v, %q", last, d[0].Serial)
	}

	if _, differences := hashed[0].State.Replay(); len(differences) > 0 {
		t.Errorf("it is decided otherwise: %q", differences)
	}

	again, err := Hash([]Entry{{start, start, 1, s}}, []byte("other"))
	if err != nil || again[0].State.View.Devices[0].Serial == d[0].Serial {
		t.Errorf("another key gives the same, %v", err)
	}
}
