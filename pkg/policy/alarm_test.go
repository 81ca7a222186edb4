package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/raid"
)

// TestAlarms checks of what states an administrator is told.
func TestAlarms(t *testing.T) {
	flaps := func(last time.Duration) func(v *View) {
		return func(v *View) {
			v.Returned = make(map[string][]time.Duration)
			for _, d := range v.Devices {
				v.Returned[d.Path] = []time.Duration{last + time.Hour, last, last + time.Minute, last + 2*time.Minute}
			}
		}
	}

	fails := func(v *View) { v.Running[0].Members[0].Errors = 3 }

	for _, tt := range []struct {
		name   string
		text   string // as lending has it
		change func(v *View)
		want   string // "array:kind"
	}{
		{"all is well", "a:0 a:1", nil, ""},
		{"and with a spare", "a:0 a:1 a:S", nil, ""},
		{"nobody for a slot", "a:0 a:-", nil, "a:degraded"},
		{"a spare is about to be given", "a:0 a:- a:Su", nil, ""},
		{"one of another array is", "a:0 a:1 a:S b:0 b:-", nil, ""},
		{"one of another array does not fit", "a:0 a:1 a:Ss b:0 b:-", nil, "b:degraded"},
		{"the last one is at work", "a:0 a:1r", nil, "a:no-spare"},
		{"the last but one", "a:0 a:1r a:S", nil, ""},
		{"another array has one", "a:0 a:1 a:S b:0 b:1r", nil, ""},
		{"that is too small", "a:0 a:1 a:Ss b:0 b:1r", nil, "b:no-spare"},
		{"that is for another", "a:0 a:1 a:S b:0 b:1r c:0 c:-", nil, "b:no-spare"},
		{"the one that would be comes and goes", "a:0 a:- a:Su", flaps(0), "a:degraded a:flapping"},
		{"it did so long ago", "a:0 a:- a:Su", flaps(time.Minute), ""},
		{"it may not be lent", "a:0 a:1 a:S b:0 b:-", flaps(0), "b:degraded"},
		{"a member is failing", "a:0 a:1", fails, "a:failing"},
		{"and there is a spare for it", "a:0 a:1 a:S", fails, ""},
		{"another array has one", "a:0 a:1 b:0 b:1 b:S", fails, ""},
		{"one is failing and another is missing", "a:0 a:-", fails, "a:degraded"},
		{"broken", "a:0 a:1", func(v *View) { v.Running[0].State = raid.Broken }, "a:broken"},
		{"broken, and another degraded", "a:0 a:1 b:0 b:-", func(v *View) { v.Running[0].State = raid.Broken }, "a:broken b:degraded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := lending(t, raid.Level1, 2, tt.text).View
			if tt.change != nil {
				tt.change(&v)
			}

			cfg := DefaultConfig()
			cfg.For = func(Identity) Choice { return Choice{Limits: Limits{Errors: 2}} }

			var got []string
			for _, a := range Alarms(v, Decide(v, cfg), cfg) {
				got = append(got, fmt.Sprintf("%s:%s", a.Name, a.Kind))
			}

			if text := strings.Join(got, " "); text != tt.want {
				t.Errorf("Alarms() = %q, want %q", text, tt.want)
			}
		})
	}
}

// TestAlarmsNotStarted checks the alarms of arrays that do not run.
func TestAlarmsNotStarted(t *testing.T) {
	for members, want := range map[string]AlarmKind{
		"0@7 1@7": "", "0@7 (1@7)": "", "0-1@9 1-0@8": AlarmRefused, "0@7 (1@7) (2@7)": AlarmWaiting,
	} {
		level, disks := raid.Level1, 2
		if strings.Contains(members, "2@") {
			level, disks = raid.Level5, 3
		}

		v := View{
			Devices: draw(t, array(level, disks), members).here(), Waited: map[raid.UUID]time.Duration{testArray: time.Second},
		}

		cfg := DefaultConfig()

		alarms := Alarms(v, Decide(v, cfg), cfg)
		if got := len(alarms); got > 1 || (got == 1) != (want != "") || got == 1 && alarms[0].Kind != want {
			t.Errorf("%s: Alarms() = %+v, want %q", members, alarms, want)
		}
	}
}
