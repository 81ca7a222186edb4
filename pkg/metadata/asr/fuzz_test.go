package asr

import (
	"bytes"
	"encoding/json"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// FuzzProbe holds Probe to exactly one result, to bounds that hold, and to bounded
// reads, whatever is on the device and however large it is; and the keeper of what
// can be run to its own places.
func FuzzProbe(f *testing.F) {
	add := func(end []byte, size raid.Sectors) {
		used := headSize + int(order.Uint16(end[offCount:]))*lineSize
		f.Add(end[:used], end[tableSectors*raid.SectorSize:][offDrive:offDrive+4], uint32(size-17), uint32(size), true)
	}

	for _, name := range []string{"stripes", "mirror", "recovering"} {
		for _, d := range states(f)[name] {
			add(d.Image[(deviceSize-17).Bytes():], deviceSize)
		}
	}

	add(sample(f)[(5384-17)*512:], sampleSize)
	f.Fuzz(func(t *testing.T, table, drive []byte, at, size uint32, sealed bool) {
		const length = 17 * raid.SectorSize

		end := append(bytes.Clone(table[:min(len(table), length)]), make([]byte, length)...)[:length]
		block := end[tableSectors*raid.SectorSize:]
		order.PutUint32(block, magicBlock)
		order.PutUint32(block[offSoftware:], magicSoftware)
		order.PutUint32(block[offTable:], at)
		block[offVersion] = blockVersion
		copy(block[offDrive:][:4], drive)

		if sealed && order.Uint16(end[offCount:]) <= linesMax {
			seal(end)

			if s := (stamp{order.Uint32(end[offStamp:]), order.Uint16(end[offStamp+offOfSeq:])}); s.Count > 0 {
				s.put(end, order.Uint32(block[offDrive:]))
			}
		}

		src := metadata.Source{Size: raid.Sectors(size), Block: raid.SectorSize}
		reader := &counting{ending: ending{src.Size.Bytes() - length, end}}
		src.ReaderAt = reader

		sb, err := Format{}.Probe(src)
		if (sb == nil) == (err == nil) {
			t.Fatalf("Probe() = %v, %v, want exactly one", sb, err)
		}

		if reader.read > length {
			t.Errorf("Probe() read %d bytes", reader.read)
		}

		if err != nil {
			return
		}

		if sb.DataOffset != 0 || sb.DataSize < 1 || sb.DataSize > src.Size || sb.Size > sb.DataSize {
			t.Errorf("%d sectors of %d used, on %d sectors", sb.Size, sb.DataSize, src.Size)
		}

		if !sb.Array.IsZero() && (sb.Number >= len(sb.Roles) || sb.Disks < 1 || sb.Level.HasRedundancy() == (sb.Size == 0)) {
			t.Errorf("Probe() = %+v", sb)
		}

		if _, err := json.Marshal(sb); err != nil {
			t.Errorf("superblock as JSON: %v", err)
		}

		if sb.Unsupported == "" && !sb.Array.IsZero() {
			fuzzKeep(t, sb, src)
		}
	})
}

// fuzzKeep has the keeper of what a disk says record something.
func fuzzKeep(t *testing.T, sb *metadata.Superblock, src metadata.Source) {
	k, err := Format{}.Keep([]metadata.Attachment{{Superblock: sb, Source: src}})
	if err != nil {
		return
	}

	record := metadata.MemberRecord{State: raid.Spare, Slot: raid.NoSlot}
	if slot, ok := sb.Role(sb.Number).Slot(); ok {
		record = metadata.MemberRecord{State: raid.InSync, Slot: slot}
	}

	for _, w := range k.Record(metadata.State{Members: map[metadata.MemberID]metadata.MemberRecord{0: record}})[0] {
		if end := w.Sector + raid.Sectors(len(w.Data)/raid.SectorSize); w.Sector < sb.DataSize || end >= src.Size {
			t.Errorf("writes sectors %d to %d of %d, and the data ends at %d", w.Sector, end, src.Size, sb.DataSize)
		}
	}
}

// counting counts the bytes that are read of a device.
type counting struct {
	ending
	read int64
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	c.read += int64(len(p))

	return c.ending.ReadAt(p, off)
}
