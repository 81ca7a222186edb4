// Package conformance holds what every metadata module must do, as tests that
// any [metadata.Format] can be run through, and the golden images that they
// are held to.
//
// It knows nothing of any format: it makes up what happens to an array, and
// after each step, and after each crash in the midst of one, reads what the
// superblocks say. What a format keeps beside what all have in common is for
// its own tests.
//
// It is imported by tests only.
package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// Array is an array to run the suite on.
type Array struct {
	Name string
	// Make returns the members, the freshest first, in their own memory at
	// every call. All slots are in sync; members beyond are spares. A level
	// with redundancy has at least one spare.
	Make func(testing.TB) []Disk
	// Replaces says that the format knows members that are to take the place of
	// others.
	Replaces bool
	// Restarts says that the format has no way to say of a device that it is
	// being recovered: it is a spare until it is whole. It says so of itself
	// before others do, with the event count that they have.
	Restarts bool
}

// Disk is a device in memory.
type Disk struct {
	Image  []byte
	Block  int
	Serial string
	// Foreign lists what belongs to others and must outlive everything.
	Foreign []Extent
}

// Extent is a range of bytes.
type Extent struct{ Offset, Size int64 }

// Source returns d to be probed.
func (d *Disk) Source() metadata.Source {
	return metadata.Source{
		ReaderAt: bytes.NewReader(d.Image),
		Size:     raid.Sectors(len(d.Image) / raid.SectorSize),
		Block:    d.Block,
		Serial:   d.Serial,
	}
}

// Run runs the suite on the arrays given.
func Run(t *testing.T, format metadata.Format, arrays ...Array) {
	t.Helper()

	if format.Name() == "" {
		t.Error("the format has no name")
	}

	t.Run("blank", func(t *testing.T) { testBlank(t, format) })
	t.Run("garbage", func(t *testing.T) { testGarbage(t, format) })

	tried, grown := 0, 0

	for _, a := range arrays {
		t.Run(a.Name, func(t *testing.T) {
			t.Run("unreadable", func(t *testing.T) { testUnreadable(t, format, a) })
			t.Run("truncated", func(t *testing.T) { testTruncated(t, format, a) })
			t.Run("damaged", func(t *testing.T) { testDamaged(t, format, a) })
			t.Run("life", func(t *testing.T) { testLife(t, format, a) })
			t.Run("returns", func(t *testing.T) { testReturns(t, format, a) })
			t.Run("no memory", func(t *testing.T) { testAllocates(t, format, a) })
			t.Run("refusals", func(t *testing.T) { testRefusals(t, format, a) })
			t.Run("growth", func(t *testing.T) {
				if tried++; testGrow(t, format, a) {
					grown++
				}
			})
		})
	}

	if tried == len(arrays) && grown == 0 {
		t.Error("no array grew")
	}
}

// probe has format probe src and checks what holds whatever is there: exactly
// one result, an error that tells what it must, and bounds that hold.
func probe(tb testing.TB, format metadata.Format, src metadata.Source) (*metadata.Superblock, error) {
	tb.Helper()

	sb, err := format.Probe(src)
	if (sb == nil) == (err == nil) {
		tb.Fatalf("Probe() = %v, %v, want exactly one", sb, err)
	}

	if err != nil {
		if errors.Is(err, metadata.ErrNotFound) && errors.Is(err, metadata.ErrCorrupt) {
			tb.Errorf("Probe() error = %v is both not found and corrupt", err)
		}

		return nil, err
	}

	if err := Bounds(sb, src); err != nil {
		tb.Errorf("Probe() = %+v: %v", sb, err)
	}

	return sb, nil
}

// Bounds checks that sb is fit to be used without further checks.
func Bounds(sb *metadata.Superblock, src metadata.Source) error {
	if err := othersBounds(sb, src); err != nil {
		return err
	}

	if sb.Format != "" && sb.Array.IsZero() {
		return spareBounds(sb, src)
	}

	switch {
	case sb.Format == "" || sb.Array.IsZero():
		return errors.New("no format or no array")
	case sb.Disks < 1 || sb.Number < 0 || sb.Number >= len(sb.Roles):
		return fmt.Errorf("number %d of %d, %d slots", sb.Number, len(sb.Roles), sb.Disks)
	case sb.ResyncOffset < 0 || sb.RecoveryOffset < 0:
		return fmt.Errorf("resync offset %d, recovery offset %d", sb.ResyncOffset, sb.RecoveryOffset)
	}

	for number, role := range sb.Roles {
		if slot, ok := role.Slot(); ok && slot >= raid.Slot(sb.Disks) {
			return fmt.Errorf("number %d in %v of %d", number, role, sb.Disks)
		}
	}

	return space(sb, src)
}

// othersBounds is bounds for the further arrays of a container.
func othersBounds(sb *metadata.Superblock, src metadata.Source) error {
	for _, other := range sb.Others {
		if len(other.Others) > 0 || other.Array == sb.Array || other.Device != sb.Device {
			return fmt.Errorf("array %v of device %v beside array %v", other.Array, other.Device, sb.Array)
		}

		if err := Bounds(other, src); err != nil {
			return fmt.Errorf("array %v: %w", other.Array, err)
		}
	}

	return nil
}

// spareBounds is bounds for the spare of a container.
func spareBounds(sb *metadata.Superblock, src metadata.Source) error {
	switch {
	case sb.Disks != 0 || sb.Role(sb.Number) != raid.RoleSpare || len(sb.Others) > 0:
		return fmt.Errorf("a spare with %d slots, role %v, and %d others", sb.Disks, sb.Role(sb.Number), len(sb.Others))
	case sb.DataSize < 0 || sb.DataSize > src.Size:
		return fmt.Errorf("a spare with room for %d on %d sectors", sb.DataSize, src.Size)
	default:
		return nil
	}
}

// space checks that what sb says of the data is on the device.
func space(sb *metadata.Superblock, src metadata.Source) error {
	switch {
	case sb.DataOffset < 0 || sb.DataSize < 1 || sb.DataSize > src.Size-sb.DataOffset:
		return fmt.Errorf("data at %d+%d on %d sectors", sb.DataOffset, sb.DataSize, src.Size)
	case sb.Size < 0 || sb.Size > sb.DataSize:
		return fmt.Errorf("size %d of %d sectors of data", sb.Size, sb.DataSize)
	case sb.Level.HasRedundancy() == (sb.Size == 0) || len(sb.Sizes) > 0:
		return fmt.Errorf("size %d, sizes %v at %v", sb.Size, sb.Sizes, sb.Level)
	case sb.Chunk < 0 || sb.Chunk == 0 && sb.Level.HasChunks() || sb.Chunk > 0 && !mayHaveChunk(sb.Level):
		return fmt.Errorf("chunk %d at %v", sb.Chunk, sb.Level)
	default:
		return nil
	}
}

// mayHaveChunk reports whether a chunk means something: linear arrays round the
// sizes of members to it, if there is one.
func mayHaveChunk(level raid.Level) bool { return level.HasChunks() || level == raid.LevelLinear }

// countingReader counts the bytes read.
type countingReader struct {
	io.ReaderAt
	read int64
}

func (r *countingReader) ReadAt(p []byte, off int64) (int, error) {
	r.read += int64(len(p))

	return r.ReaderAt.ReadAt(p, off)
}

var errMedium = errors.New("medium error")

// badReader fails every read.
type badReader struct{}

func (badReader) ReadAt([]byte, int64) (int, error) { return 0, errMedium }
