package ddf

import (
	"bytes"
	"testing"

	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

// TestGolden: what mdadm made is read, whichever copy is left, and the two have
// the same to say.
func TestGolden(t *testing.T) {
	for _, name := range conformance.GoldenNames(t, "ddf") {
		g := conformance.LoadGolden(t, name)

		for i := range g.Members {
			src := g.Source(i)

			sb, err := Format{}.Probe(src)
			if err != nil {
				t.Fatalf("%s %d: %v", name, i, err)
			}

			slot, ok := sb.Role(sb.Number).Slot()
			if !ok || sb.Unsupported != "" || !sb.Clean() || sb.Level != g.Level || sb.Disks != g.RaidDisks || sb.Name != "vol" {
				t.Errorf("%s %d: slot %d, %+v", name, i, slot, sb)
			}

			if size := capacity(sb.Geometry, sb.Size).Bytes(); size != g.ArraySize {
				t.Errorf("%s: %d bytes, want %d", name, size, g.ArraySize)
			}

			r := sb.Raw.(*Raw)

			for n, a := range r.copies {
				if a == nil || a.form.inverted || !bytes.Contains([]byte(g.Said[i]), []byte("Redundant hdr : yes")) {
					t.Fatalf("%s %d: copy %d is not whole", name, i, n)
				}

				g.Images[i][a.at.Bytes()+offGUID] ^= 1

				other, err := Format{}.Probe(src)
				if err != nil || other.Events != sb.Events || other.Array != sb.Array || other.Raw.(*Raw).active.kind == a.kind {
					t.Errorf("%s %d without copy %d: %v, %v", name, i, n, other, err)
				}

				g.Images[i][a.at.Bytes()+offGUID] ^= 1
			}

			if sb.Array == (raid.UUID{}) || sb.Container == (raid.UUID{}) {
				t.Errorf("%s: array %v, container %v", name, sb.Array, sb.Container)
			}
		}
	}
}
