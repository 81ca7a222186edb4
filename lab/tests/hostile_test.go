package tests

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
	"raid-assembler/pkg/api"
)

// healthy are the golden sets that run while hostile disks come, by form.
var healthy = map[string]string{
	"md12": "md12-raid5-ls-4", "md090": "md090-raid5-3", "imsm": "imsm-raid5-3", "ddf": "ddf-raid5-3",
}

// TestHostile pushes disks in that no sane tool wrote, beside arrays whose members
// they claim to be: each is reported and left alone, nothing crashes, and the arrays
// stay what they are. The short test has one in forty of them.
func TestHostile(t *testing.T) {
	b := start(t)
	b.install()

	paths, first := members(t, healthy)

	var disks []lab.Disk

	for _, of := range slices.Sorted(maps.Keys(paths)) {
		for i, path := range paths[of] {
			disks = append(disks, lab.Disk{Serial: fmt.Sprintf("%s.m%d", of, i), Image: path})
		}
	}

	last := b.MustPlugAll(append(disks, uglyMirror(t)...)...)
	free := last[len(last)-1].Bay() + 1

	sums := fmt.Sprintf("for i in $(seq 300); do [ $(ls /dev/raid | wc -l) = %d ] && break || sleep 0.2; done\n"+
		"cd /dev/raid && sha256sum *", len(healthy)+1)

	arrays := func() string {
		var text strings.Builder

		for _, a := range b.status().Arrays {
			fmt.Fprintf(&text, "%s %s %d", a.UUID, a.State, a.Degraded)

			for _, m := range a.Members {
				fmt.Fprintf(&text, " %s %s", m.Serial, m.State)
			}

			text.WriteByte('\n')
		}

		return text.String()
	}

	b.awaitArrays(len(healthy) + 1)

	before, content := arrays(), b.MustShell(sums)

	forgeries := forge()
	if testing.Short() {
		forgeries = everyNth(forgeries, 40)
	}

	for some := range slices.Chunk(forgeries, 120) {
		b.comeAndGo(some, first, free)

		if now := arrays(); now != before {
			t.Errorf("the arrays were\n%s\nand are\n%s", before, now)
		}
	}

	if out := b.MustShell("ls /dev/raid /dev/disk/by-id | LC_ALL=C grep '[^A-Za-z0-9._:/-]' || true"); out != "" {
		t.Errorf("names got through: %q", out)
	}

	if now := b.MustShell(sums); now != content {
		t.Errorf("what is in the arrays was\n%s\nand is\n%s", content, now)
	}

	restarts := b.MustShell("systemctl show -p NRestarts --value raid-assembler raid-engine")
	if strings.Join(strings.Fields(restarts), " ") != "0 0" {
		t.Errorf("something crashed: %s", restarts)
	}

	t.Logf("%d disks; the assembler has used at most %s of memory", len(forgeries),
		strings.TrimSpace(b.MustShell("sed -n 's/^VmHWM:[ \t]*//p' /proc/$(systemctl show -p MainPID --value raid-assembler)/status")))
}

// everyNth takes one in n.
func everyNth(all []forgery, n int) []forgery {
	var some []forgery
	for part := range slices.Chunk(all, n) {
		some = append(some, part[0])
	}

	return some
}

// uglyMirror returns the members of an array whose name is another file's.
func uglyMirror(t *testing.T) []lab.Disk {
	t.Helper()

	var disks []lab.Disk

	paths, _ := members(t, map[string]string{"ugly": "md12-raid1-2-bitmap"})

	for i, path := range paths["ugly"] {
		image, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}

		rename(image, "../../etc/%s\n\x1b[2J", 0xff)

		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}

		disks = append(disks, lab.Disk{Serial: fmt.Sprintf("ugly.m%d", i), Image: path})
	}

	return disks
}

// comeAndGo pushes disks in, from a bay on, sees each of them reported, pulls them, and sees that
// nothing was written to them.
func (b *box) comeAndGo(some []forgery, first map[string][]byte, bay int) {
	b.t.Helper()

	disks := make([]lab.Disk, len(some))
	sums := make([][32]byte, len(some))

	for i, of := range some {
		image := of.change(bytes.Clone(first[of.of]))
		sums[i] = sha256.Sum256(image)
		disks[i] = lab.Disk{Serial: of.name, Bay: bay + i, Image: filepath.Join(b.t.TempDir(), of.name)}

		if err := os.WriteFile(disks[i].Image, image, 0o600); err != nil {
			b.t.Fatal(err)
		}
	}

	began := time.Now()
	plugged := b.MustPlugAll(disks...)

	b.MustGo("udevadm settle -t 600").MustWait(10 * time.Minute)
	b.t.Logf("%d disks are here after %v", len(disks), time.Since(began).Round(time.Second))

	said := b.reported()
	unsaid := func(d *lab.GuestDisk) bool { return said[d.Serial()] == "" && !silent[d.Serial()] }

	for range 60 {
		if !slices.ContainsFunc(plugged, unsaid) {
			break
		}

		time.Sleep(time.Second)

		said = b.reported()
	}

	b.t.Logf("%d are reported after %v", len(said), time.Since(began).Round(time.Second))

	for _, d := range plugged {
		if unsaid(d) {
			b.t.Errorf("disk %q is not reported: %s", d.Serial(),
				b.MustShell("raid-assembler explain "+d.MustDev()+" 2>&1 || true"))
		}
	}

	b.MustUnplugAll(plugged...)

	for i, d := range plugged {
		image, err := os.ReadFile(d.Path())
		if err != nil {
			b.t.Fatal(err)
		}

		if sha256.Sum256(image) != sums[i] {
			b.t.Errorf("disk %q was written to, having been reported thus: %s", d.Serial(), said[d.Serial()])
		}

		if err := os.Remove(disks[i].Image); err != nil {
			b.t.Fatal(err)
		}
	}
}

// silent are disks that hold nothing of ours.
var silent = map[string]bool{"noise": true, "truncated": true}

// reported returns what the assembler says of disks that are in no running array, by
// serial number: also of those whose array waits for others.
func (b *box) reported() map[string]string {
	b.t.Helper()

	said := make(map[string]string)
	st := b.status()

	for _, u := range slices.Concat(st.Unused, st.Spares) {
		said[u.Serial] = u.Reason
	}

	for _, a := range st.Arrays {
		for _, m := range a.Members {
			if a.State == "inactive" {
				said[m.Serial] = a.Reason
			}
		}
	}

	for _, w := range st.Waiting {
		for serial := range strings.FieldsSeq(b.MustShell("lsblk -dno SERIAL $(raid-assembler explain " + w.UUID +
			" | grep -o '/dev/sd[a-z]*' | sort -u)")) {
			said[serial] = w.Reason
		}
	}

	return said
}

// awaitArrays waits until so many arrays run that are whole.
func (b *box) awaitArrays(n int) {
	b.t.Helper()

	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if as := b.status().Arrays; len(as) == n && !slices.ContainsFunc(as, func(a api.Array) bool { return !whole(a) }) {
			return
		}
	}

	b.t.Fatalf("not all of %d arrays run: %+v", n, b.status())
}
