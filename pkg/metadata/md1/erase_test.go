package md1

import (
	"errors"
	"testing"

	"raid-assembler/pkg/metadata"
)

// TestErase makes a device with superblocks of all minor versions, one of them
// damaged, of which nothing may be found when Erase's writes were done.
func TestErase(t *testing.T) {
	image := device(sample())

	for m := range 3 { // what lies at the other places is a superblock by its magic
		at, _ := minor(m).place(deviceSize)
		copy(image[at.Bytes():], sample().Encode())
	}

	src := source(image)
	if _, err := (Format{}).Probe(src); errors.Is(err, metadata.ErrNotFound) {
		t.Fatalf("Probe() error = %v before anything is erased", err)
	}

	writes, err := Format{}.Erase(src)
	if err != nil || len(writes) != 3 {
		t.Fatalf("Erase() = %d writes, %v, want 3", len(writes), err)
	}

	for _, w := range writes {
		copy(image[w.Sector.Bytes():], w.Data)
	}

	if _, err := (Format{}).Probe(src); !errors.Is(err, metadata.ErrNotFound) {
		t.Errorf("Probe() error = %v, want ErrNotFound", err)
	}

	if writes, err := (Format{}).Erase(src); err != nil || len(writes) != 0 {
		t.Errorf("Erase() again = %d writes, %v", len(writes), err)
	}
}
