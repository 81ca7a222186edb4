package member

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"raid-assembler/pkg/engine/stripe"
)

func TestOutcome(t *testing.T) {
	for _, tt := range []struct {
		name string
		op   stripe.Op
		res  int32
		want stripe.Fault
	}{
		{"all of it", stripe.Read, 4096, stripe.None},
		{"all of it", stripe.Write, 4096, stripe.None},
		{"flush", stripe.Flush, 0, stripe.None},
		{"medium error", stripe.Read, -int32(unix.EIO), stripe.Medium},
		{"medium error as sense data has it", stripe.Read, -int32(unix.ENODATA), stripe.Medium},
		{"removed: no bytes", stripe.Read, 0, stripe.Gone},
		{"short", stripe.Read, 512, stripe.Gone},
		{"no such device", stripe.Read, -int32(unix.ENODEV), stripe.Gone},
		{"removed: no space", stripe.Write, -int32(unix.ENOSPC), stripe.Gone},
		{"write error", stripe.Write, -int32(unix.EIO), stripe.Medium},
		{"write error of the transport", stripe.Write, -int32(unix.ETIMEDOUT), stripe.Gone},
		{"short write", stripe.Write, 512, stripe.Gone},
		{"flush error", stripe.Flush, -int32(unix.EIO), stripe.Gone},
	} {
		if got := Outcome(tt.op, tt.res, 4096); got != tt.want {
			t.Errorf("%s: Outcome(%v, %d) = %v, want %v", tt.name, tt.op, tt.res, got, tt.want)
		}
	}
}

func TestOpenRefusesWhatIsNoBlockDevice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}

	if _, err := Open(path, ""); err == nil || !strings.Contains(err.Error(), "not a block device") {
		t.Errorf("Open(%q) = %v, want it to say that it is not a block device", path, err)
	}
}

// TestGone takes a file for a device, which is gone when it has no size.
func TestGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")

	for size, want := range map[int]bool{0: true, 512: false} {
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}

		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}

		if got := (&Device{fd: int(f.Fd())}).Gone(); got != want {
			t.Errorf("Gone of %d bytes = %v, want %v", size, got, want)
		}

		_ = f.Close()
	}

	if !(&Device{fd: -1}).Gone() {
		t.Error("what cannot be asked is not gone")
	}
}
