package core

import (
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// hung is a mirror some of whose members do not answer.
type hung struct {
	*Core

	t       *testing.T
	keeper  *keeper
	silent  map[engine.DeviceID]bool
	busy    map[engine.DeviceID]bool // the kernel has no memory for what is asked of them
	partly  map[engine.DeviceID]bool // a sector is done at a time, and nothing in between
	did     []Operation
	waiting []Operation // that do not end
	ops     int
	answers []Answer
}

func newHung(t *testing.T, disks int) *hung {
	c, k := newMirror(t, disks)
	c.cfg.Spares = Spares{
		Requests: memory(8, 8192), Scratch: memory(disks+2, 4096), Records: memory(disks+1, 4096),
	}

	return &hung{Core: c, t: t, keeper: k, silent: make(map[engine.DeviceID]bool)}
}

// run ends what there is to end, for a while.
func (h *hung) run(d time.Duration) {
	const step = 50 * time.Millisecond

	for ; d > 0; d -= step {
		h.SetTime(h.now.Add(step))

		for ops := 1; ops > 0; {
			h.Advance()

			list := h.operations()
			ops = len(list)

			for _, o := range list {
				if h.ops++; h.silent[o.Device] {
					h.waiting = append(h.waiting, o)

					continue
				}

				if h.busy[o.Device] {
					h.Again(o.ID)

					continue
				}

				part := h.partly[o.Device] && len(o.Data) > raid.SectorSize

				switch {
				case part && h.ops%2 == 0:
					h.Again(o.ID)

					continue
				case part:
					o.Data = o.Data[:raid.SectorSize]
				}

				for i := range o.Data {
					if o.Op == stripe.Read {
						o.Data[i] = byte(o.Device) + 1
					}
				}

				h.did = append(h.did, o)

				if part {
					h.Part(o.ID, raid.SectorSize)
				} else {
					h.Complete(o.ID, stripe.None)
				}
			}

			h.answers = append(h.answers, h.Answers()...)
		}
	}
}

func (h *hung) state(slot raid.Slot) raid.MemberState { return h.array.Members()[slot].State }

// TestReadOfASilentMember reads from a member that does not answer. The other
// one is read after a while, into other memory, and what the first brings at last
// is seen by nobody.
func TestReadOfASilentMember(t *testing.T) {
	h := newHung(t, 2)
	told := ""
	h.cfg.Notify = func(n Notice) {
		if n.Note == engine.NoteFailed {
			told = n.Cause
		}
	}
	h.silent[0] = true
	old := make([]byte, 4096, 8192)
	h.Submit(stripe.Request{Tag: 3, Op: stripe.Read, Data: old})

	if h.run(29 * time.Second); len(h.answers) > 0 || h.state(0) != raid.InSync {
		t.Fatalf("after 29 s: %v, member 0 is %s, want nothing to have happened", h.answers, h.state(0))
	}

	h.run(2 * time.Second)

	if h.state(0) != raid.Faulty || told != "no answer for 30s" {
		t.Fatalf("member 0 is %s for %q, want it to have failed because it does not answer", h.state(0), told)
	}

	if len(h.answers) != 1 || !h.answers[0].OK || h.answers[0].Memory == nil || h.answers[0].Memory[4095] != 2 {
		t.Fatalf("answers = %+v, want the content of member 1, in other memory", h.answers)
	}

	if n := len(h.cfg.Spares.Requests); h.Late() != 1 || n != 7 {
		t.Errorf("%d operations are late, %d spares left, want 1 and 7", h.Late(), n)
	}

	memory := h.answers[0].Memory
	h.Submit(stripe.Request{Tag: 3, Op: stripe.Read, Data: memory[:512]})
	clear(h.waiting[0].Data) // as the kernel may at any time
	h.run(time.Second)

	if len(h.answers) != 2 || h.answers[1].Memory != nil || memory[0] != 2 {
		t.Errorf("answers = %+v, holding %d, want the tag to keep its memory", h.answers, memory[0])
	}

	h.Complete(h.waiting[0].ID, stripe.None)

	if n := len(h.cfg.Spares.Requests); h.Late() != 0 || n != 8 || &h.cfg.Spares.Requests[7][0] != &old[0] {
		t.Errorf("%d operations are late, %d spares, want the old memory to be one", h.Late(), n)
	}
}

// TestWriteToASilentMember writes to mirrors one of which does not answer. The
// superblocks that say dirty are not written to it, nor is the data, and that it
// failed is recorded before the write is answered.
func TestWriteToASilentMember(t *testing.T) {
	for _, when := range []string{"before the record", "before the write", "before the flush"} {
		h := newHung(t, 3)
		h.silent[2] = when == "before the record"
		h.Submit(stripe.Request{Tag: 0, Op: stripe.Write, Data: make([]byte, 4096)})

		if when != "before the record" {
			h.run(50 * time.Millisecond)
			h.silent[2] = true
			h.answers = nil

			r := stripe.Request{Tag: 1, Op: stripe.Flush}
			if when == "before the write" {
				r = stripe.Request{Tag: 1, Op: stripe.Write, Data: make([]byte, 4096)}
			}

			h.Submit(r)
		}

		h.run(32 * time.Second)

		if len(h.answers) != 1 || !h.answers[0].OK || h.state(2) != raid.Faulty {
			t.Errorf("silent %s: answers %+v, member 2 is %s", when, h.answers, h.state(2))
		}

		if last := h.keeper.records[len(h.keeper.records)-1]; last.Members[2].State != raid.Faulty {
			t.Errorf("silent %s: it is not recorded as faulty", when)
		}

		if h.recorder.active || len(h.waiting) == 0 || h.Late() != len(h.waiting) {
			t.Errorf("silent %s: a record is under way: %v; %d operations are late, want %d",
				when, h.recorder.active, h.Late(), len(h.waiting))
		}

		for _, o := range h.waiting {
			h.Complete(o.ID, stripe.Gone)
		}

		if len(h.memories.parked) > 0 || len(h.cfg.Spares.Requests) != 8 || len(h.cfg.Records) != 4 ||
			len(h.cfg.Spares.Records) != 4 {
			t.Errorf("silent %s: memory was lost: %d parked, spares %d and %d", when, len(h.memories.parked),
				len(h.cfg.Spares.Requests), len(h.cfg.Spares.Records))
		}
	}
}

// TestNobodyAnswers has both mirrors hang, as when their controller is reset:
// neither is failed, and all goes on when it is over.
func TestNobodyAnswers(t *testing.T) {
	h := newHung(t, 2)
	h.silent[0], h.silent[1] = true, true
	h.Submit(stripe.Request{Tag: 0, Op: stripe.Write, Data: make([]byte, 4096)})
	h.run(2 * time.Minute)

	if h.array.Degraded() != 0 || len(h.answers) > 0 || h.Late() > 0 {
		t.Fatalf("%d members failed, answers %v, %d late, want it to wait", h.array.Degraded(), h.answers, h.Late())
	}

	clear(h.silent)

	for _, o := range h.waiting {
		h.Complete(o.ID, stripe.None)
	}

	if h.run(100 * time.Millisecond); len(h.answers) != 1 || !h.answers[0].OK || h.array.Degraded() != 0 {
		t.Errorf("answers = %+v, %d members failed, want the write to have ended well", h.answers, h.array.Degraded())
	}
}

// TestNobodyLooked lets an hour pass in which this thread did not run: nobody
// knows whether the members did.
func TestNobodyLooked(t *testing.T) {
	h := newHung(t, 2)
	h.silent[0] = true
	h.Submit(stripe.Request{Tag: 0, Op: stripe.Read, Data: make([]byte, 4096)})
	h.run(time.Second)
	h.SetTime(h.now.Add(time.Hour))

	if h.run(20 * time.Second); h.state(0) != raid.InSync {
		t.Errorf("a member was failed for the time in which nobody looked")
	}
}

// TestFailFast gives a member that is to fail fast less time.
func TestFailFast(t *testing.T) {
	h := newHung(t, 2)
	d := h.disks[0]
	d.FailFast = true
	h.disks[0] = d
	h.silent[0] = true
	h.Submit(stripe.Request{Tag: 0, Op: stripe.Read, Data: make([]byte, 4096)})

	if h.run(6 * time.Second); h.state(0) != raid.Faulty || len(h.answers) != 1 {
		t.Errorf("member 0 is %s after 6 s, answers %v", h.state(0), h.answers)
	}
}

// TestStopWithASilentMember stops an array whose members do not answer, one of
// them or all.
func TestStopWithASilentMember(t *testing.T) {
	for silent := 1; silent <= 2; silent++ {
		h := newHung(t, 2)
		h.Submit(stripe.Request{Tag: 0, Op: stripe.Write, Data: make([]byte, 4096)})
		h.run(50 * time.Millisecond)

		for id := range silent {
			h.silent[engine.DeviceID(id)] = true
		}

		h.Leave(true)
		h.Close()

		if h.run(90 * time.Second); !h.Stopped() {
			t.Errorf("%d members silent: not stopped after 90 s", silent)
		}

		if broken := h.array.State() == raid.Broken; broken != (silent == 2) {
			t.Errorf("%d members silent: the array is %s", silent, h.array.State())
		}
	}
}

// TestMoveWhileOthersRead gives up on a read while another one into the same
// memory is under way, and checks that what that brings arrives.
func TestMoveWhileOthersRead(t *testing.T) {
	h := newHung(t, 2)
	data := make([]byte, 8192)
	h.memories.requests[5] = data
	h.operate(Operation{Device: 0, Op: stripe.Read, Data: data[:4096]}, recording)
	h.operate(Operation{Device: 1, Op: stripe.Read, Data: data[4096:]}, recording)
	h.recorder.left = 2

	ops := h.operations()
	h.giveUp(0)

	moved := h.memories.requests[5]
	if &moved[0] == &data[0] {
		t.Fatal("the memory was not moved")
	}

	ops[1].Data[7] = 77
	h.Complete(ops[1].ID, stripe.None)

	if moved[4096+7] != 77 {
		t.Error("what was read into the old memory is not in the new")
	}

	if len(h.memories.parked) != 1 {
		t.Errorf("%d pieces parked, want the one that is in use", len(h.memories.parked))
	}

	ops[0].Data[0] = 66
	h.Complete(ops[0].ID, stripe.None)

	if moved[0] == 66 || len(h.memories.parked) != 0 {
		t.Errorf("late: holds %d, %d parked, want it to be seen by nobody", moved[0], len(h.memories.parked))
	}
}

// TestNoMemoryToGoOn waits for a member when there are no spares.
func TestNoMemoryToGoOn(t *testing.T) {
	h := newHung(t, 2)
	h.cfg.Spares.Requests = nil
	h.silent[0] = true
	data := make([]byte, 4096)
	h.Submit(stripe.Request{Tag: 0, Op: stripe.Read, Data: data})
	h.run(35 * time.Second)

	if h.state(0) != raid.Faulty || len(h.answers) != 0 {
		t.Fatalf("member 0 is %s, answers %v, want it failed and waited for", h.state(0), h.answers)
	}

	h.Complete(h.waiting[0].ID, stripe.None)

	// What it says now counts for nothing.
	if h.run(100 * time.Millisecond); data[0] != 2 {
		t.Errorf("the answer holds %d, want the content of member 1", data[0])
	}

	if len(h.answers) != 1 || !strings.HasPrefix(h.cause[0], "no answer") {
		t.Errorf("answers %v, cause %q", h.answers, h.cause[0])
	}
}

// TestNoAllocationsOverTime serves requests while the time goes by, with all
// that is looked at now and then.
func TestNoAllocationsOverTime(t *testing.T) {
	c, _ := newMirror(t, 2)
	data := make([]byte, 4096)
	flying := make([]int, 0, 8)

	serve := func() {
		c.Submit(stripe.Request{Tag: 1, Op: stripe.Read, Data: data})
		c.Submit(stripe.Request{Tag: 2, Op: stripe.Read, Sector: 512, Data: data})

		for ended := 0; ended < 2; {
			c.SetTime(c.now.Add(120 * time.Millisecond))

			for _, id := range flying {
				c.Complete(id, stripe.None)
			}

			flying = flying[:0]

			c.Advance()

			for o := range c.Operations {
				flying = append(flying, o.ID)
			}

			ended += len(c.Answers())
		}
	}

	serve()

	if n := testing.AllocsPerRun(100, serve); n != 0 {
		t.Errorf("%v allocations for two requests, want none", n)
	}

	if c.deadliner.flying != 0 || c.slowness.pulses[0].latency == 0 {
		t.Errorf("%d operations in flight, reads take %v", c.deadliner.flying, c.slowness.pulses[0].latency)
	}
}

// TestNoAllocationsBesideASync steers a sync.
func TestNoAllocationsBesideASync(t *testing.T) {
	now := time.Unix(1e9, 0)
	th := newThrottle(1)
	th.start(now)

	step := func() {
		th.requestBegan(now, 0)
		th.slabBegan(now)
		now = now.Add(30 * time.Millisecond)
		th.requestEnded(now, 0)
		th.slabEnded(now, th.slab, true)
		th.pace.rate(now)
	}

	if n := testing.AllocsPerRun(500, step); n != 0 {
		t.Errorf("%v allocations for a slab, want none", n)
	}
}

// staged is a keeper whose superblocks refer to what is written before them.
type staged struct{ *keeper }

func (k staged) Record(st metadata.State) [][]metadata.Write {
	stages := k.keeper.Record(st)
	second := append([]metadata.Write(nil), stages[0]...)

	for i := range second {
		second[i].Sector = 1
	}

	return append(stages, second)
}

// TestStagesOfASilentMember has a member hang while the first stage of a record
// is written to it. The second must not be: it would be there without the first.
func TestStagesOfASilentMember(t *testing.T) {
	h := newHung(t, 3)
	h.cfg.Keeper = staged{h.keeper}
	h.silent[1] = true
	h.Submit(stripe.Request{Tag: 0, Op: stripe.Write, Data: make([]byte, 4096)})

	// The flush that comes first is answered.
	h.Advance()

	for _, o := range h.operations() {
		h.Complete(o.ID, stripe.None)
	}

	if h.run(32 * time.Second); len(h.answers) != 1 || !h.answers[0].OK || h.state(1) != raid.Faulty {
		t.Fatalf("answers %+v, member 1 is %s", h.answers, h.state(1))
	}

	for _, o := range h.waiting {
		if o.Record && o.Sector != 0 {
			t.Errorf("%v at sector %d of a member that has not had the stage before", o.Op, o.Sector)
		}
	}
}
