package core

import (
	"testing"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// logKeeper keeps an array whose members have partial parity logs.
type logKeeper struct{ *keeper }

func (logKeeper) Log(metadata.MemberID) *metadata.PPL {
	return &metadata.PPL{Sector: 1, Size: 15, Signature: 7}
}

// newLogged returns a RAID5 with partial parity logs.
func newLogged(t *testing.T) *hung {
	t.Helper()

	const disks, size, chunk = 3, 1024, 16

	geo, err := geometry.New(raid.Geometry{
		Level: raid.Level5, Layout: raid.LeftSymmetric, Disks: disks, Chunk: chunk, Size: size,
	})
	if err != nil {
		t.Fatal(err)
	}

	k := &keeper{}
	cfg := Config{
		Geometry: geo, Keeper: logKeeper{k}, Depth: 8, Chunk: chunk,
		Setup:   engine.Setup{Level: raid.Level5, Layout: raid.LeftSymmetric, Size: size, Resynced: raid.MaxSectors},
		Scratch: memory(disks+2, 4096), Records: memory(disks+1, 4096), Logs: memory(disks, 8192),
		Spares: Spares{
			Requests: memory(8, 8192), Scratch: memory(disks+2, 4096), Records: memory(disks+1, 4096),
			Logs: memory(disks, 8192),
		},
	}

	for slot := range disks {
		cfg.Setup.Members = append(cfg.Setup.Members, engine.Member{Device: engine.DeviceID(slot), State: raid.InSync})
		cfg.Devices = append(cfg.Devices, Device{ID: engine.DeviceID(slot), Offset: dataOffset})
	}

	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}

	c.Start(time.Unix(1e9, 0))

	return &hung{Core: c, t: t, keeper: k, silent: make(map[engine.DeviceID]bool)}
}

// TestSilentLog writes to rows whose parity is on a member that does not answer
// any more when it is to write its log. The write ends without the member, and
// the memory of the log is used again when nothing is in flight in it.
func TestSilentLog(t *testing.T) {
	h := newLogged(t)
	h.Submit(stripe.Request{Tag: 0, Op: stripe.Write, Data: make([]byte, 4096)})
	h.run(100 * time.Millisecond)

	if len(h.answers) != 1 || !h.answers[0].OK {
		t.Fatalf("answers = %+v, want a write that ended well", h.answers)
	}

	slot := h.cfg.Geometry.ParitySlot(0)
	h.Submit(stripe.Request{Tag: 1, Op: stripe.Write, Data: make([]byte, 4096)})

	for logs := 0; logs == 0; {
		h.Advance()

		for _, o := range h.operations() {
			if o.Op == stripe.Write && o.Sector < dataOffset && o.Device == engine.DeviceID(slot) {
				h.silent[o.Device] = true
				h.waiting = append(h.waiting, o)
				logs++

				continue
			}

			h.Complete(o.ID, stripe.None)
		}
	}

	h.run(32 * time.Second)

	if h.state(slot) != raid.Faulty {
		t.Fatalf("member %d is %s, want it to have failed", slot, h.state(slot))
	}

	if len(h.answers) != 2 || !h.answers[1].OK {
		t.Fatalf("answers = %+v, want the write to have ended without the member", h.answers)
	}

	if n := len(h.cfg.Spares.Logs); n != 2 {
		t.Errorf("%d spare logs, want 2 beside the one that is used", n)
	}

	for _, o := range h.waiting {
		h.Complete(o.ID, stripe.Gone)
	}

	if n := len(h.cfg.Spares.Logs); n != 3 || h.Late() != 0 {
		t.Errorf("%d spare logs, %d operations late, want 3 and none", n, h.Late())
	}
}
