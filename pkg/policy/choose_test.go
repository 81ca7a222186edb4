package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/raid"
)

// TestChooseNot checks what is not a choice, and that nothing is started then.
func TestChooseNot(t *testing.T) {
	for _, tt := range []struct {
		name, members string
		paths         []string
		change        func(v *View)
		reason        string
	}{
		{"a device of another array", "0-1@9 1-0@9", []string{"/dev/sdz"}, func(v *View) {
			other := v.Devices[0]
			sb := *other.Superblock
			sb.Array, other.Path, other.Superblock = raid.UUID{2}, "/dev/sdz", &sb
			v.Devices = append(v.Devices, other)
		}, "/dev/sdz is no member of it"},
		{"another array would lose it", "0-1@9 1-0@9", []string{"/dev/sda"}, func(v *View) {
			other := v.Devices[1]
			sb := *other.Superblock
			sb.Array, other.Superblock = raid.UUID{2}, &sb
			v.Devices = append(v.Devices, other)
		}, "/dev/sdb is a member of other arrays too"},
		{"nobody can be used", "0-1@9m 1-0@9m", []string{"/dev/sda"}, func(*View) {}, "no member can be used"},
	} {
		v := View{Devices: draw(t, array(raid.Level1, 2), tt.members).here()}
		tt.change(&v)

		ds := Choose(v, DefaultConfig(), testArray, tt.paths)
		if len(ds) != 1 || ds[0].Action != Refuse || !strings.Contains(ds[0].Reason, tt.reason) {
			t.Errorf("%s: %+v, want a refusal: ... %s ...", tt.name, ds, tt.reason)
		}
	}
}

// TestHistories checks that a history ends with the last of its members, at the
// time that it says, whatever the order of the devices.
func TestHistories(t *testing.T) {
	devices := draw(t, array(raid.Level1, 3), "0-12@9 1-0@8 2-0@9").here()
	devices[2].Superblock.Updated = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

	for _, order := range permutations(devices) {
		lines := Explain(View{Devices: order}, DefaultConfig(), testArray)
		want := "on /dev/sdb /dev/sdc and ends at event 9, written 2026-03-01T12:00:00Z, when slots 1 and 2 of 3 are"

		if !slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, want) }) {
			t.Errorf("Explain() = %s\nwant ... %s ...", strings.Join(lines, "\n"), want)
		}
	}
}
