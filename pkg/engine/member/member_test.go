package member

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
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

// TestPartial checks of which operations the rest is asked for.
func TestPartial(t *testing.T) {
	for _, tt := range []struct {
		res  int32
		want int
		part bool
	}{
		{4096, 65536, true},
		{512, 4096, true},
		{65024, 65536, true},
		{0, 4096, false},
		{4096, 4096, false},
		{100, 4096, false},
		{-int32(unix.EIO), 4096, false},
		{0, 0, false},
	} {
		if got := Partial(tt.res, tt.want); got != tt.part {
			t.Errorf("Partial(%d, %d) = %v, want %v", tt.res, tt.want, got, tt.part)
		}
	}
}

// TestTransient checks what is no fault of a device.
func TestTransient(t *testing.T) {
	for res, want := range map[int32]bool{
		0: false, 4096: false,
		-int32(unix.EAGAIN): true, -int32(unix.ECANCELED): true, -int32(unix.ENOMEM): true, -int32(unix.EINTR): true,
		-int32(unix.EFAULT): true,
		-int32(unix.EIO):    false, -int32(unix.ENODEV): false, -int32(unix.EBADF): false, -int32(unix.ENOSPC): false,
	} {
		if got := Transient(res); got != want {
			t.Errorf("Transient(%d) = %v, want %v", res, got, want)
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

// TestShare shares a device: it is open until the last of those who have it has
// closed it, and cannot be shared afterwards.
func TestShare(t *testing.T) {
	fd, err := unix.Open(filepath.Join(t.TempDir(), "disk"), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}

	if err := unix.Ftruncate(fd, 4096); err != nil {
		t.Fatal(err)
	}

	one := &Device{Path: "/dev/sda", Serial: "S", Size: 8, fd: fd, users: new(atomic.Int32)}
	one.users.Store(1)

	other := one.Share()
	if !one.Same(other) || other.Path != one.Path || other.Serial != one.Serial || other.Size != one.Size {
		t.Errorf("shared: %+v of %+v", other, one)
	}

	for range 2 { // once counts
		if err := one.Close(); err != nil {
			t.Fatal(err)
		}
	}

	if other.Gone() {
		t.Error("closed, and somebody has it")
	}

	if err := other.Close(); err != nil || !other.Gone() {
		t.Errorf("Close() = %v, it is open still: %v", err, !other.Gone())
	}

	if again := one.Share(); again != nil {
		t.Error("what is closed can be shared")
	}
}

// looking is a format that keeps what it has in the middle of a device.
type looking struct {
	metadata.Format

	at  raid.Sectors
	got []byte
}

func (l *looking) Probe(src metadata.Source) (*metadata.Superblock, error) {
	l.got = make([]byte, 1024)
	_, err := src.ReadAt(l.got, l.at.Bytes())

	return nil, err
}

// TestPreload: what a format has looked for is there when the device is not, and
// so are the ends; all else is not to be had, and afterwards nothing.
func TestPreload(t *testing.T) {
	content := make([]byte, 4*edge)
	for i := range content {
		content[i] = byte(i / 512)
	}

	disk := openDirect(t, content)
	d := &Device{Path: "/dev/sda", Size: raid.Sectors(len(content) / raid.SectorSize), Block: 512, fd: disk.FD}
	format := &looking{at: 2 * edge / raid.SectorSize}

	var kept metadata.Source

	err := d.Preload(func(src metadata.Source) error {
		d.fd, kept = -1, src

		for off, want := range map[int64]bool{
			0: true, int64(len(content)) - 512: true, format.at.Bytes(): true, format.at.Bytes() + 512: true,
			format.at.Bytes() + 1024: false, edge: false,
		} {
			got := make([]byte, 512)
			if _, err := src.ReadAt(got, off); (err == nil) != want || want && !bytes.Equal(got, content[off:off+512]) {
				t.Errorf("ReadAt(%d) = %x..., %v, want it: %v", off, got[:4], err, want)
			}
		}

		return io.ErrNoProgress
	}, format)
	if !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("Preload() = %v, want what its user returns", err)
	}

	if _, err := kept.ReadAt(make([]byte, 512), 0); err == nil {
		t.Error("what was read in advance is there for ever")
	}
}
