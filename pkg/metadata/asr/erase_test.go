package asr

import (
	"errors"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

func TestErase(t *testing.T) {
	for _, block := range []int{512, 4096} {
		image := sample(t)
		src := sampleSource(image)
		src.Block = block

		writes, err := Format{}.Erase(src)
		if err != nil || len(writes) != 1 {
			t.Fatalf("Erase() = %v, %v", writes, err)
		}

		w := writes[0]
		if w.Sector%raid.Sectors(block/512) != 0 || len(w.Data)%block != 0 {
			t.Errorf("blocks of %d: writes %d bytes at sector %d", block, len(w.Data), w.Sector)
		}

		copy(image[int64(len(image))-(sampleSize-w.Sector).Bytes():], w.Data)

		if _, err := (Format{}).Probe(src); !errors.Is(err, metadata.ErrNotFound) {
			t.Errorf("Probe() error = %v", err)
		}

		if writes, err := (Format{}).Erase(src); err != nil || writes != nil {
			t.Errorf("Erase() of nothing = %v, %v", writes, err)
		}
	}
}
