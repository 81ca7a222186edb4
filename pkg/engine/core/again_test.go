package core

import (
	"testing"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/raid"
)

// TestAgain checks that what the kernel could not do for a while is done later, and
// that no member is blamed for it.
func TestAgain(t *testing.T) {
	for _, op := range []stripe.Op{stripe.Read, stripe.Write, stripe.Flush} {
		h := newHung(t, 2)
		h.busy = map[engine.DeviceID]bool{0: true, 1: true}

		req := stripe.Request{Tag: 3, Op: op}
		if op != stripe.Flush {
			req.Data = make([]byte, 4096, 8192)
		}

		h.Submit(req)
		h.run(10 * time.Second)

		if asked := 10 * int(time.Second/againEvery); len(h.answers) > 0 || h.ops < asked/2 || h.ops > 2*asked+2 {
			t.Errorf("%v: after 10 s: answers %+v, asked for %d times, want it asked for every %v", op, h.answers, h.ops, againEvery)
		}

		clear(h.busy)
		h.run(time.Second)

		if len(h.answers) != 1 || !h.answers[0].OK || h.state(0) != raid.InSync || h.state(1) != raid.InSync {
			t.Errorf("%v: answers %+v, members %s and %s, want it done", op, h.answers, h.state(0), h.state(1))
		}
	}
}

// TestAgainForTooLong checks that a member of which nothing can be had is failed like
// one that does not answer, and that nothing of it is under way then.
func TestAgainForTooLong(t *testing.T) {
	h := newHung(t, 2)
	h.busy = map[engine.DeviceID]bool{0: true}
	h.Submit(stripe.Request{Tag: 3, Op: stripe.Write, Data: make([]byte, 4096, 8192)})

	if h.run(29 * time.Second); h.state(0) != raid.InSync {
		t.Fatalf("member 0 is %s after 29 s", h.state(0))
	}

	h.run(2 * time.Second)

	if h.state(0) != raid.Faulty || len(h.answers) != 1 || !h.answers[0].OK {
		t.Errorf("member 0 is %s, answers %+v, want it to be faulty and the write done", h.state(0), h.answers)
	}

	if h.InFlight() > 0 || len(h.again) > 0 {
		t.Errorf("%d operations are in flight, %d to be asked for again, want none", h.InFlight(), len(h.again))
	}
}
