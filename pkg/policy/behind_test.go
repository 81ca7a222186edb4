package policy

import (
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/raid"
)

// TestBehind checks what is made of an array that was newer when it last ran.
func TestBehind(t *testing.T) {
	last := func(events uint64, members ...LastMember) Last {
		return Last{Events: events, Seen: time.Unix(1e9, 0), Members: members}
	}
	copied := func(events uint64, members ...LastMember) Last {
		l := last(events, members...)
		l.Copied = true

		return l
	}
	a, b := LastMember{"serial-a", 0}, LastMember{"serial-b", 1}
	forced := func(v *View) { v.Forced = map[raid.UUID]bool{testArray: true} }

	for _, tt := range []struct {
		name    string
		level   raid.Level
		disks   int
		members string
		last    Last
		change  func(v *View)
		want    string
	}{
		{"the newer half is missing", raid.Level1, 2, "0@7 (1@9)", last(9, b), nil, "wait left=never: slot 1 (serial K7) is missing, and newer"},
		{"by force", raid.Level1, 2, "0@7 (1@9)", last(9, b), forced, "start [0a]: slot 1 (serial K7) is missing, and it was asked for; they are at event 7"},
		{
			"with the loss accepted", raid.Level5, 3, "0@7~ 1@7 (2@9)", last(9, LastMember{"serial-c", 2}),
			func(v *View) { v.LossAccepted = map[raid.UUID]bool{testArray: true} }, "start [0a 1b]: slot 2 is missing, and it was asked for; they are",
		},
		{"as new as that", raid.Level1, 2, "0@9 (1@9)", last(9, b), nil, "start [0a]: slot 1 (serial K7) is still missing"},
		{"newer than that", raid.Level1, 2, "0@10 (1@9)", last(9, b), nil, "start [0a]: slot 1 (serial K7) is still missing"},
		{"nobody knows the newer one", raid.Level1, 2, "0@7 (1@9)", last(9, LastMember{"", 1}), nil, "start [0a]: slot 1 (serial K7) is still missing"},
		{"all were set back", raid.Level1, 2, "0@7 1@7", last(9, a, b), nil, "start [0a 1b]: all 2 members are here; they are at event 7, and the array was at event 9"},
		{"one of those that were", raid.Level1, 2, "0@7 (1@7)", last(9, a, b), nil, "wait left=never: slot 1 (serial K7) is missing, and newer"},
		{
			"the newer one cannot be read", raid.Level1, 2, "0@7 1@9", last(9, b), func(v *View) {
				v.Devices[1].Superblock, v.Devices[1].Unreadable = nil, "EIO"
			}, "wait left=never: slot 1 (serial K7) is missing, and newer",
		},
		{
			"the newer one has it of another array", raid.Level1, 2, "0@7 1@9", last(9, b), func(v *View) {
				v.Devices[1].Superblock.Array = raid.UUID{2}
			}, "wait left=never: slot 1 (serial K7) is missing, and newer",
		},
		{
			"a slot that is taken", raid.Level1, 2, "0@7 1@7", last(9, LastMember{"K7", 1}), nil,
			"wait left=never: slot 1 (serial K7) is missing, and newer",
		},
		{
			"a slot that is recorded as empty", raid.Level1, 2, "0-1@7", last(9, LastMember{"K7", 1}), nil,
			"wait left=never: slot 1 (serial K7) is missing, and newer",
		},
		{
			"not enough, but there is a newer one", raid.Level5, 3, "0-12@7", last(9, b), nil,
			"wait left=never: slot 1 (serial K7) is missing: 1 of 3 members are here, and raid5 survives the loss of 1",
		},
		{
			"a copy knows the newer half", raid.Level1, 2, "0@7 (1@9)", copied(9, b), nil,
			"wait left=never: slot 1 (serial K7) is missing, and newer: the array was at event 9 when it last ran on this " +
				"machine (last seen 2001-09-09T01:46:40Z, says the copy in the initramfs)",
		},
		{"a copy, by force", raid.Level1, 2, "0@7 (1@9)", copied(9, b), forced, "start [0a]: slot 1 (serial K7) is missing, and it was asked for; they are at event 7"},
		{"a copy that is out of date", raid.Level1, 2, "0@300 (1@90)", copied(100, a, b), nil, "start [0a]: slot 1 (serial K7) is still missing"},
		{"a copy that is as new", raid.Level1, 2, "0@9 (1@9)", copied(9, a, b), nil, "start [0a]: slot 1 (serial K7) is still missing"},
		// Somebody had it go back since, which the copy does not know.
		{"a copy, and the other half is written off", raid.Level1, 2, "0-1@7", copied(9, b), nil, "start [0a]: all 1 members are here"},
		{"a copy, and the slot is another's by now", raid.Level1, 2, "0@7 1@7", copied(9, LastMember{"K7", 1}), nil, "start [0a 1b]: all 2 members are here"},
		{
			"a copy, and one is missing beside who has the slot by now", raid.Level6, 4, "0@7 1@7 2@7 (3@7)", copied(9, LastMember{"K7", 1}), nil,
			"start [0a 1b 2c]: slot 3 is still missing",
		},
		{"a copy, and both are missing", raid.Level6, 4, "0@7 (1@9) 2@7 (3@7)", copied(9, b), nil, "wait left=never: slot 1 (serial K7) is missing, and newer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := View{
				Devices: draw(t, array(tt.level, tt.disks), tt.members).here(),
				Waited:  map[raid.UUID]time.Duration{testArray: 1000 * late},
				Last:    map[raid.UUID]Last{testArray: tt.last},
				Known:   map[raid.UUID]map[raid.Slot]string{testArray: {1: "serial K7"}},
			}
			if tt.change != nil {
				tt.change(&v)
			}

			ds := Decide(v, DefaultConfig())
			if got := brief(ds[0]); !strings.HasPrefix(got, tt.want) {
				t.Errorf("Decide() = %s\nwant %s", got, tt.want)
			}

			alarm := strings.Contains(tt.want, "wait")
			if got := Alarms(v, ds, DefaultConfig()); (len(got) > 0 && got[0].Kind == AlarmWaiting) != alarm {
				t.Errorf("Alarms() = %+v", got)
			}
		})
	}
}

// TestChooseTheOlder checks that a history which the operator chooses is started though
// one is missing that is newer than all of them.
func TestChooseTheOlder(t *testing.T) {
	v := View{
		Devices: draw(t, array(raid.Level1, 3), "0-12@8 1-02@8").here(),
		Last:    map[raid.UUID]Last{testArray: {Events: 12, Members: []LastMember{{"serial-c", 2}}}},
	}

	if got := brief(Choose(v, DefaultConfig(), testArray, []string{"/dev/sdb"})[0]); !strings.HasPrefix(got, "start [1b]") {
		t.Errorf("Choose() = %s", got)
	}
}
