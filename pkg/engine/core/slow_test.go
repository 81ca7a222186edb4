package core

import (
	"slices"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/raid"
)

// lagging is a mirror whose members take their time.
type lagging struct {
	*hung

	takes   map[engine.DeviceID]time.Duration
	flying  []lag
	reads   map[engine.DeviceID]int
	probes  int
	notices []Notice
}

type lag struct {
	Operation

	end time.Time
}

func newLagging(t *testing.T, disks int) *lagging {
	l := &lagging{
		hung: newHung(t, disks), takes: make(map[engine.DeviceID]time.Duration), reads: make(map[engine.DeviceID]int),
	}
	l.cfg.Notify = func(n Notice) { l.notices = append(l.notices, n) }

	for id := range disks {
		l.takes[engine.DeviceID(id)] = 5 * time.Millisecond
	}

	return l
}

// work reads all over the array for a while, one request at a time.
func (l *lagging) work(d time.Duration) {
	const step = 5 * time.Millisecond

	busy := false
	place := raid.Sectors(0)
	clear(l.reads)
	l.probes = 0

	for ; d > 0; d -= step {
		l.SetTime(l.now.Add(step))

		l.flying = slices.DeleteFunc(l.flying, func(f lag) bool {
			if f.end.After(l.now) {
				return false
			}

			l.Complete(f.ID, stripe.None)

			return true
		})

		if !busy {
			busy = true
			place = (place + 256) % 1024 // of a mirror, regions go to different members
			l.Submit(stripe.Request{Tag: int(place/256) % 8, Op: stripe.Read, Sector: place, Data: make([]byte, 4096)})
		}

		l.Advance()

		for o := range l.Operations {
			if o.Op == stripe.Read {
				l.reads[o.Device]++

				if l.flights[o.ID].kind == probing {
					l.probes++
				}
			}

			l.flying = append(l.flying, lag{*o, l.now.Add(l.takes[o.Device])})
		}

		busy = busy && len(l.Answers()) == 0
	}
}

// TestSlowMember has a member become slow and recover: it is found out, told,
// read no more but for a look now and then, and read again in the end.
func TestSlowMember(t *testing.T) {
	l := newLagging(t, 2)

	// One region is a mirror's first: all go there while it is alone in that.
	slow := engine.DeviceID(0)
	l.work(5 * time.Second)

	if len(l.notices) > 0 || len(l.Status().Slow) > 0 {
		t.Fatalf("told %+v of members that are fast", l.notices)
	}

	l.slowness.sampled(1, 5*time.Millisecond) // that the other one is fast is known
	l.takes[slow] = 300 * time.Millisecond
	l.work(60 * time.Second)

	if len(l.notices) != 1 || l.notices[0].Note != engine.NoteSlow || l.notices[0].Device != slow ||
		!strings.HasPrefix(l.notices[0].Cause, "reads take ") {
		t.Fatalf("told %+v, want that member %d is slow", l.notices, slow)
	}

	if got := l.Status().Slow; !slices.Equal(got, []engine.DeviceID{slow}) {
		t.Errorf("Status().Slow = %v, want %d", got, slow)
	}

	l.work(10 * time.Second)

	if l.reads[slow] != l.probes || l.probes < 8 || l.probes > 12 || l.reads[1] < 500 {
		t.Errorf("%v reads in 10 s, %d of them probes, want the slow member to be probed each second", l.reads, l.probes)
	}

	l.takes[slow] = 5 * time.Millisecond
	l.work(15 * time.Second)

	if len(l.notices) != 2 || l.notices[1].Note != engine.NoteSlowEnd || len(l.Status().Slow) > 0 {
		t.Fatalf("told %+v, want that member %d has recovered", l.notices, slow)
	}

	if n := len(l.cfg.Spares.Records); n != 3 {
		t.Errorf("%d spare buffers, want all 3 back", n)
	}

	if l.work(time.Second); l.reads[slow] == 0 {
		t.Error("it is not read again")
	}
}

// TestNotSlow leaves members alone that are slow among the slow, not by much, or
// where nobody could be read in their place.
func TestNotSlow(t *testing.T) {
	for _, tt := range []struct {
		name  string
		takes [2]time.Duration
		gone  bool
	}{
		{"all are", [2]time.Duration{300 * time.Millisecond, 300 * time.Millisecond}, false},
		{"below the floor", [2]time.Duration{40 * time.Millisecond, time.Millisecond}, false},
		{"not by much", [2]time.Duration{100 * time.Millisecond, 20 * time.Millisecond}, false},
		{"the only one", [2]time.Duration{300 * time.Millisecond, 5 * time.Millisecond}, true},
	} {
		l := newLagging(t, 2)

		for id, d := range tt.takes {
			l.takes[engine.DeviceID(id)] = d
		}

		l.slowness.sampled(1, tt.takes[1])

		if tt.gone {
			l.step(engine.MemberFailed{Device: 1})
		}

		l.notices = nil

		if l.work(60 * time.Second); len(l.notices) > 0 || len(l.Status().Slow) > 0 {
			t.Errorf("%s: told %+v", tt.name, l.notices)
		}
	}
}

// TestSlowMemberHangs has the probe of a slow member hang: it is failed, and the
// memory comes back when the probe ends.
func TestSlowMemberHangs(t *testing.T) {
	l := newLagging(t, 2)
	l.slowness.sampled(1, 5*time.Millisecond)
	l.takes[0] = 300 * time.Millisecond
	l.work(60 * time.Second)
	l.takes[0] = time.Hour
	l.work(40 * time.Second)

	if l.state(0) != raid.Faulty || l.Late() != 1 || len(l.cfg.Spares.Records) != 2 {
		t.Fatalf("member 0 is %s, %d operations late, %d spares", l.state(0), l.Late(), len(l.cfg.Spares.Records))
	}

	for _, f := range l.flying {
		l.Complete(f.ID, stripe.None)
	}

	if l.Late() != 0 || len(l.cfg.Spares.Records) != 3 {
		t.Errorf("%d operations late, %d spares, want none and 3", l.Late(), len(l.cfg.Spares.Records))
	}
}
