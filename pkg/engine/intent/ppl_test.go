package intent

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

func TestPPLEncode(t *testing.T) {
	h := &PPLHeader{Signature: 0x12345678, Generation: 9}
	for i := range PPLEntryMax {
		h.Entries = append(h.Entries, PPLEntry{
			Sector: raid.Sectors(i) * 8, Partial: 4096, Data: 8192, Parity: raid.Slot(i % 3), Checksum: uint32(i),
		})
	}

	buf := bytes.Repeat([]byte{7}, PPLHeaderSize)
	if n := testing.AllocsPerRun(10, func() { h.Encode(buf) }); n != 0 {
		t.Errorf("Encode() allocates %v times", n)
	}

	got, err := DecodePPL(buf)
	if err != nil {
		t.Fatal(err)
	}

	if diff := cmp.Diff(h, got); diff != "" {
		t.Errorf("Decode() of what was encoded (-want +got):\n%s", diff)
	}

	// Only what the checksum covers is believed, and it covers everything.
	for i := range buf {
		buf[i] ^= 4

		if _, err := DecodePPL(buf); err == nil {
			t.Fatalf("byte %d may be anything", i)
		}

		buf[i] ^= 4
	}

	if _, err := DecodePPL(buf[:4000]); err == nil {
		t.Error("half a header is decoded")
	}

	le := binary.LittleEndian
	for _, edit := range []func(){
		func() { le.PutUint32(buf[offPPLCount:], PPLEntryMax+1) },
		func() { le.PutUint64(buf[offPPLEntries:], 1<<63) },
		func() { le.PutUint32(buf[offPPLEntries+16:], 1<<20) },
	} {
		h.Encode(buf)
		edit()
		le.PutUint32(buf[offPPLChecksum:], pplHeaderChecksum(buf))

		if h, err := DecodePPL(buf); err == nil {
			t.Errorf("Decode() = %+v", h)
		}
	}
}

// TestLatestPPL finds the newest log of a ring.
func TestLatestPPL(t *testing.T) {
	const signature = 5

	log := func(generation uint64, partial uint32) []byte {
		h := &PPLHeader{Signature: signature, Generation: generation}
		if partial > 0 {
			h.Entries = []PPLEntry{{Partial: partial, Data: partial}}
		}

		buf := make([]byte, PPLHeaderSize+partial)
		h.Encode(buf)

		return buf
	}

	for _, tt := range []struct {
		name string
		area []byte
		ring bool
		want uint64 // generation; 0 for none
		at   int
	}{
		{"one", append(log(3, 0), make([]byte, 8192)...), true, 3, 0},
		{"the second", append(append(log(3, 8192), log(4, 0)...), make([]byte, 8192)...), true, 4, 12288},
		{"no ring", append(append(log(3, 8192), log(4, 0)...), make([]byte, 8192)...), false, 3, 0},
		{"wrapped", append(append(log(7, 8192), log(4, 4096)...), log(5, 0)...), true, 7, 0},
		{"to its end", append(log(3, 8192), log(4, 0)...), true, 4, 12288},
		{"beyond its end", log(3, 1<<20)[:8192], true, 3, 0},
		{"none", make([]byte, 8192), true, 0, 0},
		{"nothing", nil, true, 0, 0},
	} {
		h, at, err := LatestPPL(tt.area, signature, tt.ring)
		if tt.want == 0 {
			if err == nil {
				t.Errorf("%s: %+v", tt.name, h)
			}

			continue
		}

		if err != nil || h.Generation != tt.want || at != tt.at {
			t.Errorf("%s: %+v at %d, %v, want generation %d at %d", tt.name, h, at, err, tt.want, tt.at)
		}
	}

	if _, _, err := LatestPPL(log(1, 0), signature+1, true); err == nil {
		t.Error("the log of another array is taken for this one's")
	}
}

// stripes is a RAID5 in memory, with a log on each member.
type stripes struct {
	m       *geometry.Map
	members [][]byte
	logs    []PPLArea
}

func newStripes(t *testing.T, layout raid.Layout, disks int, rng *rand.ChaCha8) *stripes {
	t.Helper()

	m, err := geometry.New(raid.Geometry{Level: raid.Level5, Layout: layout, Disks: disks, Chunk: 16, Size: 64})
	if err != nil {
		t.Fatal(err)
	}

	s := &stripes{m: m}
	for range disks {
		member := make([]byte, 64*raid.SectorSize)
		rng.Read(member)
		s.members = append(s.members, member)
		s.logs = append(s.logs, PPLArea{Bytes: make([]byte, 16<<10), Signature: 77, Ring: true})
	}

	for row := range m.Rows() {
		p := s.members[m.ParitySlot(row)][row*16*raid.SectorSize:][:16*raid.SectorSize]
		clear(p)

		for d := range m.DataDisks() {
			xor(p, s.members[m.DataSlot(row, d)][row*16*raid.SectorSize:])
		}
	}

	return s
}

func xor(dst, src []byte) {
	for i := range dst {
		dst[i] ^= src[i]
	}
}

// at returns n sectors of a member.
func (s *stripes) at(slot raid.Slot, sector, n raid.Sectors) []byte {
	return s.members[slot][sector.Bytes():][:n.Bytes()]
}

// TestRecoverPPL writes the same rows of some chunks of a stripe as md does,
// and cuts that off: some of the data is new, some old, and parity anything.
// With what the log says, no other data depends on it any more: whichever
// member is lost then, or was all along, its chunk is what it was.
func TestRecoverPPL(t *testing.T) {
	seed := [32]byte{1, 2, 3}
	rng := rand.NewChaCha8(seed)
	dice := rand.New(rng)
	skipped := 0

	for range 600 {
		disks := 3 + dice.IntN(4)
		s := newStripes(t, raid.Layout(dice.IntN(6)), disks, rng)
		row := int64(dice.IntN(int(s.m.Rows())))
		parity := s.m.ParitySlot(row)
		before := make([][]byte, disks)

		for i := range before {
			before[i] = bytes.Clone(s.members[i])
		}

		// Chunks [first, first+n), rows [from, to) of the stripe.
		n := 1 + dice.IntN(s.m.DataDisks())
		first := dice.IntN(s.m.DataDisks() - n + 1)
		from := raid.Sectors(dice.IntN(16))
		to := from + 1 + raid.Sectors(dice.IntN(int(16-from)))
		start := raid.Sectors(row) * 16

		h := &PPLHeader{Signature: 77, Generation: 3}
		entry := PPLEntry{
			Sector: (raid.Sectors(row)*raid.Sectors(s.m.DataDisks())+raid.Sectors(first))*16 + from,
			Data:   uint32(int64(n) * (to - from).Bytes()), Parity: parity,
		}

		partial := make([]byte, 0, 8192)
		if n < s.m.DataDisks() {
			partial = bytes.Clone(s.at(parity, start+from, to-from))
			for d := first; d < first+n; d++ {
				xor(partial, s.at(s.m.DataSlot(row, d), start+from, to-from))
			}

			entry.Partial = uint32(len(partial))
		}

		entry.Checksum = PPLChecksum(partial)
		h.Entries = []PPLEntry{entry}
		area := s.logs[parity].Bytes
		h.Encode(area)
		copy(area[PPLHeaderSize:], partial)

		// The crash.
		for d := first; d < first+n; d++ {
			for r := from; r < to; r++ {
				if dice.IntN(2) == 0 {
					rng.Read(s.at(s.m.DataSlot(row, d), start+r, 1))
				}
			}
		}

		rng.Read(s.at(parity, start+from, to-from))

		missing := raid.Slot(dice.IntN(disks + 1)) // or none
		got := RecoverPPL(s.m, parity, s.logs[parity], func(slot raid.Slot) bool { return slot != missing })

		if got.Entries != 1 || got.Mismatches != 0 {
			t.Fatalf("%+v", got)
		}

		index := -1
		if int(missing) < disks {
			index = s.m.DataIndex(row, missing)
		}

		if lost := index >= first && index < first+n; lost != (len(got.Redo) == 0) {
			t.Fatalf("%d rows to redo with member %d missing, which was written to: %t", len(got.Redo), missing, lost)
		} else if lost {
			skipped++

			continue
		}

		if missing == parity {
			continue // whose log nobody can read
		}

		s.redo(got.Redo)

		// Every chunk that was not written to comes out of the others.
		for d := range s.m.DataDisks() {
			if d >= first && d < first+n {
				continue
			}

			slot := s.m.DataSlot(row, d)

			sum := bytes.Clone(s.at(parity, start, 16))
			for other := range s.m.DataDisks() {
				if other != d {
					xor(sum, s.at(s.m.DataSlot(row, other), start, 16))
				}
			}

			if !bytes.Equal(sum, before[slot][start.Bytes():][:16*raid.SectorSize]) {
				t.Fatalf("the chunk of member %d, which nobody wrote to, is another", slot)
			}
		}
	}

	if skipped == 0 {
		t.Error("no member was missing that was written to")
	}
}

func (s *stripes) redo(all []PPLRedo) {
	for _, r := range all {
		n := r.Component.To - r.Component.From
		sum := make([]byte, n.Bytes())

		if r.Partial != nil {
			copy(sum, r.Partial)
		}

		for _, slot := range r.Data {
			xor(sum, s.at(slot, r.Component.From, n))
		}

		copy(s.at(r.Parity, r.Component.From, n), sum)
	}
}

// TestRecoverPPLOthers recovers entries that md reads and does not write: the
// rows of one stripe of which not all have the same chunks.
func TestRecoverPPLOthers(t *testing.T) {
	m, err := geometry.New(raid.Geometry{Level: raid.Level5, Layout: raid.ParityLast, Disks: 4, Chunk: 32, Size: 64})
	if err != nil {
		t.Fatal(err)
	}

	partial := make([]byte, 32*raid.SectorSize)
	for i := range partial {
		partial[i] = byte(i / raid.SectorSize)
	}

	for _, tt := range []struct {
		name   string
		sector raid.Sectors
		data   raid.Sectors
		want   []PPLRedo
	}{
		{
			// Rows 8 of 1 to 16 of 2: all but the first 8 of 1 and the last 16 of 2.
			name: "two chunks, not whole", sector: 40, data: 40, want: []PPLRedo{
				{Component: span(8, 16), Parity: 3, Data: []raid.Slot{1, 2}, Partial: partial[:8*512]},
				{Component: span(16, 32), Parity: 3, Data: []raid.Slot{1}, Partial: partial[8*512 : 24*512]},
				{Component: span(0, 8), Parity: 3, Data: []raid.Slot{2}, Partial: partial[24*512 : 32*512]},
			},
		},
		{
			name: "the end of one and the beginning of the next", sector: 56, data: 16, want: []PPLRedo{
				{Component: span(24, 32), Parity: 3, Data: []raid.Slot{1}, Partial: partial[:8*512]},
				{Component: span(0, 8), Parity: 3, Data: []raid.Slot{2}, Partial: partial[8*512 : 16*512]},
			},
		},
	} {
		area := make([]byte, 64<<10)
		(&PPLHeader{Entries: []PPLEntry{{
			Sector: tt.sector, Data: uint32(tt.data.Bytes()), Partial: uint32(len(partial)), Parity: 3, Checksum: PPLChecksum(partial),
		}}}).Encode(area)
		copy(area[PPLHeaderSize:], partial)

		got := RecoverPPL(m, 3, PPLArea{Bytes: area}, func(raid.Slot) bool { return true })
		if diff := cmp.Diff(tt.want, got.Redo); diff != "" || got.Mismatches > 0 {
			t.Errorf("%s: %d mismatches (-want +got):\n%s", tt.name, got.Mismatches, diff)
		}
	}
}

// TestRecoverPPLMismatch counts what cannot be relied upon.
func TestRecoverPPLMismatch(t *testing.T) {
	m, err := geometry.New(raid.Geometry{Level: raid.Level5, Layout: raid.ParityLast, Disks: 4, Chunk: 32, Size: 64})
	if err != nil {
		t.Fatal(err)
	}

	good := PPLEntry{Sector: 8, Data: 4096, Partial: 4096, Parity: 3, Checksum: PPLChecksum(make([]byte, 4096))}

	for name, tt := range map[string]struct {
		edit func(*PPLEntry)
		ok   bool
	}{
		"good":                       {func(*PPLEntry) {}, true},
		"of nothing":                 {func(e *PPLEntry) { *e = PPLEntry{} }, true},
		"checksum":                   {func(e *PPLEntry) { e.Checksum++ }, false},
		"checksum of nothing":        {func(e *PPLEntry) { *e = PPLEntry{Checksum: 1} }, false},
		"parity elsewhere":           {func(e *PPLEntry) { e.Parity = 2 }, false},
		"odd bytes":                  {func(e *PPLEntry) { e.Data++ }, false},
		"more chunks than there are": {func(e *PPLEntry) { e.Data = 4 * 4096 }, false},
		"less than a row":            {func(e *PPLEntry) { e.Data = 512 }, false},
		"beyond the array":           {func(e *PPLEntry) { e.Sector = 6 * 32 }, false},
		"far beyond":                 {func(e *PPLEntry) { e.Sector = raid.MaxSectors >> 1 }, false},
		"across stripes":             {func(e *PPLEntry) { e.Sector, e.Data = 88, 2*4096 }, false},
		"longer than the area":       {func(e *PPLEntry) { e.Partial = 1 << 31 }, false},
	} {
		e := good
		tt.edit(&e)

		area := make([]byte, 64<<10)
		(&PPLHeader{Entries: []PPLEntry{e}}).Encode(area)

		got := RecoverPPL(m, 3, PPLArea{Bytes: area}, func(raid.Slot) bool { return true })
		if ok := got.Mismatches == 0; ok != tt.ok || ok != (got.Entries == 1) {
			t.Errorf("%s: %+v", name, got)
		}
	}

	if got := RecoverPPL(m, 3, PPLArea{}, nil); got.Mismatches != 1 {
		t.Errorf("no log: %+v", got)
	}
}

// FuzzRecoverPPL has it recover anything that calls itself a log.
func FuzzRecoverPPL(f *testing.F) {
	f.Add(uint64(8), uint32(4096), uint32(4096), uint32(3), 4, int64(32))
	f.Add(uint64(40), uint32(32*512), uint32(40*512), uint32(3), 4, int64(32))
	f.Add(uint64(0), uint32(0), uint32(96*512), uint32(3), 4, int64(32))

	f.Fuzz(func(t *testing.T, sector uint64, partial, data, parity uint32, disks int, chunk int64) {
		m, err := geometry.New(raid.Geometry{
			Level: raid.Level5, Layout: raid.ParityLast, Disks: disks, Chunk: raid.Sectors(chunk), Size: 1 << 20,
		})
		if err != nil || disks > 64 {
			return
		}

		area := make([]byte, 1<<16)
		h := PPLHeader{Entries: []PPLEntry{{
			Sector: raid.Sectors(sector), Partial: partial, Data: data, Parity: raid.Slot(parity),
			Checksum: PPLChecksum(make([]byte, min(partial, 1<<16))),
		}}}
		h.Encode(area)

		for _, r := range RecoverPPL(m, 3, PPLArea{Bytes: area}, func(raid.Slot) bool { return true }).Redo {
			n := r.Component.To - r.Component.From
			if n < 1 || r.Component.From < 0 || r.Component.To > m.ComponentSectors() || n > m.Chunk() {
				t.Fatalf("redo %+v", r)
			}

			if r.Partial != nil && len(r.Partial) != int(n.Bytes()) {
				t.Fatalf("redo %v with %d bytes of partial parity", r.Component, len(r.Partial))
			}
		}
	})
}

// TestEmptyPPL reads the log of a member that was added.
func TestEmptyPPL(t *testing.T) {
	area := metadata.PPL{Signature: 0x5eed}.Empty()

	h, at, err := LatestPPL(area, 0x5eed, true)
	if err != nil || at != 0 || len(h.Entries) != 0 {
		t.Errorf("LatestPPL() = %+v at %d, error %v, want it to be empty", h, at, err)
	}
}
