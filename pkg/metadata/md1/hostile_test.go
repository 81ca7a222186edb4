package md1

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"testing"

	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/intent"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// patchwork is a device of any size that holds some pieces and zeros.
type patchwork map[int64][]byte

func (p patchwork) ReadAt(buf []byte, off int64) (int, error) {
	clear(buf)

	for at, piece := range p {
		from, to := max(at, off), min(at+int64(len(piece)), off+int64(len(buf)))
		if from < to {
			copy(buf[from-off:to-off], piece[from-at:])
		}
	}

	return len(buf), nil
}

// FuzzKeep has a member be kept that says anything of its bitmap, its bad
// blocks and its log: nothing panics, no write lies over what it must not, and
// nobody takes more memory than there is.
func FuzzKeep(f *testing.F) {
	header := make([]byte, bitmapHeaderSize)
	image := make([]byte, 64<<10)
	putIntent(image, sample(withIntent), 42)
	copy(header, image[16*512:])

	f.Add(uint32(1), int32(8), int32(32), uint16(8), uint8(0), int32(5), uint32(2), int64(31744), uint32(8), uint32(3), header, []byte{})
	f.Add(uint32(9), int32(8), int32(32), uint16(8), uint8(0), int32(10), uint32(0x102), int64(1)<<34, uint32(8), uint32(1920), header, []byte{8, 4, 0, 0})
	f.Add(uint32(0xc19), int32(-8), int32(-32), uint16(9), uint8(3), int32(1), uint32(0), int64(1)<<34, uint32(0), uint32(2), header, []byte{})

	f.Add(uint32(0x800), int32(2000<<16|8), int32(2030), uint16(8), uint8(0), int32(5), uint32(2), int64(31744), uint32(8), uint32(3), header, []byte{})

	// The largest that is kept.
	large := bytes.Clone(header)
	binary.LittleEndian.PutUint32(large[offBitmapChunk:], 1<<21)
	f.Add(uint32(1), int32(-2000), int32(0), uint16(0), uint8(0), int32(1), uint32(0), int64(1)<<34, uint32(0), uint32(3), large, []byte{})

	f.Fuzz(func(t *testing.T, features uint32, bitmapOffset, bblogOffset int32, bblogSize uint16, shift uint8,
		level int32, layout uint32, size int64, chunk, disks uint32, header, log []byte,
	) {
		const memoryMax = 16 << 20

		raw := sample(func(r *Raw) {
			r.FeatureMap, r.BitmapOffset = Feature(features), bitmapOffset
			r.BblogOffset, r.BblogSize, r.BblogShift = bblogOffset, bblogSize, shift
			r.Level, r.Layout, r.Chunksize, r.RaidDisks = level, layout, chunk, disks
			r.Size, r.DataSize = uint64(size), uint64(size)
		})

		// Room for a large bitmap in front of the data.
		raw.DataOffset = 1 << 20
		if bitmapOffset < 0 {
			raw.BitmapOffset = 64 - bitmapOffset
		}

		pieces := patchwork{8 * 512: raw.Encode()}
		src := metadata.Source{ReaderAt: pieces, Size: 1 << 40, Block: raid.SectorSize}

		if len(header) >= bitmapHeaderSize {
			binary.LittleEndian.PutUint32(header, bitmapMagic)
			copy(header[offBitmapUUID:], raw.SetUUID[:])
			pieces[bitmapPlace(raw).Bytes()] = header
		}

		if bblogOffset != 0 {
			pieces[(8+int64(bblogOffset))*512] = log
		}

		var before, after runtime.MemStats

		runtime.ReadMemStats(&before)
		keepHostile(t, src)
		runtime.ReadMemStats(&after)

		if took := after.TotalAlloc - before.TotalAlloc; took > memoryMax {
			t.Errorf("took %d bytes", took)
		}
	})
}

func keepHostile(t *testing.T, src metadata.Source) {
	t.Helper()

	sb, err := Format{}.Probe(src)
	if err != nil || sb.Unsupported != "" {
		return
	}

	k, err := Format{}.Keep([]metadata.Attachment{{Superblock: sb, Source: src}})
	if err != nil {
		return
	}

	member := metadata.MemberRecord{State: raid.InSync}
	if slot, ok := sb.Role(sb.Number).Slot(); ok {
		member.Slot = slot
	}

	writes := []metadata.Write{}

	if b := k.Bitmap(); b != nil {
		m := intent.NewMap(b, 0)
		m.Begin(raid.Range{From: 0, To: 1})
		m.End(raid.Range{From: 0, To: 1}, false)

		defer func() {
			size, _ := b.Blocks()
			checkHostile(t, sb, b.Write(0))
			checkHostile(t, sb, b.Write((len(b.Bits())+255)/size))
		}()
	}

	if log := k.Log(0); log != nil {
		checkHostile(t, sb, []metadata.Write{{Sector: log.Sector, Data: make([]byte, log.Size.Bytes())}})
	}

	for _, stage := range k.Record(metadata.State{Members: records(member), Now: now}) {
		writes = append(writes, stage...)
	}

	checkHostile(t, sb, writes)
}

// checkHostile checks that writes lie over neither the data nor, but for its
// own, the superblock.
func checkHostile(t *testing.T, sb *metadata.Superblock, writes []metadata.Write) {
	t.Helper()

	for _, w := range writes {
		end := w.Sector + raid.Sectors(len(w.Data)/raid.SectorSize)

		switch {
		case w.Sector < 0 || w.Sector < sb.DataOffset+sb.DataSize && end > sb.DataOffset:
			t.Errorf("writes sectors %d to %d, the data is at %d+%d", w.Sector, end, sb.DataOffset, sb.DataSize)
		case w.Sector != 8 && w.Sector < 9 && end > 8:
			t.Errorf("writes sectors %d to %d over the superblock", w.Sector, end)
		}
	}
}

// TestSyncSectors compares what a bitmap covers with what a resync goes over.
func TestSyncSectors(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	seen := map[raid.Level]int{}

	for range 3000 {
		g := raid.Geometry{
			Level: []raid.Level{1, 4, 5, 6, 10}[rng.IntN(5)],
			Disks: 2 + rng.IntN(7), Chunk: 8 << rng.IntN(5), Size: raid.Sectors(1 + rng.IntN(1<<20)),
		}

		switch g.Level {
		case raid.Level1:
			g.Chunk = 0
		case raid.Level5:
			g.Layout = raid.Layout(rng.IntN(6))
		case raid.Level10:
			g.Layout = raid.Layout(1 + rng.IntN(3) | (1+rng.IntN(3))<<8 | rng.IntN(2)<<16)
		}

		m, err := geometry.New(g)
		if err != nil {
			continue
		}

		raw := sample(func(r *Raw) {
			r.Level, r.Layout, r.Size = int32(g.Level), uint32(g.Layout), uint64(g.Size)
			r.Chunksize, r.RaidDisks = uint32(g.Chunk), uint32(g.Disks)
		})

		seen[g.Level]++

		if got := syncSectors(raw); got != m.SyncSectors() {
			t.Fatalf("%+v: the bitmap covers %d sectors, a resync %d", g, got, m.SyncSectors())
		}

		if got := arraySectors(raw); got != m.ArraySectors() {
			t.Fatalf("%+v: %d sectors, want %d", g, got, m.ArraySectors())
		}
	}

	if len(seen) != 5 {
		t.Errorf("levels %v", seen)
	}
}
