package ddf

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

// examine returns what mdadm says of an image.
func examine(tb testing.TB, image []byte, args ...string) string {
	tb.Helper()

	path := filepath.Join(tb.TempDir(), "disk.img")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		tb.Fatal(err)
	}

	args = append(append([]string{"--examine"}, args...), path)

	out, err := exec.Command(conformance.Tool(tb, "mdadm", "mdadm"), args...).CombinedOutput()
	if err != nil {
		tb.Fatalf("mdadm %v: %v: %s", args, err, out)
	}

	return string(out)
}

// words finds a line "name[index] : value" of what mdadm said.
func words(said, name string, index int) string {
	found := regexp.MustCompile(fmt.Sprintf(`(?m)^ *%s\[%d\] : (.*)$`, name, index)).FindStringSubmatch(said)
	if found == nil {
		return "nothing"
	}

	return strings.TrimSpace(found[1])
}

// mdadmUUID returns a UUID as mdadm prints it.
func mdadmUUID(u raid.UUID) string { return u.String() }

// TestMdadmReads: mdadm reads from what we create what we do, with its own
// identities, and both arrays where a container has two.
func TestMdadmReads(t *testing.T) {
	levels := map[raid.Level]string{
		raid.LevelLinear: "CONCAT", 0: "RAID0", 1: "RAID1", 4: "RAID4", 5: "RAID5", 6: "RAID6", 10: "RAID1E",
	}

	for _, g := range geometries() {
		t.Run(nameOf(g), func(t *testing.T) {
			all := blanks(g.Disks, 512)
			first := g
			first.Size = 1024
			uuids := []raid.UUID{
				makeArray(t, all, usualTables, metadata.NewArray{Name: "a", Geometry: first, AssumeClean: true}),
				makeArray(t, all, usualTables, metadata.NewArray{Name: "bb", Geometry: g}),
			}

			for i := range all {
				sb, err := Format{}.Probe(all[i].Source())
				if err != nil || len(sb.Others) != 1 {
					t.Fatalf("Probe() = %+v, %v", sb, err)
				}

				said, brief := examine(t, all[i].Image), examine(t, all[i].Image, "--brief")

				if !strings.Contains(brief, "UUID="+mdadmUUID(sb.Container)) {
					t.Errorf("container %v; mdadm says:\n%s", sb.Container, brief)
				}

				for n, one := range sb.All() {
					if one.Array != uuids[n] || !strings.Contains(brief, "UUID="+mdadmUUID(uuids[n])) {
						t.Errorf("array %v, created %v; mdadm says:\n%s", one.Array, uuids[n], brief)
					}

					state := "Optimal, Consistent"
					if n == 1 && g.Level.HasRedundancy() {
						state = "Optimal, Not Consistent"
					}

					for name, want := range map[string]string{
						"Raid Level": levels[g.Level], "state": state, "Name": one.Name,
						"Array Size": fmt.Sprint(capacity(one.Geometry, max(one.Size, one.DataSize)) / 2),
					} {
						if got := words(said, name, n); got != want {
							t.Errorf("%s = %q to mdadm, want %q", name, got, want)
						}
					}

					if got := words(said, "Raid Devices", n); !strings.Contains(got, fmt.Sprintf("%d@%dK", i, one.DataOffset/2)) {
						t.Errorf("devices %q to mdadm, want %d at %d", got, i, one.DataOffset/2)
					}

					if clean := n == 0 || !g.Level.HasRedundancy(); one.Clean() != clean || one.Unsupported != "" {
						t.Errorf("%s: clean %t, unsupported %q", one.Name, one.Clean(), one.Unsupported)
					}
				}
			}
		})
	}
}

// TestGoldenUUID: the UUIDs are those that mdadm gave.
func TestGoldenUUID(t *testing.T) {
	g := conformance.LoadGolden(t, "ddf-raid1-2")

	sb, err := Format{}.Probe(g.Source(0))
	if err != nil {
		t.Fatal(err)
	}

	if got := sb.Array.String(); got != "ea2a5c98:04db1904:9dc93bf6:49a3df24" { // MD_UUID in detail.txt
		t.Errorf("array %s", got)
	}
}
