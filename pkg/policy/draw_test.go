package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"raid-assembler/pkg/raid"
)

// drawing is a set of devices, drawn: one word a device, with its slot (S for
// a spare, F where it calls itself faulty) and its event count. The position
// of a word is the number of the device, and names it: sda, sdb and so on.
//
//	0@8 1@8 2!@7     all others call the third faulty, which stands at event 7
//	0-1@9 1-0@8      each calls the other faulty
//	0@9 1@9r         the second is not recovered yet
//	0@9 1@9 (2@9)    the third is known, and not here
//	0@9 1@9 1@9c     the third is a copy of the second
//	0@9~             not clean
//	0@9~l            not clean, with a log of partial parity
//	0@9 1@9 1@9rp    the third is to replace the second
//	1@9S             slot 1 for the others, a spare by its own word
//	S@9s S@9x S@9m   a spare that is too small, shunned, in use by md127
type drawing struct {
	geometry raid.Geometry
	words    []word
}

type word struct {
	role    raid.Role
	accused string // numbers
	events  uint64
	flags   string
	absent  bool
	number  int
}

const memberSize = 1 << 20

func array(level raid.Level, disks int) raid.Geometry {
	g := raid.Geometry{Level: level, Disks: disks, Size: memberSize}
	if level.HasChunks() {
		g.Chunk = 128
	}

	switch level {
	case raid.Level5, raid.Level6:
		g.Layout = raid.LeftSymmetric
	case raid.Level10:
		g.Layout = 0x102 // n2
	}

	return g
}

var testArray = raid.UUID{1}

func draw(tb testing.TB, g raid.Geometry, text string) drawing {
	tb.Helper()

	dr := drawing{geometry: g}

	for field := range strings.FieldsSeq(text) {
		dr.words = append(dr.words, parseWord(tb, field, dr.words))
	}

	for i, w := range dr.words {
		if !strings.Contains(w.flags, "!") {
			continue
		}

		for k := range dr.words {
			if k != i {
				dr.words[k].accused += fmt.Sprint(i)
			}
		}
	}

	return dr
}

func parseWord(tb testing.TB, field string, before []word) word {
	tb.Helper()

	w := word{number: len(before)}
	trimmed := strings.Trim(field, "()")
	w.absent = trimmed != field

	left, right, ok := strings.Cut(trimmed, "@")
	if !ok {
		tb.Fatalf("drawing %q: no event count", field)
	}

	if before, accused := strings.CutSuffix(left, "!"); accused {
		left, w.flags = before, "!"
	}

	left, w.accused, _ = strings.Cut(left, "-")

	switch left {
	case "S":
		w.role = raid.RoleSpare
	case "F":
		w.role = raid.RoleFaulty
	default:
		if _, err := fmt.Sscan(left, &w.role); err != nil {
			tb.Fatalf("drawing %q: %v", field, err)
		}
	}

	digits := strings.TrimRight(right, "rcsxmSpl~")
	w.flags += right[len(digits):]

	if _, err := fmt.Sscan(digits, &w.events); err != nil {
		tb.Fatalf("drawing %q: %v", field, err)
	}

	if strings.Contains(w.flags, "c") {
		w.number = before[len(before)-1].number
	}

	return w
}

// devices returns the devices drawn, absent ones too.
func (dr drawing) devices() []Device {
	devices := make([]Device, len(dr.words))
	for i, w := range dr.words {
		devices[i] = dr.device(i, w)
	}

	return devices
}

// here returns the devices that are here.
func (dr drawing) here() []Device {
	var here []Device

	for i, d := range dr.devices() {
		if !dr.words[i].absent {
			here = append(here, d)
		}
	}

	return here
}

func (dr drawing) device(i int, w word) Device {
	sb := &Superblock{
		Array: testArray, Device: raid.UUID{0xdd, byte(w.number)}, Name: "data",
		Geometry: dr.geometry, Number: w.number, Events: w.events,
		DataSize: memberSize, ResyncOffset: raid.MaxSectors, RecoveryOffset: raid.MaxSectors,
	}

	for k, other := range dr.words {
		role := other.role
		if other.number != k {
			role = raid.RoleSpare // a copy has no number of its own
		}

		if k != w.number && strings.Contains(w.accused, fmt.Sprint(k)) {
			role = raid.RoleFaulty
		}

		sb.Roles = append(sb.Roles, role)
	}

	d := Device{
		Path: fmt.Sprintf("/dev/sd%c", 'a'+i), Serial: fmt.Sprintf("serial-%c", 'a'+i),
		Size: memberSize + 2048, Superblock: sb,
	}

	for _, flag := range w.flags {
		switch flag {
		case 'r':
			sb.RecoveryOffset = 4096
		case 's':
			sb.DataSize--
		case 'x':
			d.Shunned = "it was removed by hand"
		case 'm':
			d.Claimed = "md127"
		case 'S':
			sb.Roles[w.number] = raid.RoleSpare
		case 'l':
			sb.Log = true
		case 'p':
			sb.Replacement = true
		case '~':
			sb.ResyncOffset = 0
		}
	}

	return d
}

// permutations returns every order of devices.
func permutations(devices []Device) [][]Device {
	if len(devices) < 2 {
		return [][]Device{devices}
	}

	var all [][]Device

	for i := range devices {
		rest := slices.Delete(slices.Clone(devices), i, i+1)
		for _, p := range permutations(rest) {
			all = append(all, append([]Device{devices[i]}, p...))
		}
	}

	return all
}
