package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/raid"
)

// TestReplace checks when a member that does wrong is replaced, and that a spare is
// found for that.
func TestReplace(t *testing.T) {
	limits := Limits{Errors: 10, Belated: 5, Slow: time.Minute}
	errs := func(array, member, n int) func(v *View) {
		return func(v *View) { v.Running[array].Members[member].Errors = n }
	}
	worn := func(device int) func(v *View) {
		return func(v *View) { v.Devices[device].Worn = "reads failed" }
	}
	replaced := func(member int) func(v *View) {
		return func(v *View) {
			v.Running[0].Members[member].State, v.Running[0].Members[member].Slot = raid.Faulty, raid.NoSlot
		}
	}
	both := func(changes ...func(v *View)) func(v *View) {
		return func(v *View) {
			for _, change := range changes {
				change(v)
			}
		}
	}

	for _, tt := range []struct {
		name, text string
		change     func(v *View)
		limits     Limits
		want       string
	}{
		{"it fails too often", "a:0 a:1 a:S", errs(0, 1, 11), limits, "replace /dev/sdb a: more than 10 of its operations failed within an hour"},
		{"not too often", "a:0 a:1 a:S", errs(0, 1, 10), limits, ""},
		{"nobody minds", "a:0 a:1 a:S", errs(0, 1, 1000), Limits{}, ""},
		{"it takes long", "a:0 a:1 a:S", func(v *View) { v.Running[0].Members[0].Belated = 6 }, limits, "replace /dev/sda a: more than 5 of its"},
		{"not long", "a:0 a:1 a:S", func(v *View) { v.Running[0].Members[0].Belated = 5 }, limits, ""},
		{"it is slow", "a:0 a:1 a:S", func(v *View) { v.Running[0].Members[0].Slow = 61 * time.Second }, limits, "replace /dev/sda a: it has been much slower than its peers for more than 1m0s"},
		{"not for long", "a:0 a:1 a:S", func(v *View) { v.Running[0].Members[0].Slow = time.Minute }, limits, ""},
		{"the worse one", "a:0 a:1 a:S a:S", both(errs(0, 0, 20), errs(0, 1, 21)), limits, "replace /dev/sdb a"},
		{"no spare", "a:0 a:1", errs(0, 1, 11), limits, ""},
		{"one that it is about to have", "a:0 a:1 a:Su", errs(0, 1, 11), limits, "add-spare /dev/sdc a"},
		{"one of another array", "a:0 a:1 a:S b:0 b:1", errs(1, 1, 11), limits, "add-spare /dev/sdc b: the member in slot 1 is failing (more than 10"},
		{"which fails as well", "a:0 a:1 a:S b:0 b:1", both(errs(0, 0, 11), errs(1, 1, 11)), limits, "replace /dev/sda a"},
		{"another array lacks a member", "a:0 a:1 a:S b:0 b:- c:0 c:1", errs(2, 1, 11), limits, "add-spare /dev/sdc b"},
		{"a blank one", "a:0 a:1 blank:yP", errs(0, 1, 11), limits, "add-spare /dev/sdc a: the member in slot 1 is failing"},
		{"a member is missing", "a:0 a:- a:S", errs(0, 0, 11), limits, ""},
		{"one is being filled", "a:0 a:1r a:S", errs(0, 0, 11), limits, ""},
		{"no redundancy", "a:0 a:1 a:S", both(errs(0, 0, 11), func(v *View) { v.Running[0].Level = raid.Level0 }), limits, ""},
		{"it was just asked for", "a:0 a:1 a:S", both(errs(0, 1, 11), func(v *View) { v.Running[0].Members[1].Asked = true }), limits, ""},
		{"a worn spare of another array", "a:0 a:1 a:S b:0 b:1", both(errs(1, 1, 11), worn(2)), limits, ""},
		{"a worn spare for a vacant slot", "a:0 a:1 a:S b:0 b:-", worn(2), limits, ""},
		{"a worn spare of its own", "a:0 a:- a:Su", worn(1), limits, ""},
		{"a worn member that is stale", "a:0 a:1u a:-", worn(1), limits, ""},
		{"a worn disk that is blank", "a:0 a:- blank:yP", worn(1), limits, ""},
		{"one that was replaced", "a:0 a:1 a:1", both(worn(2), replaced(2)), limits, "remove-member /dev/sdc a: a spare has taken its place: reads failed"},
		{"one that failed", "a:0 a:1 a:1", replaced(2), limits, ""},
		{"read-only", "a:0 a:1 a:S", both(errs(0, 0, 11), func(v *View) { v.Running[0].State = raid.ReadOnly }), limits, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := lending(t, raid.Level1, 2, tt.text).View
			tt.change(&v)

			cfg := DefaultConfig()
			cfg.For = func(Identity) Choice { return Choice{Limits: tt.limits} }

			var got []string

			for _, dec := range Decide(v, cfg) {
				if dec.Action != LeaveAlone {
					got = append(got, fmt.Sprintf("%v %s %c: %s", dec.Action, dec.Device, dec.Array[0], dec.Reason))
				}
			}

			text := strings.Join(got, "\n")
			if len(got) > 1 || (tt.want == "") != (text == "") || !strings.HasPrefix(text, tt.want) {
				t.Errorf("Decide() = %q, want %q", text, tt.want)
			}
		})
	}
}

// TestReplaceLast checks that what the engine may refuse keeps no spare out.
func TestReplaceLast(t *testing.T) {
	v := lending(t, raid.Level1, 2, "a:0 a:1 a:S a:Su").View
	v.Running[0].Members[0].Errors = 1

	cfg := DefaultConfig()
	cfg.For = func(Identity) Choice { return Choice{Limits: Limits{Errors: 1}} }

	if ds := Decide(v, cfg); len(ds) != 1 || ds[0].Action != AddSpare {
		t.Errorf("1 error: Decide() = %v", ds)
	}

	v.Running[0].Members[0].Errors = 2

	if ds := Decide(v, cfg); len(ds) != 2 || ds[0].Action != AddSpare || ds[1].Action != Replace || ds[1].Fault == "" {
		t.Errorf("2 errors: Decide() = %v", ds)
	}
}

// TestWornTold checks that it is told of a disk why it is not used.
func TestWornTold(t *testing.T) {
	v := lending(t, raid.Level1, 2, "a:0 a:1 a:1u").View
	v.Devices[2].Worn = "reads failed"

	for _, dec := range Decide(v, DefaultConfig()) {
		if dec.Action == LeaveAlone && dec.Cause == Worn && strings.HasPrefix(dec.Reason, "it is worn, and") {
			return
		}
	}

	t.Errorf("Decide() = %v", Decide(v, DefaultConfig()))
}

// TestWornStray checks that it is told of a spare of any container, and in evidence.
func TestWornStray(t *testing.T) {
	d := lending(t, raid.Level1, 2, "a:0").Devices[0]
	d.Superblock.Array, d.Superblock.Roles, d.Worn = raid.UUID{}, nil, "reads failed"

	ds := Decide(View{Devices: []Device{d}}, DefaultConfig())
	if len(ds) != 1 || ds[0].Action != LeaveAlone || ds[0].Cause != Worn {
		t.Errorf("Decide() = %v", ds)
	}

	lines := strings.Join(d.evidence(), "\n")
	if !strings.Contains(lines, "it is worn, and a spare was to take its place: reads failed;") {
		t.Errorf("evidence() = %s", lines)
	}
}
