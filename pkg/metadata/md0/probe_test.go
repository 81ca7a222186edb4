package md0

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

// TestOtherByteOrder: what a big-endian host wrote says the same, and is not run.
func TestOtherByteOrder(t *testing.T) {
	for _, set := range []string{"md090-raid1-2", "md090-raid5-3"} {
		for i, image := range loadGolden(t, set).Images {
			own, other := mustProbe(t, source(image)), mustProbe(t, source(swapped(t, image)))
			if !strings.Contains(other.Unsupported, "byteorder") || other.Unreadable != "" {
				t.Errorf("%s %d: unsupported %q, unreadable %q", set, i, other.Unsupported, other.Unreadable)
			}

			ignore := cmpopts.IgnoreFields(metadata.Superblock{}, "Raw", "Unsupported")
			if diff := cmp.Diff(own, other, ignore); diff != "" {
				t.Errorf("%s %d (-own +other):\n%s", set, i, diff)
			}
		}
	}
}

// TestProbe gives words of a superblock other values.
func TestProbe(t *testing.T) {
	const events, high, checkpoint, recovery, state = 39, 40, 41, 43, 33

	// entry returns the word of an entry.
	entry := func(number, word int) int { return 128 + 32*number + word }
	this := 992

	for _, tt := range []struct {
		name  string
		words map[int]uint32
		err   error
		check func(*metadata.Superblock) bool
	}{
		{"reshape", map[int]uint32{2: 91}, nil, func(sb *metadata.Superblock) bool {
			return sb.Format == "0.91" && strings.Contains(sb.Unsupported, "reshape") && sb.Unreadable != ""
		}},
		{"events", map[int]uint32{events: 7, high: 1}, nil, func(sb *metadata.Superblock) bool { return sb.Events == 1<<32+7 }},
		{"dirty", map[int]uint32{state: 0, checkpoint: 0}, nil, func(sb *metadata.Superblock) bool { return sb.ResyncOffset == 0 }},
		{"resynced in part", map[int]uint32{state: 0, checkpoint: 20, recovery: 4096}, nil, func(sb *metadata.Superblock) bool {
			return sb.ResyncOffset == 4096
		}},
		{"an old checkpoint", map[int]uint32{state: 0, checkpoint: 19, recovery: 4096}, nil, func(sb *metadata.Superblock) bool {
			return sb.ResyncOffset == 0
		}},
		{"write-mostly", map[int]uint32{entry(1, 4): 6 | 1<<9 | 1<<10}, nil, func(sb *metadata.Superblock) bool {
			return sb.WriteMostly && sb.FailFast && sb.Role(1) == 1
		}},
		{"faulty", map[int]uint32{entry(0, 4): 1}, nil, func(sb *metadata.Superblock) bool { return sb.Role(0) == raid.RoleFaulty }},
		{"removed", map[int]uint32{entry(0, 4): 8}, nil, func(sb *metadata.Superblock) bool { return sb.Role(0) == raid.RoleFaulty }},
		{"active and not in sync", map[int]uint32{entry(0, 4): 2}, nil, func(sb *metadata.Superblock) bool {
			return sb.Role(0) == raid.RoleSpare
		}},
		{"a slot too many", map[int]uint32{entry(0, 3): 3}, nil, func(sb *metadata.Superblock) bool { return sb.Role(0) == raid.RoleSpare }},
		{"raid0", map[int]uint32{7: 0, 8: 0, 64: 1<<32 - 1}, nil, func(sb *metadata.Superblock) bool {
			return sb.Layout == 0 && sb.Size == 0 && sb.Chunk == 128
		}},
		{"the largest that fits", map[int]uint32{8: 16320}, nil, func(sb *metadata.Superblock) bool { return sb.Size == sb.DataSize }},
		{"of a larger device", map[int]uint32{8: 16321}, metadata.ErrNotFound, nil},
		{"another version", map[int]uint32{2: 89}, metadata.ErrCorrupt, nil},
		{"version 1", map[int]uint32{1: 1}, metadata.ErrNotFound, nil},
		{"a version that nobody knows", map[int]uint32{1: 2}, metadata.ErrCorrupt, nil},
		{"no UUID", map[int]uint32{5: 0, 13: 0, 14: 0, 15: 0}, metadata.ErrCorrupt, nil},
		{"no disks", map[int]uint32{10: 0}, metadata.ErrCorrupt, nil},
		{"too many disks", map[int]uint32{10: 28}, metadata.ErrCorrupt, nil},
		{"no size", map[int]uint32{8: 0}, metadata.ErrCorrupt, nil},
		{"no chunk", map[int]uint32{65: 0}, metadata.ErrCorrupt, nil},
		{"an odd chunk", map[int]uint32{65: 12288}, metadata.ErrCorrupt, nil},
		{"a huge chunk", map[int]uint32{65: 1 << 31}, metadata.ErrCorrupt, nil},
		{"a number too many", map[int]uint32{this: 27}, metadata.ErrCorrupt, nil},
		{"another's number", map[int]uint32{this: 2}, nil, nil},
		{"an entry of another", map[int]uint32{entry(1, 0): 5}, metadata.ErrCorrupt, nil},
		{"an entry of another slot", map[int]uint32{entry(1, 3): 2}, metadata.ErrCorrupt, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sb, err := Format{}.Probe(source(edited(t, "md090-raid5-3", 1, tt.words)))

			switch {
			case tt.check != nil:
				if err != nil || !tt.check(sb) {
					t.Errorf("Probe() = %+v, %v", sb, err)
				}
			case tt.err == nil:
				if !errors.Is(err, metadata.ErrCorrupt) {
					t.Errorf("Probe() = %+v, %v", sb, err)
				}
			case !errors.Is(err, tt.err):
				t.Errorf("Probe() = %+v, %v, want %v", sb, err, tt.err)
			}
		})
	}
}

// FuzzProbe: whatever is in the superblock, and whatever the size of the device,
// what comes out is fit to be used, and takes no memory to speak of.
func FuzzProbe(f *testing.F) {
	for _, set := range conformance.GoldenNames(f, "md090") {
		for _, image := range loadGolden(f, set).Images {
			f.Add(uint32(len(image)/raid.SectorSize), bytes.Clone(super(f, image)))
			f.Add(uint32(len(image)/raid.SectorSize), bytes.Clone(super(f, swapped(f, image))))
		}
	}

	f.Fuzz(func(t *testing.T, size uint32, block []byte) {
		const memoryMax = 16 << 20

		at, ok := place(raid.Sectors(size))
		if !ok || len(block) != blockSize {
			return
		}

		// What is to be found out is not whether the sum protects.
		if order, ok := orderOf(block); ok {
			order.PutUint32(block[offSum:], checksum(block, order))
		}

		var before, after runtime.MemStats

		runtime.ReadMemStats(&before)
		sb, err := Format{}.Probe(metadata.Source{
			ReaderAt: sparse{at.Bytes(), block, raid.Sectors(size).Bytes()}, Size: raid.Sectors(size), Block: raid.SectorSize,
		})
		runtime.ReadMemStats(&after)

		if after.TotalAlloc-before.TotalAlloc > memoryMax {
			t.Errorf("takes %d bytes", after.TotalAlloc-before.TotalAlloc)
		}

		if (sb == nil) == (err == nil) {
			t.Fatalf("Probe() = %v, %v", sb, err)
		}

		if err != nil {
			return
		}

		if err := conformance.Bounds(sb, metadata.Source{Size: raid.Sectors(size)}); err != nil {
			t.Error(err)
		}
	})
}

// sparse is a device that holds one block, and must not be read beyond its end.
type sparse struct {
	at   int64
	data []byte
	size int64
}

func (s sparse) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > s.size {
		panic("read beyond the device")
	}

	clear(p)

	if off <= s.at && s.at+int64(len(s.data)) <= off+int64(len(p)) {
		copy(p[s.at-off:], s.data)
	}

	return len(p), nil
}
