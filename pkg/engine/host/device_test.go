package host

import (
	"context"
	"os"
	"path/filepath"
	"testing"

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
