package conformance

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// readMax is how much a probe may read of a device: every device of the host
// is probed by every format, slow ones as well.
const readMax = 4 << 20

// sizes are those of devices on which formats have to compute places: none,
// those around 4 and 64 KiB, odd ones.
func sizes() []int64 {
	var all []int64

	for _, sectors := range []int64{
		0, 1, 2, 7, 8, 9, 15, 16, 17, 23, 24, 25, 127, 128, 129, 255, 256, 257, 1000, 4099, 32768,
	} {
		all = append(all, sectors*raid.SectorSize)
	}

	return all
}

func testBlank(t *testing.T, format metadata.Format) {
	for _, size := range sizes() {
		disk := Disk{Image: make([]byte, size), Block: raid.SectorSize}
		src := disk.Source()
		reader := &countingReader{ReaderAt: src.ReaderAt}
		src.ReaderAt = reader

		if _, err := probe(t, format, src); !errors.Is(err, metadata.ErrNotFound) {
			t.Errorf("%d bytes of zeros: Probe() error = %v, want ErrNotFound", size, err)
		}

		if reader.read > readMax {
			t.Errorf("%d bytes of zeros: Probe() read %d bytes, want at most %d", size, reader.read, readMax)
		}
	}
}

func testGarbage(t *testing.T, format metadata.Format) {
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)

	random := rand.NewChaCha8([32]byte{0: byte(seed), 1: byte(seed >> 8), 2: byte(seed >> 16), 3: byte(seed >> 24)})

	for _, size := range sizes() {
		disk := Disk{Image: make([]byte, size), Block: raid.SectorSize}
		if _, err := random.Read(disk.Image); err != nil {
			t.Fatal(err)
		}

		if sb, err := probe(t, format, disk.Source()); err == nil {
			t.Errorf("%d random bytes: Probe() = %+v", size, sb)
		}
	}
}

// testUnreadable checks that a device that cannot be read is not taken for one
// that holds nothing.
func testUnreadable(t *testing.T, format metadata.Format, a Array) {
	disk := a.Make(t)[0]

	for name, src := range map[string]metadata.Source{
		"failing": {ReaderAt: badReader{}, Size: disk.Source().Size, Block: disk.Block, Serial: disk.Serial},
		"empty":   {ReaderAt: bytes.NewReader(nil), Size: disk.Source().Size, Block: disk.Block, Serial: disk.Serial},
	} {
		_, err := probe(t, format, src)
		if err == nil || errors.Is(err, metadata.ErrNotFound) || errors.Is(err, metadata.ErrCorrupt) {
			t.Errorf("%s device: Probe() error = %v, want that it could not be read", name, err)
		}
	}
}

// testTruncated probes members cut off, and members grown.
func testTruncated(t *testing.T, format metadata.Format, a Array) {
	disk := a.Make(t)[0]
	whole := disk.Image

	for _, size := range sizes() {
		if size < int64(len(whole)) {
			disk.Image = whole[:size]
			_, _ = probe(t, format, disk.Source())
		}
	}

	disk.Image = append(bytes.Clone(whole), make([]byte, 12345*raid.SectorSize)...)
	_, _ = probe(t, format, disk.Source())
}

// testDamaged changes every byte that Record writes, one at a time: the
// superblock must be as before or not be trusted.
func testDamaged(t *testing.T, format metadata.Format, a Array) {
	h := newHistory(t, format, a)
	stages := h.keeper.Record(h.state())
	h.apply(stages)

	w := stages[len(stages)-1][0]
	disk := &h.disks[w.Member]
	good := mustProbe(t, format, disk)
	written := disk.Image[w.Sector.Bytes():][:len(w.Data)]

	for i := range written {
		flip := byte(1) << (i % 8)
		written[i] ^= flip

		if sb, err := probe(t, format, disk.Source()); err == nil && !same(good, sb) {
			t.Fatalf("byte %d ^ %#x: Probe() accepts a different superblock:\n%s", i, flip, diff(good, sb))
		}

		written[i] ^= flip
	}
}

// ignoreRaw leaves out what only the format itself understands.
var ignoreRaw = cmpopts.IgnoreFields(metadata.Superblock{}, "Raw", "Bitmap")

func same(a, b *metadata.Superblock) bool {
	x, y := *a, *b
	x.Raw, y.Raw = nil, nil
	x.Bitmap, y.Bitmap = nil, nil // which is written before, and elsewhere

	return reflect.DeepEqual(x, y) // which is asked thousands of times
}

// diff says how b differs from a, without the numbers that neither uses.
func diff(a, b *metadata.Superblock) string {
	short := cmp.Transformer("used", func(roles []raid.Role) map[int]raid.Role {
		used := map[int]raid.Role{}
		for number, role := range roles {
			if role != raid.RoleSpare && len(used) < 100 {
				used[number] = role
			}
		}

		return used
	})

	return cmp.Diff(a, b, ignoreRaw, short)
}

func mustProbe(tb testing.TB, format metadata.Format, disk *Disk) *metadata.Superblock {
	tb.Helper()

	sb, err := probe(tb, format, disk.Source())
	if err != nil {
		tb.Fatal(err)
	}

	return sb
}
