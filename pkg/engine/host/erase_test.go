package host

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/metadata/imsm"
	"raid-assembler/pkg/metadata/md0"
	"raid-assembler/pkg/raid"
	"raid-assembler/pkg/scan"
)

// disk is a device in memory.
type disk struct{ *conformance.Disk }

func newDisk() disk {
	return disk{&conformance.Disk{Image: make([]byte, 40<<20), Block: raid.SectorSize, Serial: "S0"}}
}

func (d disk) write(writes []metadata.Write) {
	for _, w := range writes {
		copy(d.Image[w.Sector.Bytes():], w.Data)
	}
}

// unreadable is one that cannot be read any more.
type unreadable struct{}

func (unreadable) ReadAt([]byte, int64) (int, error) { return 0, errors.New("it cannot be read") }

// create makes d the first member of a mirror.
func (d disk) create(t *testing.T, f metadata.Format) {
	t.Helper()

	second := newDisk().Source()
	second.Serial = "S1"

	_, stages, err := f.Create(metadata.NewArray{
		Version: f.Versions()[0], Name: "md7", Array: raid.UUID{1}, UsualLayout: true,
		Geometry: raid.Geometry{Level: raid.Level1, Disks: 2},
	}, []metadata.NewMember{{Source: d.Source(), Device: raid.UUID{1}}, {Source: second, Device: raid.UUID{2}}})
	if err != nil {
		t.Fatal(err)
	}

	for _, w := range slices.Concat(stages...) {
		if w.Member == 0 {
			d.write([]metadata.Write{w})
		}
	}

	if _, err := f.Probe(d.Source()); err != nil {
		t.Fatalf("a member of %s: %v", f.Name(), err)
	}
}

var others = scan.Formats()

// TestOtherThan: metadata of another format than the array's is found on a device that it
// is to have; after it is erased nothing is found, and it can be put back.
func TestOtherThan(t *testing.T) {
	for _, f := range others {
		d := newDisk()
		d.create(t, f)

		for _, own := range others {
			src := d.Source()

			other, err := otherThan(own.Name(), others, src, src)
			if err != nil {
				t.Fatal(err)
			}

			want := []string{f.Name()}
			if own == f {
				want = nil
			}

			if !slices.Equal(other.names, want) {
				t.Errorf("beside %s: %v, want %v", own.Name(), other.names, want)
			}

			if own == f {
				continue
			}

			was := bytes.Clone(d.Image)
			d.write(other.erased)

			for _, f := range others {
				if _, err := f.Probe(d.Source()); !errors.Is(err, metadata.ErrNotFound) {
					t.Errorf("Probe() of %s, when %v is erased: %v", f.Name(), want, err)
				}
			}

			d.write(other.as)

			if !bytes.Equal(d.Image, was) {
				t.Errorf("%v is not what it was", want)
			}

			broken := src
			broken.ReaderAt = unreadable{}

			if _, err := otherThan(own.Name(), others, src, broken); err == nil {
				t.Errorf("%v is found where nothing can be read", want)
			}
		}
	}
}

// TestOtherThanBeside: what looks like metadata on a device of a container may be the data
// of an array there.
func TestOtherThanBeside(t *testing.T) {
	d, from := newDisk(), newDisk()
	d.create(t, imsm.Format{})
	from.create(t, md0.Format{})

	found, err := otherThan("imsm", others, from.Source(), from.Source())
	if err != nil {
		t.Fatal(err)
	}

	d.write(found.as)

	for own, want := range map[string][]string{"imsm": nil, "md1": {"md0", "imsm"}, "md0": {"imsm"}} {
		other, err := otherThan(own, others, d.Source(), d.Source())
		if err != nil || !slices.Equal(other.names, want) {
			t.Errorf("beside %s: %v, %v, want %v", own, other.names, err, want)
		}
	}
}
