package core

import (
	"testing"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/raid"
)

// TestFullSuccessor has the member of a degraded array die while it is being
// recorded that its successor is full: no request fails.
func TestFullSuccessor(t *testing.T) {
	for _, g := range []raid.Geometry{
		{Level: raid.Level1, Disks: 2, Size: 256},
		{Level: raid.Level5, Disks: 3, Size: 256, Chunk: 16, Layout: raid.LeftSymmetric},
	} {
		for _, op := range []stripe.Op{stripe.Read, stripe.Write, stripe.Flush} {
			t.Run(name(g)+" "+op.String(), func(t *testing.T) { testFullSuccessor(t, g, op) })
		}
	}
}

func testFullSuccessor(t *testing.T, g raid.Geometry, op stripe.Op) {
	geo, err := geometry.New(g)
	if err != nil {
		t.Fatal(err)
	}

	heir := raid.Slot(g.Disks - 1) // has the first chunk of a RAID5's second row
	successor := engine.DeviceID(g.Disks)
	cfg := Config{
		Geometry: geo, Keeper: &keeper{}, Depth: 8, Chunk: g.Chunk,
		Setup: engine.Setup{
			Level: g.Level, Layout: g.Layout, Size: g.Size, Resynced: raid.MaxSectors, Heir: heir, HasSuccessor: true,
			Successor: engine.Member{Device: successor, State: raid.Recovering, Recovered: g.Size - 16},
			Members:   []engine.Member{{Device: engine.None, State: raid.Missing}},
		},
		Scratch: memory(g.Disks+3, 4096), Records: memory(g.Disks+2, 4096),
		Devices: []Device{{ID: successor, Offset: dataOffset}},
	}

	for slot := 1; slot < g.Disks; slot++ {
		id := engine.DeviceID(slot)
		cfg.Setup.Members = append(cfg.Setup.Members, engine.Member{Device: id, State: raid.InSync})
		cfg.Devices = append(cfg.Devices, Device{ID: id, Offset: dataOffset})
	}

	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}

	c.Start(time.Unix(1e9, 0))

	h := &hung{Core: c, t: t}
	h.until(func() bool { _, s := c.array.Successor(); return s.State == raid.InSync }, engine.None)

	old := c.array.Members()[heir].Device

	r := stripe.Request{Tag: 1, Op: op, Sector: 32}
	if op != stripe.Flush {
		r.Data = make([]byte, 512)
	}

	h.Submit(r)
	h.until(func() bool { return len(h.answers) > 0 }, old)

	if !h.answers[0].OK || c.array.State() == raid.Broken {
		t.Errorf("answer %+v, the array is %s, want all of it to go on", h.answers[0], c.array.State())
	}

	if m := c.array.Members()[heir]; m.Device != successor || m.State != raid.InSync {
		t.Errorf("slot %d has device %d, %s, want its successor", heir, m.Device, m.State)
	}
}

// until ends all there is to end, the newest first, until something is so. What a
// device that died is to do fails.
func (h *hung) until(is func() bool, dead engine.DeviceID) {
	h.t.Helper()

	for range 1000 {
		h.SetTime(h.now.Add(10 * time.Millisecond))
		h.Advance()

		if h.answers = append(h.answers, h.Answers()...); is() {
			return
		}

		h.waiting = append(h.waiting, h.operations()...)

		if len(h.waiting) == 0 {
			continue
		}

		o, fault := h.waiting[len(h.waiting)-1], stripe.None
		if h.waiting = h.waiting[:len(h.waiting)-1]; o.Device == dead {
			fault = stripe.Gone
		}

		if h.Complete(o.ID, fault); is() {
			return
		}
	}

	h.t.Fatalf("it never comes to that: %s, %+v", h.array.State(), h.array.Members())
}
