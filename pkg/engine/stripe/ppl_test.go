package stripe

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/intent"
	"raid-assembler/pkg/engine/parity"
	"raid-assembler/pkg/raid"
)

const (
	pplDisks     = 4
	pplChunk     = 16
	pplSize      = 64 // sectors of the component
	pplArea      = 16 << 10
	pplSignature = 0x5eed
	pplDepth     = 6
)

// volatile is memory that loses in a power cut what was not flushed: of each
// sector any of the contents survives that it had since.
type volatile struct {
	media []byte
	cache map[int][][]byte // sector -> contents, oldest first
}

func (v *volatile) write(at int, data []byte, durable bool) {
	for i := 0; i < len(data); i += raid.SectorSize {
		sector, content := at+i/raid.SectorSize, bytes.Clone(data[i:i+raid.SectorSize])

		if durable {
			copy(v.media[sector*raid.SectorSize:], content)
			delete(v.cache, sector)
		} else {
			v.cache[sector] = append(v.cache[sector], content)
		}
	}
}

func (v *volatile) read(at int, into []byte) {
	copy(into, v.media[at*raid.SectorSize:])

	for i := 0; i < len(into); i += raid.SectorSize {
		if c := v.cache[at+i/raid.SectorSize]; len(c) > 0 {
			copy(into[i:], c[len(c)-1])
		}
	}
}

func (v *volatile) flush() {
	for sector, c := range v.cache {
		copy(v.media[sector*raid.SectorSize:], c[len(c)-1])
	}

	clear(v.cache)
}

// cut returns what is left when the power fails.
func (v *volatile) cut(rng *rand.Rand) []byte {
	left := bytes.Clone(v.media)

	for sector := range len(left) / raid.SectorSize {
		if c := v.cache[sector]; len(c) > 0 {
			if n := rng.IntN(len(c) + 1); n < len(c) {
				copy(left[sector*raid.SectorSize:], c[n])
			}
		}
	}

	return left
}

// pplRig is a RAID5 with logs on members that lose power.
type pplRig struct {
	t    *testing.T
	rng  *rand.Rand
	m    *geometry.Map
	p    *Path
	data [pplDisks]*volatile
	logs [pplDisks]*volatile
	ops  []Transfer

	want [][][]byte // by sector of the array: what has ended and may be there, oldest first
	busy []bool     // sectors of requests in flight
	reqs [pplDepth]*Request
	seen []int // by sector: versions there were when the flush in flight began
	next byte
	torn int // logs that the power cut left half-written, of arrays that lack a member
}

func newPPLRig(t *testing.T, seed uint64) *pplRig {
	t.Helper()

	m, err := geometry.New(raid.Geometry{
		Level: raid.Level5, Layout: raid.LeftSymmetric, Disks: pplDisks, Chunk: pplChunk, Size: pplSize,
	})
	if err != nil {
		t.Fatal(err)
	}

	r := &pplRig{t: t, rng: rand.New(rand.NewPCG(seed, 5)), m: m}
	r.want = make([][][]byte, m.ArraySectors())
	r.seen = make([]int, m.ArraySectors())
	r.busy = make([]bool, m.ArraySectors())
	cfg := Config{
		Geometry: m, Level: raid.Level5, Disks: pplDisks, Chunk: pplChunk, Depth: pplDepth, Signature: pplSignature,
	}

	for range pplDisks + 8 {
		cfg.Scratch = append(cfg.Scratch, make([]byte, 8192))
	}

	for i := range pplDisks {
		cfg.Logs = append(cfg.Logs, make([]byte, pplArea))
		r.data[i] = &volatile{make([]byte, pplSize*raid.SectorSize), make(map[int][][]byte)}
		r.logs[i] = &volatile{make([]byte, pplArea), make(map[int][][]byte)}
	}

	for s := range r.want {
		r.want[s] = [][]byte{make([]byte, raid.SectorSize)}
	}

	if r.p, err = New(cfg); err != nil {
		t.Fatal(err)
	}

	for i := range pplDisks {
		r.p.SetMember(raid.Slot(i), Member{Device: i, State: raid.InSync})
	}

	return r
}

// write begins a write of some sectors, unless they are being written.
func (r *pplRig) write() {
	size := int(r.m.ArraySectors())
	from := r.rng.IntN(size)
	n := 1 + r.rng.IntN(min(size-from, 40))

	for tag := range r.reqs[1:] {
		if r.reqs[tag] != nil {
			continue
		}

		for s := from; s < from+n; s++ {
			if r.busy[s] {
				return
			}
		}

		r.next++
		req := &Request{Tag: tag, Op: Write, Sector: raid.Sectors(from), Data: make([]byte, n*raid.SectorSize)}

		for i := range req.Data {
			req.Data[i] = r.next ^ byte(i/raid.SectorSize)
		}

		for s := from; s < from+n; s++ {
			r.busy[s] = true
		}

		r.reqs[tag] = req
		r.p.Submit(*req)

		return
	}
}

// flush begins a flush, unless there is one.
func (r *pplRig) flush() {
	tag := pplDepth - 1
	if r.reqs[tag] != nil {
		return
	}

	for s := range r.want {
		r.seen[s] = len(r.want[s])
	}

	r.reqs[tag] = &Request{Tag: tag, Op: Flush}
	r.p.Submit(*r.reqs[tag])
}

// ended notes what there may be of a request that has ended.
func (r *pplRig) ended(req *Request) {
	if req.Op == Flush {
		for s, n := range r.seen {
			r.want[s] = r.want[s][n-1:]
		}
	}

	for i := 0; i < len(req.Data); i += raid.SectorSize {
		s := int(req.Sector) + i/raid.SectorSize
		r.want[s] = append(r.want[s], req.Data[i:i+raid.SectorSize])
		r.busy[s] = false
	}

	r.reqs[req.Tag] = nil
}

// step begins what is to be begun and ends one transfer.
func (r *pplRig) step() {
	for {
		transfers := r.p.transfers()
		r.ops = append(r.ops, transfers...)

		r.p.check()

		for _, res := range r.p.Results() {
			req := r.reqs[res.Tag]
			if !res.OK {
				r.t.Fatalf("%v of %d sectors at %d failed", req.Op, len(req.Data)/raid.SectorSize, req.Sector)
			}

			r.ended(req)
		}

		if len(transfers) == 0 && !r.p.Pending() {
			break
		}
	}

	if len(r.ops) == 0 {
		return
	}

	i := r.rng.IntN(len(r.ops))
	tr := r.ops[i]
	r.ops = append(r.ops[:i], r.ops[i+1:]...)
	r.do(tr)
	r.p.Complete(tr.ID, None)
}

func (r *pplRig) do(tr Transfer) {
	disk := r.data[tr.Device]
	if tr.Log {
		disk = r.logs[tr.Device]
	}

	switch tr.Op {
	case Read:
		disk.read(int(tr.Sector), tr.Data)
	case Write:
		disk.write(int(tr.Sector), tr.Data, tr.FUA)
	case Flush:
		r.data[tr.Device].flush()
		r.logs[tr.Device].flush()
	case Discard, WriteZeroes:
		r.t.Fatalf("%v of a member", tr.Op)
	}
}

// cut takes the power, replays the logs without the member missing, if any, and
// compares all that was not being written.
func (r *pplRig) cut(missing raid.Slot) (redone int) {
	for _, tr := range r.ops { // may be there or not
		if tr.Op == Write {
			tr.FUA = false
			r.do(tr)
		}
	}

	var disks, areas [pplDisks][]byte

	for i := range pplDisks {
		disks[i], areas[i] = r.data[i].cut(r.rng), r.logs[i].cut(r.rng)
	}

	here := func(s raid.Slot) bool { return s != missing }

	for slot := range raid.Slot(pplDisks) {
		if here(slot) {
			area := intent.PPLArea{Bytes: areas[slot], Signature: pplSignature}
			found := intent.RecoverPPL(r.m, slot, area, here)
			redone += redoPPL(disks[:], found)

			if found.Mismatches > 0 && missing != raid.NoSlot {
				r.torn++
			}
		}
	}

	for s := range r.m.ArraySectors() {
		slot, at, _ := r.m.Locate(s)
		got := disks[slot][at.Bytes():][:raid.SectorSize]
		sum := make([]byte, raid.SectorSize)

		for other := range disks {
			if raid.Slot(other) != slot {
				parity.XORInto(sum, disks[other][at.Bytes():][:raid.SectorSize])
			}
		}

		if missing == raid.NoSlot && !bytes.Equal(got, sum) {
			r.t.Fatalf("sector %d: parity is wrong after the logs were replayed", s)
		}

		if slot == missing {
			got = sum
		}

		known := slices.ContainsFunc(r.want[s], func(v []byte) bool { return bytes.Equal(got, v) })
		// What was written and not flushed may be a mixture on a member that is lost.
		unsure := r.busy[s] || slot == missing && len(r.want[s]) > 1
		if !unsure && !known {
			r.t.Fatalf("sector %d on slot %d, of which %d is missing: it was not being written and has changed",
				s, slot, missing)
		}
	}

	return redone
}

func redoPPL(disks [][]byte, found intent.PPLRecovery) int {
	for _, redo := range found.Redo {
		from, to := redo.Component.From.Bytes(), redo.Component.To.Bytes()
		sum := make([]byte, to-from)
		copy(sum, redo.Partial)

		for _, s := range redo.Data {
			parity.XORInto(sum, disks[s][from:to])
		}

		copy(disks[redo.Parity][from:], sum)
	}

	return len(found.Redo)
}

// TestPowerCutsWithLogs cuts the power of a RAID5 with partial parity logs at
// random moments, with a member lost in the same moment or with none: nothing
// changes that was not being written.
func TestPowerCutsWithLogs(t *testing.T) {
	redone, torn := 0, 0

	for seed := range uint64(300) {
		r := newPPLRig(t, seed)

		for range 40 + r.rng.IntN(400) {
			switch r.rng.IntN(12) {
			case 0, 1, 2, 3:
				r.write()
			case 4:
				r.flush()
			}

			r.step()
		}

		for missing := raid.NoSlot; missing < pplDisks; missing++ {
			redone += r.cut(missing)
		}

		torn += r.torn

		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}

	if redone == 0 || torn == 0 {
		t.Errorf("%d parts of rows redone, %d logs torn, want some of each", redone, torn)
	}

	t.Logf("%d parts of rows redone", redone)
}

// TestLogOfASpare fails a member while a write waits for its log, and has a spare
// take its slot at once. The log of the spare says nothing of rows that it has no
// parity of: what is written there before it is filled is not logged, and to redo
// the entry then would make the parity wrong.
func TestLogOfASpare(t *testing.T) {
	r := newPPLRig(t, 1)
	slot := r.m.ParitySlot(0)

	r.p.Submit(Request{Tag: 0, Op: Write, Data: make([]byte, raid.SectorSize)})

	log, results := -1, 0

	for results < 2 {
		transfers := r.p.transfers()

		for _, tr := range transfers {
			switch {
			case !tr.Log:
				r.p.Complete(tr.ID, None)
			case tr.Device == pplDisks:
				t.Fatal("an entry of row 0 is written to the log of the spare")
			default:
				log = tr.ID
				r.p.Submit(Request{Tag: 1, Op: Write, Sector: 8, Data: make([]byte, raid.SectorSize)})
			}
		}

		if len(transfers) == 0 && log >= 0 { // the other write waits for the next unit
			r.p.Complete(log, Gone)
			r.p.SetMember(slot, Member{Device: pplDisks, State: raid.Recovering})

			log = -1
		}

		r.p.Failures() // they are recorded at once

		for _, res := range r.p.Results() {
			if results++; !res.OK {
				t.Errorf("write %d failed", res.Tag)
			}
		}

		r.p.check()
	}
}

// TestLogWaitsForARecord loses the member that a log is written to: after a crash it
// would be back, with that log. No row of it is changed before it is recorded that the
// member has failed, and none at all if that can never be.
func TestLogWaitsForARecord(t *testing.T) {
	for _, broken := range []bool{false, true} {
		r := newPPLRig(t, 1)
		r.p.Submit(Request{Tag: 0, Op: Write, Data: make([]byte, raid.SectorSize)})

		var failures []Failure

		for round := range 20 {
			for _, tr := range r.p.transfers() {
				switch {
				case tr.Log:
					r.p.Complete(tr.ID, Gone)
					// Another write finds the member gone.
					r.p.Submit(Request{Tag: 1, Op: Write, Sector: 8, Data: make([]byte, raid.SectorSize)})
				case tr.Op == Write:
					t.Fatalf("round %d: a row is changed: %+v", round, tr)
				default:
					r.p.Complete(tr.ID, None)
				}
			}

			failures = append(failures, r.p.Failures()...)
			r.p.SetRecorded(len(failures) == 0)
		}

		if len(failures) != 1 || len(r.p.Results()) != 0 || r.p.Pending() {
			t.Fatalf("failures = %v, pending %v, want one, and nothing to do", failures, r.p.Pending())
		}

		if broken {
			r.p.SetBroken()
		} else {
			r.p.SetRecorded(true)
		}

		stored, results := 0, 0

		for range 20 {
			for _, tr := range r.p.transfers() {
				stored++

				r.p.Complete(tr.ID, None)
			}

			for _, res := range r.p.Results() {
				if results++; res.OK == broken {
					t.Errorf("write %d ended well: %v, of a broken array: %v", res.Tag, res.OK, broken)
				}
			}
		}

		if stored > 0 == broken || results != 2 {
			t.Errorf("broken %v: %d rows are changed, %d writes end, want 2", broken, stored, results)
		}
	}
}

// TestLogOfASuccessor writes while a member is being replaced. What is logged its
// successor has as well, which may take over before the write has ended.
func TestLogOfASuccessor(t *testing.T) {
	r := newPPLRig(t, 1)
	slot := r.m.ParitySlot(0)

	var failures []Failure

	r.p.SetSuccessor(slot, Member{Device: pplDisks, State: raid.Recovering})
	r.p.Submit(Request{Tag: 0, Op: Write, Data: make([]byte, raid.SectorSize)})

	logs, flushed := 0, false

	for tag := 0; tag < 2; {
		for _, tr := range r.p.transfers() {
			fault := None

			switch {
			case tr.Log && tr.Device == pplDisks:
				logs++
			case tr.Op == Flush && tr.Device == pplDisks: // for the next unit
				flushed, fault = true, Gone
			}

			r.p.Complete(tr.ID, fault)
		}

		failures = append(failures, r.p.Failures()...)

		if len(r.p.Results()) == 1 {
			tag++

			if tag < 2 {
				r.p.Submit(Request{Tag: tag, Op: Write, Data: make([]byte, raid.SectorSize)})
			}
		}

		r.p.check()
	}

	if logs != 1 || !flushed {
		t.Errorf("%d units in the log of the successor, flushed: %v, want one before it fails at a flush", logs, flushed)
	}

	if len(failures) != 1 || failures[0].Device != pplDisks {
		t.Errorf("failures = %v, want the successor's", failures)
	}
}

// TestFirstLogAfterResync writes as a resync ends. An entry in a log has the array
// be taken for right wherever no log says otherwise, so that there is none before
// what was begun without has ended and is on disk.
func TestFirstLogAfterResync(t *testing.T) {
	r := newPPLRig(t, 1)
	r.p.SetResynced(0)
	r.p.Submit(Request{Tag: 0, Op: Write, Data: make([]byte, raid.SectorSize)})

	var held []Transfer // writes of the first

	flushes, results := 0, 0

	for results < 2 {
		transfers := r.p.transfers()

		for _, tr := range transfers {
			switch {
			case tr.Log && (flushes < pplDisks || len(held) > 0):
				t.Fatalf("a log is written after %d flushes, with %d writes in flight", flushes, len(held))
			case tr.Op == Flush:
				flushes++
			case tr.Op == Write && !tr.Log && flushes == 0:
				held = append(held, tr)

				continue
			}

			r.p.Complete(tr.ID, None)
		}

		switch {
		case len(transfers) > 0:
		case r.p.resynced == 0:
			r.p.SetResynced(raid.MaxSectors)
			r.p.Submit(Request{Tag: 1, Op: Write, Sector: r.m.RowSectors(), Data: make([]byte, raid.SectorSize)})
		default:
			for _, tr := range held {
				r.p.Complete(tr.ID, None)
			}

			held = nil
		}

		results += len(r.p.Results())
		r.p.check()
	}
}
