package md1

import (
	"bytes"
	"strings"
	"testing"

	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/intent"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

// TestGoldenPPL reads the partial parity logs that md wrote: it has stopped the
// array, and what the last writes left has parity already.
func TestGoldenPPL(t *testing.T) {
	g := conformance.LoadGolden(t, "md12-raid5-ppl-3")
	entries := 0

	for i, image := range g.Images {
		sb := mustProbe(t, g.Source(i))
		if sb.PPL == nil || sb.PPL.Sector != 16 || sb.PPL.Size != 2048 || !sb.PPL.Ring {
			t.Fatalf("member %d: PPL = %+v", i, sb.PPL)
		}

		slot, _ := sb.Role(sb.Number).Slot()
		area := image[sb.PPL.Sector.Bytes():][:sb.PPL.Size.Bytes()]

		h, at, err := intent.LatestPPL(area, sb.PPL.Signature, sb.PPL.Ring)
		if err != nil {
			t.Fatalf("member %d: %v", i, err)
		}

		again := make([]byte, intent.PPLHeaderSize)
		if h.Encode(again); !bytes.Equal(again, area[at:][:intent.PPLHeaderSize]) {
			t.Errorf("member %d: encoding the header of generation %d changes it", i, h.Generation)
		}

		m, err := geometry.New(sb.Geometry)
		if err != nil {
			t.Fatal(err)
		}

		r := intent.RecoverPPL(m, slot, intent.PPLArea{Bytes: area, Signature: sb.PPL.Signature, Ring: true},
			func(raid.Slot) bool { return true })
		if r.Mismatches > 0 {
			t.Errorf("member %d: %d mismatches", i, r.Mismatches)
		}

		entries += r.Entries
		t.Logf("member %d: generation %d at %d, %d entries, %d to redo", i, h.Generation, at, len(h.Entries), len(r.Redo))

		for _, redo := range r.Redo {
			checkRedo(t, g, redo)
		}
	}

	if entries == 0 {
		t.Error("md left no entries")
	}
}

// checkRedo checks that the parity on disk is what the log makes it.
func checkRedo(t *testing.T, g *conformance.Golden, redo intent.PPLRedo) {
	t.Helper()

	n := redo.Component.To - redo.Component.From
	at := func(slot raid.Slot) []byte {
		for i := range g.Images {
			sb := mustProbe(t, g.Source(i))
			if is, _ := sb.Role(sb.Number).Slot(); is == slot {
				return g.Images[i][(sb.DataOffset + redo.Component.From).Bytes():][:n.Bytes()]
			}
		}

		t.Fatalf("nobody is in slot %d", slot)

		return nil
	}

	sum := make([]byte, n.Bytes())
	copy(sum, redo.Partial)

	for _, slot := range redo.Data {
		for i, b := range at(slot) {
			sum[i] ^= b
		}
	}

	if !bytes.Equal(sum, at(redo.Parity)) {
		t.Errorf("parity of component sectors %v is not what the log makes it", redo.Component)
	}
}

// TestPPLFits checks that no log is written over what it would damage.
func TestPPLFits(t *testing.T) {
	at := func(offset int16, size uint16) func(*Raw) {
		return func(r *Raw) {
			r.FeatureMap, r.BitmapOffset = FeatureMultiplePPLs, int32(uint32(size)<<16|uint32(uint16(offset)))
			r.BblogOffset = 2030 - 8 // at the end of the gap
		}
	}

	for _, tt := range []struct {
		name  string
		edit  func(*Raw)
		block int
		want  string
	}{
		{"as mdadm has it", at(8, 2000), 512, ""},
		{"in blocks of 4096", at(8, 2000), 4096, ""},
		{"off them", at(9, 1000), 4096, "no place"},
		{"over the superblock", at(1, 100), 512, "no place"},
		{"over the bad block log", at(8, 2020), 512, "no place"},
		{"over the data", func(r *Raw) { at(8, 2040)(r); r.BblogSize = 0 }, 512, "no place"},
		{"in front of the device", at(-9, 8), 512, "no place"},
		{"too small", at(8, 15), 512, "no place"},
		{"beside a bitmap", func(r *Raw) { at(8, 2000)(r); r.FeatureMap |= FeatureBitmapOffset }, 512, "beside something else"},
		{"of both kinds", func(r *Raw) { at(8, 2000)(r); r.FeatureMap |= FeaturePPL }, 512, "beside something else"},
		{"of another level", func(r *Raw) { at(8, 2000)(r); r.Level = 6; r.RaidDisks = 4 }, 512, "level that has none"},
	} {
		src := source(device(sample(tt.edit)))
		src.Block = tt.block

		if sb := mustProbe(t, src); tt.want == "" && sb.Unsupported != "" || !strings.Contains(sb.Unsupported, tt.want) {
			t.Errorf("%s: Unsupported = %q, want %q", tt.name, sb.Unsupported, tt.want)
		}
	}
}
