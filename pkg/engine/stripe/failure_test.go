package stripe

import (
	"bytes"
	"fmt"
	"testing"

	"raid-assembler/pkg/raid"
)

// take returns the transfers that are asked for now, in order.
func (b *bench) take() []Transfer {
	b.collect()

	queue := b.queue
	b.queue = nil

	return queue
}

// end carries transfers out.
func (b *bench) end(transfers []Transfer) {
	for _, tr := range transfers {
		b.p.Complete(tr.ID, b.carryOut(tr))
	}

	b.collect()
}

// TestReplacedWhileSynced takes a recovering member out in the midst of a slab
// and puts another one in its place: what was filled of the first says nothing
// of the second.
func TestReplacedWhileSynced(t *testing.T) {
	for _, level := range []raid.Level{raid.Level1, raid.Level5} {
		for stage := range 2 { // while the slab is read, and while it is written
			t.Run(fmt.Sprintf("%v, stage %d", level, stage), func(t *testing.T) {
				b := newBench(t, level, 3, 8, 1)
				b.p.SetMember(1, Member{Device: b.addDisk(), State: raid.Recovering})
				b.p.SyncSlab(raid.Recover, 1, 0, 64)

				for range stage {
					b.end(b.take())
				}

				queue := b.take()
				second := b.addDisk()
				b.p.SetMember(1, Member{Device: second, State: raid.Recovering})
				b.end(queue)
				b.drain()

				if m := b.p.Member(1); m.Recovered != 0 {
					t.Errorf("device %d is trusted below %d, and device %d was filled", m.Device, m.Recovered, second-1)
				}

				if slab, ok := b.p.TakeSlab(); !ok || slab.OK {
					t.Errorf("TakeSlab() = %+v, %v, want one that is not OK", slab, ok)
				}
			})
		}
	}
}

// TestMirrorFailsWhileSynced loses one mirror of three in the midst of a slab:
// the other two are enough to go on.
func TestMirrorFailsWhileSynced(t *testing.T) {
	for _, action := range []raid.SyncAction{raid.Resync, raid.Recover} {
		for victim := range 2 {
			for stage := range 2 {
				t.Run(fmt.Sprintf("%s without member %d, stage %d", action, victim, stage), func(t *testing.T) {
					b := newBench(t, raid.Level1, 3, 0, 1)
					b.p.SetResynced(0)
					slot := raid.NoSlot

					if action == raid.Recover {
						slot = 2
						b.p.SetMember(slot, Member{Device: b.addDisk(), State: raid.Recovering})
					}

					b.p.SyncSlab(action, slot, 0, 64)

					for range stage {
						b.end(b.take())
					}

					b.dead[victim] = true
					b.drain()

					slab, ok := b.p.TakeSlab()
					if !ok || !slab.OK {
						t.Errorf("TakeSlab() = %+v, %v, want one that is OK", slab, ok)
					}

					if slab.Mismatched != 0 {
						t.Errorf("Mismatched = %d, want 0: a member that is gone does not differ", slab.Mismatched)
					}
				})
			}
		}
	}
}

// TestUnreadableSource recovers a mirror of three from the second one where the
// first cannot be read.
func TestUnreadableSource(t *testing.T) {
	b := newBench(t, raid.Level1, 3, 0, 1)
	b.p.SetMember(2, Member{Device: b.addDisk(), State: raid.Recovering})
	b.bad[0] = 20
	b.p.SyncSlab(raid.Recover, 2, 0, 64)
	b.drain()

	if slab, ok := b.p.TakeSlab(); !ok || !slab.OK {
		t.Errorf("TakeSlab() = %+v, %v, want one that is OK", slab, ok)
	}

	n := raid.Sectors(64).Bytes()
	if !bytes.Equal(b.disks[3][:n], b.disks[1][:n]) {
		t.Error("the recovered mirror differs from the one that could be read")
	}
}

// TestFailureWhileStarved fails a member while a read waits for bands. What is
// left of the read needs redundancy, and so must not race with a write to
// another chunk of the row: its data is stored here, its parity not yet.
func TestFailureWhileStarved(t *testing.T) {
	b := newBench(t, raid.Level5, 3, 8, 1)

	for range 100 {
		b.submit()
		b.drain()
	}

	const (
		row = 27
		end = row*16 + 8 // of the first chunk of the row
	)

	// The first read takes all bands that the write leaves, so that none of
	// the second's fails, which would have it done again.
	b.ask(2, Write, end, 8)
	b.end(b.take())
	b.ask(0, Read, 0, 256)
	b.ask(1, Read, 256, end-256)

	if len(b.p.starved) == 0 {
		t.Fatal("no read is starved")
	}

	b.dead[int(b.geo.DataSlot(row, 0))] = true

	// The write goes ahead, up to its parity; then the reads.
	var reads, late []Transfer

	for queue := b.take(); len(queue) > 0; queue = append(queue[1:], b.take()...) {
		switch tr := queue[0]; {
		case tr.Sector/8 != row:
			reads = append(reads, tr)
		case tr.Op == Write && b.p.slotOf(tr) == b.geo.ParitySlot(row):
			late = append(late, tr)
		default:
			b.end(queue[:1])
		}
	}

	for ; len(reads) > 0; reads = append(reads[1:], b.take()...) {
		b.end(reads[:1])
	}

	if len(late) == 0 {
		t.Fatal("no parity was written")
	}

	b.end(late)
	b.drain()
}

// ask submits a request.
func (b *bench) ask(tag int, op Op, at, n raid.Sectors) {
	r := &Request{Tag: tag, Op: op, Sector: at, Data: make([]byte, n.Bytes())}
	for i := range r.Data {
		r.Data[i] = byte(b.rng.Uint32())
	}

	b.reqs[tag] = r
	b.p.Submit(*r)
	b.collect()
}

// TestSlabIsNotStarved keeps as many writes in flight as there is memory for. A
// slab needs more at once than any of them, and must have its turn.
func TestSlabIsNotStarved(t *testing.T) {
	b := newBench(t, raid.Level5, 6, 16, 1)
	busy := func() {
		for tag := range 4 {
			if b.reqs[tag] == nil {
				b.ask(tag, Write, raid.Sectors(800+tag*80), 1) // one chunk modified, in a row each
			}
		}
	}

	busy()
	b.p.SyncSlab(raid.Resync, raid.NoSlot, 0, 64)

	for range 1000 {
		b.step()

		if _, ok := b.p.TakeSlab(); ok {
			return
		}

		busy()
	}

	t.Error("the slab has not ended after 1000 transfers")
}

// TestRecoveredDuringAWrite finishes the recovery of a mirror while a write is
// in flight, and then loses the one that it was filled from.
func TestRecoveredDuringAWrite(t *testing.T) {
	b := newBench(t, raid.Level1, 2, 0, 1)
	b.p.SetMember(1, Member{Device: b.addDisk(), State: raid.Recovering})
	b.ask(0, Write, 0, 8)

	queue := b.take()
	b.p.SetMember(1, Member{Device: 2, State: raid.InSync})
	b.dead[0] = true
	b.end(queue) // which fails the test if the write is given up

	if f := b.p.Failures(); len(f) != 1 || f[0].Device != 0 {
		t.Errorf("Failures() = %+v, want device 0", f)
	}
}

// TestUnreadableBesideAWriteHole has one sector unreadable, and parity wrong
// elsewhere in the same row, as a crash leaves it. What is computed in place of
// the sector may be wrong; its neighbours can be read, and must stay.
func TestUnreadableBesideAWriteHole(t *testing.T) {
	const (
		chunk = 32
		bad   = 2  // the unreadable sector of the first chunk
		hole  = 10 // where the parity of the row is wrong
	)

	for _, how := range []string{"read", "resync"} {
		t.Run(how, func(t *testing.T) {
			b := newBench(t, raid.Level5, 4, chunk, 1)
			b.p.SetResynced(0)
			b.ask(0, Write, 0, 3*chunk)
			b.drain()

			victim := int(b.geo.DataSlot(0, 0))
			b.disks[b.geo.ParitySlot(0)][hole*raid.SectorSize] ^= 1
			b.bad[victim] = bad

			if how == "read" {
				b.ask(0, Read, 0, 3*chunk)
			} else {
				b.p.SyncSlab(raid.Resync, raid.NoSlot, 0, 64)
			}

			b.drain() // which fails the test if what is read is not what was written

			if b.bad[victim] == bad {
				t.Error("the unreadable sector was not written anew")
			}

			if got := b.disks[victim][:chunk*raid.SectorSize]; !bytes.Equal(got, b.model[:len(got)]) {
				t.Errorf("the chunk was changed from byte %d", firstDiff(got, b.model[:len(got)]))
			}

			if f := b.p.Failures(); len(f) != 0 {
				t.Errorf("Failures() = %+v, want none", f)
			}
		})
	}
}

// TestOnlyOnTheOneThatFailed stores a write on one mirror, which then fails on
// something else, and not on the other: when that comes back alone, as the
// record will have it, the write is not there.
func TestOnlyOnTheOneThatFailed(t *testing.T) {
	b := newBench(t, raid.Level1, 2, 0, 1)
	b.p.Submit(Request{Tag: 0, Op: Write, Data: make([]byte, 4096)})
	b.p.Submit(Request{Tag: 1, Op: Flush})

	b.queue = append(b.queue, b.p.transfers()...)

	fault := map[string]Fault{"write 1": None, "flush 1": Gone, "write 0": Gone, "flush 0": Gone}

	for _, what := range []string{"write 1", "flush 1", "write 0", "flush 0"} {
		for _, tr := range b.queue {
			if fmt.Sprint(tr.Op, " ", b.p.slotOf(tr)) == what {
				b.p.Complete(tr.ID, fault[what])
			}
		}
	}

	for _, res := range b.p.Results() {
		if res.OK {
			t.Errorf("the %v is good, and no mirror is", res.Op)
		}
	}
}

// TestOverlappingWrites gives writes to the same sectors at once, as no sane
// client does: either may be there, and redundancy is right.
func TestOverlappingWrites(t *testing.T) {
	for _, g := range kinds() {
		for seed := range uint64(20) {
			h := filled(t, g, seed)
			total := h.geo.ArraySectors()

			for tag := range depth {
				n := 1 + raid.Sectors(h.rng.Int64N(12))
				at := raid.Sectors(h.rng.Int64N(int64(min(30, total-n))))
				data := make([]byte, n.Bytes())

				for i := range data {
					data[i] = byte(h.rng.Uint32())
				}

				for s := range n {
					h.unknown[at+s] = true
				}

				h.p.Submit(Request{Tag: tag, Op: Write, Sector: at, Data: data})
				h.reqs[tag] = &wish{Request: Request{Op: Flush}}
			}

			h.drain()
			h.verify()
		}
	}
}
