package tests

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"raid-assembler/lab"
)

// TestHostile pushes disks in that no sane tool wrote, beside an array: they
// are reported, left alone, and nothing crashes.
func TestHostile(t *testing.T) {
	good, err := exec.Command("zstd", "-dc", data("testdata/golden/md12-raid5-ls-4/m0.img.zst")).Output()
	if err != nil {
		t.Fatalf("zstd: %v", err)
	}

	images := map[string][]byte{
		"noise":     noise(len(good)),
		"truncated": truncated(good),
		"torn":      torn(good),
	}

	// Every field that is a length, an offset or a count, at its maximum, with
	// a checksum that is right.
	for name, field := range map[string]struct{ at, size int }{
		"size": {80, 8}, "chunk": {88, 4}, "disks": {92, 4}, "bitmap": {96, 4}, "dataoffset": {128, 8},
		"datasize": {136, 8}, "superoffset": {144, 8}, "recovery": {152, 8}, "number": {160, 4},
		"badblocks": {184, 8}, "events": {200, 8}, "resync": {208, 8}, "maxdev": {220, 4},
	} {
		images["max-"+name] = maximal(good, field.at, field.size)
	}

	b := start(t)
	a := array{name: "one", level: 1, members: 2, size: 32 << 20}
	b.make(a, b.MustDisks(a.members, a.size, "m"))
	b.install()
	b.await("one", patience, "assembled at start", whole)

	disks := make(map[string]*lab.GuestDisk)
	before := make(map[string][32]byte)

	for name, image := range images {
		path := filepath.Join(t.TempDir(), name+".img")
		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}

		disks[name] = b.MustPlug(lab.Disk{Serial: name, Image: path})
		before[name] = sha256.Sum256(image)
	}

	time.Sleep(2 * time.Second)
	b.MustShell("cmp /root/one.data /dev/raid/one; udevadm settle")

	st := b.status()
	reported := make(map[string]string)

	for _, u := range st.Unused {
		reported[u.Serial] = u.Reason
	}

	// An event count at its maximum is no nonsense by itself: it is of an array
	// that is not started.
	for _, a := range st.Arrays {
		for _, m := range a.Members {
			if a.State == "inactive" {
				reported[m.Serial] = a.Reason
			}
		}
	}

	for name := range images {
		if name != "noise" && name != "truncated" && reported[name] == "" {
			t.Errorf("disk %q is not reported: %+v", name, st)
		}
	}

	if out := b.MustShell("systemctl show -p NRestarts --value raid-assembler raid-engine; cat /proc/mdstat"); !bytes.
		HasPrefix([]byte(out), []byte("0\n\n0\n")) {
		t.Errorf("something crashed: %s", out)
	}

	for name, d := range disks {
		d.MustUnplug()

		after, err := os.ReadFile(d.Path())
		if err != nil {
			t.Fatal(err)
		}

		if sha256.Sum256(after) != before[name] {
			t.Errorf("disk %q was written to", name)
		}
	}
}

func noise(n int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)

	for i := range b {
		b[i] = byte(rng.Uint32())
	}

	return b
}

// truncated is a disk that ends within its superblock.
func truncated(good []byte) []byte { return bytes.Clone(good[:4096+512]) }

// torn is a superblock of which only the first sector was written: the roles
// are those of something else.
func torn(good []byte) []byte {
	b := bytes.Clone(good)
	copy(b[4096+256:4096+512], noise(256))

	return b
}

// maximal sets a field of the superblock to all ones and makes the checksum
// right.
func maximal(good []byte, at, size int) []byte {
	b := bytes.Clone(good)
	sb := b[4096 : 4096+256+2*128]

	for i := range size {
		sb[at+i] = 0xff
	}

	binary.LittleEndian.PutUint32(sb[216:], 0)

	var sum uint64
	for i := 0; i < len(sb); i += 4 {
		sum += uint64(binary.LittleEndian.Uint32(sb[i:]))
	}

	binary.LittleEndian.PutUint32(sb[216:], uint32(sum)+uint32(sum>>32))

	return b
}
