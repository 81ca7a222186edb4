package rescue

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/intent"
	"raid-assembler/pkg/engine/parity"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

const logSignature = 0x1234

// tornArray is a RAID5 that lost power within a write: what of the data and of
// the parity landed is drawn. What the log of the parity's member has is as it
// should be.
type tornArray struct {
	g       raid.Geometry
	disks   [][]byte
	before  []byte
	after   []byte
	from    int64 // of what was being written, in bytes of the array
	to      int64
	parity  raid.Slot
	logFrom int64 // where the log is on each member
}

func drawTorn(t *rapid.T) tornArray {
	g := raid.Geometry{
		Level: raid.Level5, Layout: raid.Layout(rapid.IntRange(0, 5).Draw(t, "layout")),
		Disks: rapid.IntRange(3, 6).Draw(t, "disks"), Chunk: 8, Size: 64,
	}

	m, err := geometry.New(g)
	if err != nil {
		t.Fatal(err)
	}

	noise := rand.NewChaCha8([32]byte{byte(rapid.IntRange(0, 255).Draw(t, "seed"))})
	a := tornArray{g: g, before: make([]byte, m.ArraySectors().Bytes()), logFrom: (dataOffset + g.Size).Bytes()}
	_, _ = noise.Read(a.before) // never fails

	for range g.Disks {
		a.disks = append(a.disks, make([]byte, a.logFrom+2*intent.PPLHeaderSize))
	}

	fill(m, g, a.disks, a.before)

	row := rapid.Int64Range(0, m.Rows()-1).Draw(t, "row")
	first := raid.Sectors(row) * m.RowSectors()

	// Either a part of one chunk, or some whole chunks.
	from := raid.Sectors(rapid.Int64Range(0, int64(m.RowSectors())-1).Draw(t, "from"))
	to := raid.Sectors(rapid.Int64Range(int64(from)+1, int64(from-from%g.Chunk+g.Chunk)).Draw(t, "to"))

	if rapid.Bool().Draw(t, "whole chunks") {
		from -= from % g.Chunk
		most := int64((m.RowSectors() - from) / g.Chunk)
		to = from + g.Chunk*raid.Sectors(rapid.Int64Range(1, most).Draw(t, "chunks"))
	}

	a.from, a.to, a.parity = (first + from).Bytes(), (first + to).Bytes(), m.ParitySlot(row)
	a.after = bytes.Clone(a.before)
	_, _ = noise.Read(a.after[a.from:a.to])

	strip := min(to-from, g.Chunk)
	a.writeLog(m, row, from, strip, (to - from).Bytes())
	a.land(t, m, first+from, first+to)

	return a
}

// writeLog writes what md would before the write: the XOR of the data that it
// does not modify.
func (a *tornArray) writeLog(m *geometry.Map, row int64, from, strip raid.Sectors, modified int64) {
	partial := make([]byte, strip.Bytes())
	at := (dataOffset + raid.Sectors(row)*a.g.Chunk + from%a.g.Chunk).Bytes()
	written := int(modified / strip.Bytes())
	whole := written == m.DataDisks()

	for d := range m.DataDisks() {
		if first := int(from / a.g.Chunk); d < first || d >= first+written {
			parity.XORInto(partial, a.disks[m.DataSlot(row, d)][at:at+strip.Bytes()])
		}
	}

	entry := intent.PPLEntry{
		Sector: raid.Sectors(a.from / raid.SectorSize), Partial: uint32(len(partial)), Data: uint32(modified),
		Parity: a.parity, Checksum: intent.PPLChecksum(partial),
	}
	if whole {
		entry.Partial, entry.Checksum = 0, intent.PPLChecksum(nil)
	}

	for slot := range a.disks {
		h := intent.PPLHeader{Signature: logSignature, Generation: 7}
		if raid.Slot(slot) == a.parity {
			h.Entries = []intent.PPLEntry{entry}
		}

		log := a.disks[slot][a.logFrom:]
		h.Encode(log)
		copy(log[intent.PPLHeaderSize:], partial)
	}
}

// land writes some of the sectors of the write, and of its parity.
func (a *tornArray) land(t *rapid.T, m *geometry.Map, from, to raid.Sectors) {
	old := a.disks
	a.disks = make([][]byte, len(old))

	finished := make([][]byte, len(old))
	for slot, disk := range old {
		a.disks[slot] = bytes.Clone(disk)
		finished[slot] = bytes.Clone(disk)
	}

	fill(m, a.g, finished, a.after)

	land := func(slot raid.Slot, component raid.Sectors) {
		at := (dataOffset + component).Bytes()
		copy(a.disks[slot][at:at+raid.SectorSize], finished[slot][at:])
	}

	for s := from; s < to; s++ {
		slot, component, _ := m.Locate(s)

		if rapid.Bool().Draw(t, "data landed") {
			land(slot, component)
		}

		if rapid.Bool().Draw(t, "parity landed") {
			land(a.parity, component)
		}
	}
}

func (a *tornArray) members() []Member {
	members := membersOf(a.g, a.disks)
	for _, m := range members {
		m.Superblock.ResyncOffset = 0
		m.Superblock.DataSize = a.g.Size
		m.Superblock.PPL = &metadata.PPL{
			Sector: raid.Sectors(a.logFrom / raid.SectorSize), Size: 2 * intent.PPLHeaderSize / raid.SectorSize,
			Signature: logSignature,
		}
	}

	return members
}

// TestLogClosesTheWriteHole: after a power cut within a write, and without one
// member, every sector that was not being written has what it had, and nothing
// is said to be doubtful.
func TestLogClosesTheWriteHole(t *testing.T) {
	harmed := 0

	rapid.Check(t, func(t *rapid.T) {
		torn := drawTorn(t)
		missing := rapid.IntRange(0, torn.g.Disks-1).Draw(t, "missing")

		a, err := Open(without(torn.members(), missing), Options{})
		if err != nil {
			t.Fatal(err)
		}

		if w := a.Warnings(); len(w) != 0 {
			t.Fatalf("warnings %q, want none", w)
		}

		if at := torn.firstWrong(t, a); at >= 0 {
			t.Fatalf("byte %d differs; %d to %d were being written", at, torn.from, torn.to)
		}

		// The log has to matter, in one case or another.
		a.patches = nil
		if torn.firstWrong(t, a) >= 0 {
			harmed++
		}
	})

	if harmed == 0 {
		t.Error("without its log nothing is lost: the test proves nothing")
	}
}

// firstWrong returns the first byte that was not being written and is not what
// it was, or -1.
func (a *tornArray) firstWrong(t *rapid.T, from *Array) int {
	got := make([]byte, len(a.before))
	if _, err := from.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}

	for i, b := range a.before {
		if got[i] != b && (int64(i) < a.from || int64(i) >= a.to) {
			return i
		}
	}

	return -1
}

// TestLogThatCannotBeUsed: a log that is not right, or not there, leaves the
// doubt in place, and is not used.
func TestLogThatCannotBeUsed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		torn := drawTorn(t)
		members := torn.members()
		slot := rapid.IntRange(0, torn.g.Disks-1).Draw(t, "slot")

		switch rapid.IntRange(0, 5).Draw(t, "fault") {
		case 0:
			members[slot].Superblock.PPL = nil
		case 1:
			torn.disks[slot][torn.logFrom+512]++ // another array's
		case 2:
			torn.disks[slot][torn.logFrom+532]++ // the checksum
		case 3:
			members[slot].Superblock.PPL.Sector = members[slot].Source.Size // beyond the end
		case 4: // none is in use
			for i := range torn.disks {
				copy(torn.disks[i][torn.logFrom:], metadata.PPL{Signature: logSignature}.Empty())
			}
		case 5: // not all of it was ever redundant
			for i := range members {
				members[i].Superblock.ResyncOffset = 8
			}

			slot = torn.g.Disks // none is wrong
		}

		a, err := Open(without(members, (slot+1)%torn.g.Disks), Options{})
		if err != nil {
			t.Fatal(err)
		}

		if w := a.Warnings(); len(w) != 1 {
			t.Fatalf("warnings %q, want one", w)
		}

		for _, p := range a.patches {
			if p.slot == raid.Slot(slot) {
				t.Fatalf("a log that is not right is used for %d bytes", len(p.data))
			}
		}
	})
}
