package imsm

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

// said finds a line "name : value" of what mdadm said.
func said(text, name string) string {
	found := regexp.MustCompile(`(?m)^ *` + name + ` : (.*)$`).FindStringSubmatch(text)
	if found == nil {
		return "nothing"
	}

	return strings.TrimSpace(found[1])
}

// TestGolden: what mdadm made is read as mdadm reads it.
func TestGolden(t *testing.T) {
	for _, name := range conformance.GoldenNames(t, "imsm") {
		g := conformance.LoadGolden(t, name)

		for i := range g.Members {
			sb, err := Format{}.Probe(g.Source(i))
			if err != nil {
				t.Fatalf("%s %d: %v", name, i, err)
			}

			slot, ok := sb.Role(sb.Number).Slot()
			if !ok || sb.Unsupported != "" || !sb.Clean() || sb.Level != g.Level || sb.Disks != g.RaidDisks || sb.Name != "vol" ||
				sb.RecoveryOffset != raid.MaxSectors {
				t.Errorf("%s %d: slot %d, %+v", name, i, slot, sb)
			}

			if size := (sb.Size * raid.Sectors(dataDisks(sb.Geometry))).Bytes(); size != g.ArraySize {
				t.Errorf("%s: %d bytes, want %d", name, size, g.ArraySize)
			}

			r := sb.Raw.(*Raw)
			volume := g.Said[i][strings.Index(g.Said[i], "[vol]:"):]

			for _, line := range []struct{ text, name, got string }{
				{g.Said[i], "Version", r.Version},
				{g.Said[i], "Family", fmt.Sprintf("%08x", uint32(r.Family))},
				{g.Said[i], "Generation", fmt.Sprintf("%08x", sb.Events)},
				{g.Said[i], "Attributes", fmt.Sprintf("%08x (supported)", uint32(r.Attributes))},
				{g.Said[i], "Checksum", fmt.Sprintf("%08x correct", uint32(r.Checksum))},
				{g.Said[i], "Creation Time", sb.Created.Format("Mon Jan _2 15:04:05 2006")},
				{g.Said[i], "MPB Sectors", fmt.Sprint(recordBlocks(len(r.mpb), r.block))},
				{g.Said[i], "UUID", sb.Container.String()},
				{g.Said[i], fmt.Sprintf("Disk%02d Serial", sb.Number), r.Serial.String()},
				{volume, "UUID", sb.Array.String()},
				{volume, "This Slot", fmt.Sprint(slot)},
				{volume, "Sector Offset", fmt.Sprint(sb.DataOffset)},
				{volume, "Num Stripes", fmt.Sprint(r.Volumes[0].Maps[0].Stripes)},
			} {
				if want := said(line.text, line.name); line.got != want {
					t.Errorf("%s %d: %s = %q, want %q", name, i, line.name, line.got, want)
				}
			}
		}
	}
}

// TestSerial: a serial number is what Intel's firmware and mdadm make of it.
func TestSerial(t *testing.T) {
	for text, want := range map[string]string{
		"m0":                    "m0",
		"  WD-WCC4E 1234567 ":   "WD-WCC4E1234567",
		"a:b":                   "a;b",
		"0123456789abcdefghijk": "56789abcdefghijk",
		"tab\tand\x7f\xffbyte":  "taband\x7fbyte",
		"":                      "",
		" \x00 ":                "",
	} {
		if got := SerialOf(text).String(); got != want {
			t.Errorf("SerialOf(%q) = %q, want %q", text, got, want)
		}
	}
}
