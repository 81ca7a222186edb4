package imsm

import (
	"bytes"
	"runtime"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

// FuzzProbe changes bytes of the record, its length among them, and seals it anew,
// so that what is checked is not only the checksum: no panic, no memory beyond
// bounds, and what is accepted can be kept, and leaves the data alone.
func FuzzProbe(f *testing.F) {
	at := headSize + 3*diskSize
	f.Add(uint16(0), []byte{1, 2, 3}, int16(0))
	f.Add(uint16(offDiskCount), []byte{255, 255}, int16(0))
	f.Add(uint16(offLogSize), []byte{16}, int16(16))
	f.Add(uint16(at+offMigrating), []byte{1, 1, 1}, int16(mapSize+12))
	f.Add(uint16(at+volSize+offStripes), []byte{255, 255, 255, 255, 255, 255}, int16(0))
	f.Add(uint16(at+volSize+offStripesHigh), []byte{255, 255, 255, 255}, int16(0))
	f.Add(uint16(at+offPolicy), []byte{policyLogs}, int16(0))
	f.Add(uint16(at+volSize+offMembers), []byte{255}, int16(2000))

	all, _, _ := two(f, raid.Geometry{Level: raid.Level5, Disks: 3, Chunk: 128}, 512)

	r, err := loadRecord(all[0].Source())
	if err != nil {
		f.Fatal(err)
	}

	clean, mpb := bytes.Clone(all[0].Image), bytes.Clone(r.mpb)

	f.Fuzz(func(t *testing.T, at uint16, change []byte, more int16) {
		disk := conformance.Disk{Image: bytes.Clone(clean), Block: 512, Serial: all[0].Serial}

		rewrite(t, &disk, func([]byte) []byte {
			changed := append(bytes.Clone(mpb), make([]byte, max(int(more), 0))...)
			changed = changed[:max(len(changed)+min(int(more), 0), headSize)]
			copy(changed[min(int(at), len(changed)):], change)
			copy(changed, signature)

			return changed
		})

		var before, after runtime.MemStats

		runtime.ReadMemStats(&before)
		sb, err := Format{}.Probe(disk.Source())
		runtime.ReadMemStats(&after)

		if took := after.TotalAlloc - before.TotalAlloc; took > 16<<20 {
			t.Errorf("Probe() took %d bytes", took)
		}

		if err != nil {
			return
		}

		for _, one := range sb.All() {
			keepFuzzed(t, one, disk.Source())
		}
	})
}

// keepFuzzed keeps the array of a superblock, if that may be, and checks that what
// is written lies over the data of none.
func keepFuzzed(t *testing.T, sb *metadata.Superblock, src metadata.Source) {
	t.Helper()

	k, err := Format{}.Keep([]metadata.Attachment{{Superblock: sb, Source: src}})
	if err != nil {
		return
	}

	members := map[metadata.MemberID]metadata.MemberRecord{0: {State: raid.Spare, Slot: raid.NoSlot}}
	if slot, ok := sb.Role(sb.Number).Slot(); ok {
		members = inSync(slot)
	}

	for _, stage := range k.Record(state(0, members)) {
		for _, w := range stage {
			end := w.Sector + raid.Sectors(len(w.Data)/raid.SectorSize)
			if w.Sector < sb.DataOffset+sb.DataSize && end > sb.DataOffset || w.Sector < 0 || end > src.Size {
				t.Errorf("writes sectors %d to %d, the data is at %d+%d", w.Sector, end, sb.DataOffset, sb.DataSize)
			}
		}
	}
}
