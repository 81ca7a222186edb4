package core

import (
	"bytes"
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

// TestPart checks that all is done of what goes in parts only, each at its place, and that
// no member is blamed for it.
func TestPart(t *testing.T) {
	for _, op := range []stripe.Op{stripe.Read, stripe.Write} {
		h := newHung(t, 2)
		h.partly = map[engine.DeviceID]bool{0: true, 1: true}

		data := make([]byte, 4096, 8192)
		for i := range data {
			data[i] = byte(100 + i/raid.SectorSize)
		}

		h.Submit(stripe.Request{Tag: 3, Op: op, Sector: 16, Data: data})
		h.run(10 * time.Second)

		if len(h.answers) != 1 || !h.answers[0].OK || h.state(0) != raid.InSync || h.state(1) != raid.InSync {
			t.Errorf("%v: answers %+v, members %s and %s, want it done", op, h.answers, h.state(0), h.state(1))
		}

		parts := make(map[raid.Sectors]int)

		for _, o := range h.did {
			if o.Op != op || o.Record {
				continue
			}

			at := o.Sector - h.disks[o.Device].Offset - 16
			if parts[at]++; op == stripe.Write && o.Data[0] != byte(100+at) {
				t.Errorf("%d was written to sector %d of the request, want %d", o.Data[0], at, 100+at)
			}
		}

		want := map[stripe.Op]int{stripe.Read: 1, stripe.Write: 2}[op]
		for at := range raid.Sectors(8) {
			if parts[at] != want {
				t.Errorf("%v: sector %d was done %d times, want %d", op, at, parts[at], want)
			}
		}

		if op == stripe.Read && !bytes.Equal(data, bytes.Repeat([]byte{data[0]}, len(data))) {
			t.Errorf("read %x, want all of it from one member", data)
		}
	}
}

// TestPartTooLate checks that nothing more is asked of a member that was given up.
func TestPartTooLate(t *testing.T) {
	h := newHung(t, 2)
	h.silent[0] = true
	h.Submit(stripe.Request{Tag: 3, Op: stripe.Read, Data: make([]byte, 4096, 8192)})
	h.run(31 * time.Second)

	if h.state(0) != raid.Faulty || len(h.waiting) != 1 || h.Late() != 1 {
		t.Fatalf("member 0 is %s, %d operations wait, %d are late", h.state(0), len(h.waiting), h.Late())
	}

	before := h.ops
	h.Part(h.waiting[0].ID, raid.SectorSize)
	h.run(time.Second)

	if h.Late() != 0 || h.ops != before {
		t.Errorf("%d are late, and %d more were asked for, want none", h.Late(), h.ops-before)
	}
}
