package md0

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

// examine returns what mdadm says of an image.
func examine(tb testing.TB, image []byte) string {
	tb.Helper()

	path := filepath.Join(tb.TempDir(), "disk.img")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		tb.Fatal(err)
	}

	cmd := exec.Command(conformance.Tool(tb, "mdadm", "mdadm"), "--examine", "--homehost=lab", path)
	cmd.Env = append(os.Environ(), "TZ=UTC")

	out, err := cmd.CombinedOutput()
	if err != nil {
		tb.Fatalf("mdadm: %v: %s", err, out)
	}

	return string(out)
}

// compare compares what mdadm says of a device with what we do: the fields, and
// who it is.
func compare(t *testing.T, d *conformance.Disk, who string) {
	t.Helper()

	said := examine(t, d.Image)
	compareExamine(t, mustProbe(t, d.Source()), said)

	if !strings.Contains(said, "(local to host lab)") {
		t.Errorf("the array is another host's:\n%s", said)
	}

	_, this, _ := strings.Cut(said, "\nthis")

	this, _, _ = strings.Cut(this, "\n")
	if got := strings.Join(strings.Fields(this), " "); strings.Split(got, " /dev/")[0] != who {
		t.Errorf("this device is %q to mdadm, want %q:\n%s", got, who, said)
	}
}

// TestMdadmReads: mdadm reads from what we create and keep what we do.
func TestMdadmReads(t *testing.T) {
	for _, g := range geometries() {
		for _, clean := range []bool{true, false} {
			n := g.Disks
			if g.Level.HasRedundancy() {
				n++
			}

			disks := blanks(n, 512)
			uuid := makeArray(t, disks, g, func(p *metadata.NewArray) { p.AssumeClean = clean })

			for i := range disks {
				sb := mustProbe(t, disks[i].Source())
				if sb.Array != uuid || sb.Name != "md7" || sb.Clean() != (clean || !g.Level.HasRedundancy()) || sb.Unsupported != "" {
					t.Errorf("%v: %+v", g, sb)
				}

				want := []string{"0 0 0 0 active sync", "1 0 0 1 active sync", "2 0 0 2 active sync", "3 0 0 3 active sync"}[:g.Disks]
				want = append(want, []string{"", "", "2 0 0 2 spare", "3 0 0 3 spare", "4 0 0 4 spare"}[g.Disks])
				compare(t, &disks[i], want[i])
			}
		}
	}
}

// TestMdadmReadsKept: what the golden members say is changed: one fails, a new
// one is added and takes its place.
func TestMdadmReadsKept(t *testing.T) {
	var disks []conformance.Disk

	g := conformance.LoadGolden(t, "md090-raid5-3")
	for i := range g.Members {
		disks = append(disks, conformance.Disk{Image: g.Images[i], Block: 512, Serial: g.Members[i]})
	}

	k := keep(t, disks)
	fresh := conformance.Disk{Image: make([]byte, len(g.Images[0])), Block: 512, Serial: "new"}

	id, _, _, err := k.Add(fresh.Source(), raid.UUID{})
	if err != nil {
		t.Fatal(err)
	}

	disks = append(disks, fresh)
	st := state(inSync(0), faulty(1), inSync(2), recovering(1))
	apply(disks, k.Record(st))
	compare(t, &disks[0], "0 8 0 0 active sync")
	compare(t, &disks[id], "3 0 0 3 spare")

	st = state(inSync(0), gone(), inSync(2), inSync(1))
	k.Forget(1)
	apply(disks, k.Record(st))
	compare(t, &disks[0], "0 8 0 0 active sync")
	compare(t, &disks[2], "2 8 16 2 active sync")
	compare(t, &disks[id], "1 0 0 1 active sync")
}
