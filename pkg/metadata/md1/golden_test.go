package md1

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

// TestGolden compares what we read from members that md wrote with what mdadm
// read from them, field by field, and checks that encoding changes nothing.
func TestGolden(t *testing.T) {
	for _, name := range conformance.GoldenNames(t, "md1") {
		t.Run(name, func(t *testing.T) {
			g := conformance.LoadGolden(t, name)
			for i := range g.Members {
				sb := mustProbe(t, g.Source(i))
				raw := sb.Raw.(*Raw)

				compareExamine(t, sb, g.Said[i])

				if sb.Unsupported != "" {
					t.Errorf("member %d: Unsupported = %q", i, sb.Unsupported)
				}

				at := raid.Sectors(raw.SuperOffset).Bytes()
				if !bytes.Equal(raw.Encode(), g.Images[i][at:at+blockSize]) {
					t.Errorf("member %d: Encode(Decode()) differs from what is on disk", i)
				}
			}
		})
	}
}

// examined splits what mdadm --examine prints into its fields.
func examined(text string) map[string]string {
	fields := map[string]string{}

	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, " : "); ok {
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
	ppl := raw.BitmapOffset // the same bytes
	entries := 64 * int(raw.BblogSize)
	got := map[string]string{
		"Magic":           "a92b4efc",
		"Version":         sb.Format,
		"Feature Map":     fmt.Sprintf("%#x", uint32(raw.FeatureMap)),
		"Array UUID":      sb.Array.String(),
		"Device UUID":     sb.Device.String(),
		"Name":            raw.SetName.String(),
		"Creation Time":   sb.Created.Format(time.ANSIC),
		"Update Time":     sb.Updated.Format(time.ANSIC),
		"Raid Level":      sb.Level.String(),
		"Raid Devices":    fmt.Sprint(sb.Disks),
		"Avail Dev Size":  fmt.Sprintf("%d sectors", sb.DataSize),
		"Data Offset":     fmt.Sprintf("%d sectors", sb.DataOffset),
		"Super Offset":    fmt.Sprintf("%d sectors", raw.SuperOffset),
		"State":           "clean",
		"Bad Block Log":   fmt.Sprintf("%d entries available at offset %d sectors", entries, raw.BblogOffset),
		"Checksum":        fmt.Sprintf("%x - correct", raw.SbCsum),
		"Events":          fmt.Sprint(sb.Events),
		"Chunk Size":      fmt.Sprintf("%dK", sb.Chunk/2),
		"Internal Bitmap": fmt.Sprintf("%d sectors from superblock", raw.BitmapOffset),
		"Device Role":     examineRole(sb),
		"Array State":     examineState(sb) + " ('A' == active, '.' == missing, 'R' == replacing)",
		"PPL":             fmt.Sprintf("%d sectors at offset %d sectors from superblock", ppl>>16, int16(ppl)),
		"Used Dev Size":   fmt.Sprintf("%d sectors", sb.Size),
		"Layout":          examineLayout(sb),
		"Recovery Offset": fmt.Sprintf("%d sectors", sb.RecoveryOffset),
	}

	if !sb.Clean() {
		got["State"] = "active"
	}

	if sb.Host != "" && sb.Host+":"+sb.Name != raw.SetName.String() {
		t.Errorf("Host, Name = %q, %q of %q", sb.Host, sb.Name, raw.SetName)
	}

	for key, want := range examined(said) {
		// In brackets is the same in other units, or something about the host.
		if key != "Array State" {
			want, _, _ = strings.Cut(want, " (")
			want = strings.TrimSpace(want)
		}

		switch value, known := got[key]; {
		case key == "Array Size" || key == "Unused Space": // computed from others
		case !known:
			t.Errorf("mdadm says %q: %q, which is not compared", key, want)
		case value != want:
			t.Errorf("%s = %q, mdadm says %q", key, value, want)
		}
	}
}

func examineRole(sb *metadata.Superblock) string {
	if slot, ok := sb.Role(sb.Number).Slot(); ok {
		return fmt.Sprintf("Active device %d", slot)
	}

	return sb.Role(sb.Number).String()
}

func examineState(sb *metadata.Superblock) string {
	state := bytes.Repeat([]byte("."), sb.Disks)

	for _, role := range sb.Roles {
		if slot, ok := role.Slot(); ok {
			state[slot] = 'A'
		}
	}

	return string(state)
}

func examineLayout(sb *metadata.Superblock) string {
	switch sb.Level {
	case raid.Level0:
		return map[raid.Layout]string{1: "original", 2: "alternate"}[sb.Layout]
	case raid.Level10:
		if far := sb.Layout >> 8; far > 1 {
			return fmt.Sprintf("far=%d", far)
		}

		return fmt.Sprintf("near=%d", sb.Layout&0xff)
	default:
		return sb.Layout.Name(sb.Level)
	}
}
