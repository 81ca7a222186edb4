package member

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// openDirect opens a file of the content given for direct I/O.
func openDirect(t *testing.T, content []byte) Direct {
	t.Helper()

	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}

	fd, err := unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = unix.Close(fd) })

	return Direct{FD: fd, Size: int64(len(content))}
}

// TestDirect checks that direct I/O reads at any alignment what was written,
// and nothing beyond the end.
func TestDirect(t *testing.T) {
	const size = 5*directBlock + 512

	content := make([]byte, size)
	for i := range content {
		content[i] = byte(i / 7)
	}

	d := openDirect(t, content)

	block := bytes.Repeat([]byte{0xab}, directBlock)
	if n, err := d.WriteAt(block, directBlock); n != len(block) || err != nil {
		t.Fatal(n, err)
	}

	copy(content[directBlock:], block)

	for _, tt := range []struct{ off, length int }{
		{0, 1}, {0, directBlock}, {3, 5000}, {directBlock - 1, 2}, {size - 512, 512}, {0, size}, {17, 0},
	} {
		got := make([]byte, tt.length)
		if n, err := d.ReadAt(got, int64(tt.off)); err != nil || n != tt.length ||
			!bytes.Equal(got, content[tt.off:tt.off+tt.length]) {
			t.Errorf("ReadAt(%d bytes at %d) = %d, %v, or other bytes", tt.length, tt.off, n, err)
		}
	}

	for _, tt := range []struct{ off, length int }{{size - 1, 2}, {-1, 1}, {size + 1, 1}} {
		if n, err := d.ReadAt(make([]byte, tt.length), int64(tt.off)); err == nil || n != 0 {
			t.Errorf("ReadAt(%d bytes at %d) of %d = %d, %v", tt.length, tt.off, size, n, err)
		}
	}
}

// TestDirectFailure checks that nothing counts as read or written that failed:
// readers tell an empty device by how much they got.
func TestDirectFailure(t *testing.T) {
	d := openDirect(t, make([]byte, directBlock))
	d.Size *= 2 // there is less than the device promises

	for _, off := range []int64{0, directBlock - 1} {
		if n, err := d.ReadAt(make([]byte, directBlock+1), off); err == nil || n != 0 {
			t.Errorf("ReadAt(%d) = %d, %v, want 0 and an error", off, n, err)
		}
	}

	d.FD = -1
	if n, err := d.ReadAt(make([]byte, 512), 0); err == nil || n != 0 {
		t.Errorf("ReadAt = %d, %v, want 0 and an error", n, err)
	}

	if n, err := d.WriteAt(make([]byte, 512), 0); err == nil || n != 0 {
		t.Errorf("WriteAt = %d, %v, want 0 and an error", n, err)
	}
}
