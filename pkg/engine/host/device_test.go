package host

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"

	"raid-assembler/pkg/engine/ublk"
	"raid-assembler/pkg/raid"
)

// driver is a ublk driver with devices in the states given.
type driver map[ublk.DeviceID]ublk.DevInfo

func (d driver) Do(_ context.Context, c ublk.Command) (ublk.Reply, error) {
	info, ok := d[c.Device]
	if !ok {
		return ublk.Reply{}, unix.ENODEV
	}

	if c.Op == ublk.OpDelDevAsync {
		delete(d, c.Device)
	}

	return ublk.Reply{Info: info}, nil
}

// TestClaim says which array a block device is, for udev and for the next
// engine, and takes it back.
func TestClaim(t *testing.T) {
	ours, other := raid.UUID{1}, raid.UUID{2}
	d := driver{}
	h := New(Config{RunDir: t.TempDir(), Control: ublk.Control{Commander: d}})
	path := filepath.Join(h.cfg.RunDir, "by-device", "ublkb3")

	for id, uuid := range map[ublk.DeviceID]raid.UUID{3: ours, 12: other} {
		if err := h.claimFile(uuid, "data", raid.Level5)(id); err != nil {
			t.Fatal(err)
		}
	}

	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	const want = "RAID_NAME=data\nRAID_UUID=01000000:00000000:00000000:00000000\nRAID_LEVEL=raid5\n"
	if string(text) != want {
		t.Errorf("claim %q, want %q", text, want)
	}

	if left, _ := filepath.Glob(path + "?*"); len(left) > 0 {
		t.Errorf("%v left over", left)
	}

	for _, tt := range []struct {
		name string
		info *ublk.DevInfo // of device 3
		want ublk.DeviceID
		kept bool
	}{
		{"its server is gone", &ublk.DevInfo{State: ublk.Quiesced}, 3, true},
		{"its server goes", &ublk.DevInfo{State: ublk.Live}, 3, true},
		{"it had not started", &ublk.DevInfo{State: ublk.Dead}, ublk.AnyDevice, false},
		{"it is not there, after a boot", nil, ublk.AnyDevice, false},
	} {
		delete(d, 3)

		if tt.info != nil {
			d[3] = *tt.info
		}

		d[12] = ublk.DevInfo{State: ublk.Quiesced} // of another array

		if got := h.abandoned(t.Context(), ours); got != tt.want {
			t.Errorf("%s: abandoned() = %d, want %d", tt.name, got, tt.want)
		}

		if _, kept := d[3]; kept != tt.kept {
			t.Errorf("%s: kept = %v, want %v", tt.name, kept, tt.kept)
		}
	}

	if err := h.unclaim(3); err != nil {
		t.Fatal(err)
	}

	d[3] = ublk.DevInfo{State: ublk.Quiesced}

	if got := h.abandoned(t.Context(), ours); got != ublk.AnyDevice {
		t.Errorf("abandoned() = %d for what is not claimed any more, want none", got)
	}
}

// TestAbandonedReadsNothing: what the engine before has said is believed without reading what
// may have been swapped out, if the device is there.
func TestAbandonedReadsNothing(t *testing.T) {
	d := driver{2: {State: ublk.Quiesced}, 7: {State: ublk.Quiesced}}
	h := New(Config{RunDir: t.TempDir(), Control: ublk.Control{Commander: d}})
	dir := filepath.Join(h.cfg.RunDir, "by-device")
	one, two := raid.UUID{1}, raid.UUID{2}

	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}

	// Who reads a pipe that nobody writes to waits for ever.
	for _, name := range []string{"ublkb2", "ublkb7"} {
		if err := unix.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	h.served[one], h.served[two] = Served{Block: "ublkb7"}, Served{Block: "ublkb2"}

	if a, b := h.abandoned(t.Context(), one), h.abandoned(t.Context(), two); a != 7 || b != 2 {
		t.Errorf("abandoned() = %d and %d, want 7 and 2", a, b)
	}
}

// TestAbandonedReadsOnlyClaims puts what is no claim beside the claims.
func TestAbandonedReadsOnlyClaims(t *testing.T) {
	h := New(Config{RunDir: t.TempDir(), Control: ublk.Control{Commander: driver{0: {State: ublk.Quiesced}}}})
	dir := filepath.Join(h.cfg.RunDir, "by-device")

	if got := h.abandoned(t.Context(), raid.UUID{1}); got != ublk.AnyDevice {
		t.Errorf("abandoned() = %d without a directory, want none", got)
	}

	if err := os.MkdirAll(filepath.Join(dir, "ublkb0"), 0o755); err != nil {
		t.Fatal(err)
	}

	for _, name := range []string{"ublkb", "ublkbx", "sda"} {
		text := "RAID_UUID=" + raid.UUID{1}.String() + "\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	if got := h.abandoned(t.Context(), raid.UUID{1}); got != ublk.AnyDevice {
		t.Errorf("abandoned() = %d, want none", got)
	}
}

// TestInUse looks for users of ublkb1, which has two partitions, below a root
// that has more of their kind.
func TestInUse(t *testing.T) {
	const (
		sys   = "sys/class/block/ublkb1/"
		mount = "29 1 259:2 / /srv rw,relatime shared:1 - ext4 /dev/ublkb1p2 rw\n"
		other = "30 1 259:20 / /home rw - ext4 /dev/ublkb10 rw\n"
		swaps = "Filename\tType\tSize\tUsed\tPriority\n"
	)

	for _, tt := range []struct {
		name string
		file string // added to the root
		text string
		want string
	}{
		{name: "nobody", file: "proc/1/mountinfo", text: other},
		{"a file system", "proc/1/mountinfo", other + mount, "ublkb1p2 is used by the mount /srv"},
		{"in a container", "proc/self/mountinfo", mount, "ublkb1p2 is used by the mount /srv"},
		{"device-mapper", sys + "holders/dm-0", "", "ublkb1 is held by dm-0"},
		{"on a partition", sys + "ublkb1p1/holders/dm-0", "", "ublkb1p1 is held by dm-0"},
		{"a btrfs, whose mounts do not name it", "sys/fs/btrfs/0-1/devices/ublkb1p1", "", "ublkb1p1 is part of a btrfs"},
		{name: "a btrfs elsewhere", file: "sys/fs/btrfs/0-1/devices/ublkb10"},
		{"swap", "proc/swaps", swaps + "/dev/ublkb1p1 partition 1 0 -2\n", "ublkb1p1 is used by swap"},
		{name: "swap on one whose name begins alike", file: "proc/swaps", text: swaps + "/dev/ublkb10 partition 1 0 -2\n"},
	} {
		root := fstest.MapFS{
			sys + "dev":          {Data: []byte("259:0\n")},
			sys + "ublkb1p1/dev": {Data: []byte("259:1\n")},
			sys + "ublkb1p2/dev": {Data: []byte("259:2\n")},
			"proc/self/mounts":   {},
		}
		root[tt.file] = &fstest.MapFile{Data: []byte(tt.text)}

		if got := userOf(root, "ublkb1"); got != tt.want {
			t.Errorf("%s: in use by %q, want %q", tt.name, got, tt.want)
		}
	}

	if got := inUse(1 << 20); got != "" {
		t.Errorf("a device that is not there is in use: %s", got)
	}
}
