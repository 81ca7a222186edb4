package core

import (
	"maps"
	"testing"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/raid"
)

// ailing is a mirror whose operations end when, and as, the test says.
type ailing struct {
	*hung
}

// asked advances the array and returns the operations that it asks for.
func (a ailing) asked() []Operation {
	a.Advance()

	return a.operations()
}

// wait lets time pass in which nothing ends.
func (a ailing) wait(d time.Duration) {
	for ; d > 0; d -= time.Second {
		a.SetTime(a.now.Add(min(d, time.Second)))
	}
}

// read has one operation of the mirror's read a member, and returns it.
func (a ailing) read(t *testing.T, tag int) Operation {
	t.Helper()
	a.Submit(stripe.Request{Tag: tag, Op: stripe.Read, Data: make([]byte, 4096)})

	ops := a.asked()
	if len(ops) != 1 || ops[0].Op != stripe.Read || ops[0].Device != 0 {
		t.Fatalf("asked for %+v, want a read of device 0", ops)
	}

	return ops[0]
}

// mustBe checks what the array's devices have done wrong.
func (a ailing) mustBe(t *testing.T, when string, want map[engine.DeviceID]Health) {
	t.Helper()

	if got := a.Status().Health; !maps.Equal(got, want) {
		t.Errorf("%s: health = %+v, want %+v", when, got, want)
	}
}

// TestHealth checks what counts as an error of a member, and as belated.
func TestHealth(t *testing.T) {
	a := ailing{newHung(t, 2)}
	a.mustBe(t, "at first", map[engine.DeviceID]Health{})

	a.Complete(a.read(t, 0).ID, stripe.Medium)

	for ops := a.asked(); len(ops) > 0; ops = a.asked() { // the other is read, and the first one mended
		for _, o := range ops {
			a.Complete(o.ID, stripe.None)
		}
	}

	a.mustBe(t, "a sector that was mended", map[engine.DeviceID]Health{0: {Errors: 1}})

	// A quarter of the 30 s that it may take is 7.5 s.
	slow := a.read(t, 1)
	a.wait(7500 * time.Millisecond)
	a.Complete(slow.ID, stripe.None)
	a.asked()
	a.mustBe(t, "just in time", map[engine.DeviceID]Health{0: {Errors: 1}})

	slow = a.read(t, 2)
	a.wait(7600 * time.Millisecond)
	a.Complete(slow.ID, stripe.None)
	a.asked()
	a.mustBe(t, "belated", map[engine.DeviceID]Health{0: {Errors: 1, Belated: 1}})
}

// TestHealthOfTheRemoved checks that nothing counts that ends as it does since the
// member was pulled, or taken out on purpose.
func TestHealthOfTheRemoved(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault stripe.Fault
		out   bool
	}{
		{"pulled", stripe.Gone, false},
		{"taken out, and gone", stripe.Gone, true},
		{"taken out, and what was under way fails", stripe.Medium, true},
		{"taken out, and what was under way ends late", stripe.None, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := ailing{newHung(t, 3)}
			o := a.read(t, 0)

			if tt.out {
				if err := a.Fail(0, "by hand"); err != nil {
					t.Fatal(err)
				}
			}

			a.wait(20 * time.Second)
			a.Complete(o.ID, tt.fault)
			a.mustBe(t, tt.name, map[engine.DeviceID]Health{})
		})
	}
}

// TestHealthAnew checks that another device with the number of one that was removed
// begins anew.
func TestHealthAnew(t *testing.T) {
	a := ailing{newHung(t, 2)}
	a.Complete(a.read(t, 0).ID, stripe.Medium)
	a.mustBe(t, "before", map[engine.DeviceID]Health{0: {Errors: 1}})

	if err := a.attach(Device{ID: 0, Offset: dataOffset}, 0); err != nil {
		t.Fatal(err)
	}

	a.mustBe(t, "after", map[engine.DeviceID]Health{})
}

// TestHealthSlow checks that it is told since when a member is slow, and no more once
// it is not.
func TestHealthSlow(t *testing.T) {
	l := newLagging(t, 2)
	l.work(5 * time.Second)
	l.slowness.sampled(1, 5*time.Millisecond)
	l.takes[0] = 300 * time.Millisecond

	l.work(time.Minute)

	before := l.Status().Health[0].Slow
	l.work(10 * time.Second)

	if after := l.Status().Health[0].Slow; before <= 0 || before >= time.Minute || after != before+10*time.Second {
		t.Errorf("slow for %v, and 10 s later for %v", before, after)
	}

	l.takes[0] = 5 * time.Millisecond
	l.work(time.Minute)

	if h := l.Status().Health[0]; h != (Health{}) || l.array.Members()[0].State != raid.InSync {
		t.Errorf("once it is fast: health = %+v", h)
	}
}
