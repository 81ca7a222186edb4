package md0

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

// TestGolden compares what we read from members that md wrote with what mdadm
// read from them, field by field.
func TestGolden(t *testing.T) {
	for _, name := range conformance.GoldenNames(t, "md090") {
		g := loadGolden(t, name)

		for i := range g.Members {
			sb := mustProbe(t, g.Source(i))
			compareExamine(t, sb, g.Said[i])

			if slot, ok := sb.Role(sb.Number).Slot(); !ok || slot != raid.Slot(i) || sb.DataOffset != 0 || sb.DataSize != 32640 {
				t.Errorf("%s %d: %+v", name, i, sb)
			}
		}
	}
}

// examined splits what mdadm --examine prints into its fields.
func examined(text string) map[string]string {
	fields := map[string]string{}

	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, " : "); ok {
			// In brackets is the same in other units, or something about the host.
			value, _, _ = strings.Cut(value, " (")
			fields[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}

	return fields
}

// compareExamine compares sb with what mdadm says of it. Every field that
// mdadm names must be known here: a new one fails the test.
func compareExamine(t *testing.T, sb *metadata.Superblock, said string) {
	t.Helper()

	raw := sb.Raw.(*Raw)
	got := map[string]string{
		"Magic":           "a92b4efc",
		"Version":         sb.Format + ".00",
		"UUID":            sb.Array.String(),
		"Creation Time":   sb.Created.Format(time.ANSIC),
		"Update Time":     sb.Updated.Format(time.ANSIC),
		"Raid Level":      sb.Level.String(),
		"Used Dev Size":   fmt.Sprint(sb.Size / 2),
		"Raid Devices":    fmt.Sprint(sb.Disks),
		"Total Devices":   fmt.Sprint(raw.NrDisks),
		"Preferred Minor": strings.TrimPrefix(sb.Name, "md"),
		"State":           "active",
		"Active Devices":  fmt.Sprint(raw.ActiveDisks),
		"Working Devices": fmt.Sprint(raw.WorkingDisks),
		"Failed Devices":  fmt.Sprint(raw.FailedDisks),
		"Spare Devices":   fmt.Sprint(raw.SpareDisks),
		"Checksum":        fmt.Sprintf("%x - correct", raw.SbCsum),
		"Events":          fmt.Sprint(sb.Events),
		"Layout":          layoutName(sb),
		"Chunk Size":      fmt.Sprintf("%dK", sb.Chunk/2),
		"Rounding":        fmt.Sprintf("%dK", sb.Chunk/2),
		"Internal Bitmap": "present",
	}

	if sb.Clean() {
		got["State"] = "clean"
	}

	for key, want := range examined(said) {
		switch value, known := got[key]; {
		case key == "Array Size": // computed from others
		case !known:
			t.Errorf("mdadm says %q: %q, which is not compared", key, want)
		case value != want:
			t.Errorf("%s = %q, mdadm says %q", key, value, want)
		}
	}
}

func layoutName(sb *metadata.Superblock) string {
	if sb.Level == raid.Level10 {
		switch near, far := sb.Layout&0xff, sb.Layout>>8&0xff; {
		case far > 1 && sb.Layout>>16 != 0:
			return fmt.Sprintf("offset=%d", far)
		case far > 1:
			return fmt.Sprintf("far=%d", far)
		default:
			return fmt.Sprintf("near=%d", near)
		}
	}

	return sb.Layout.Name(sb.Level)
}
