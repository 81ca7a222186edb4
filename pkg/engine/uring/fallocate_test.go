package uring

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFallocate punches a hole into a file, whose content is zero there then
// and nowhere else.
func TestFallocate(t *testing.T) {
	r := newTestRing(t, Config{Entries: 4})
	path := filepath.Join(t.TempDir(), "file")
	want := bytes.Repeat([]byte{0xaa}, 64<<10)

	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()

	next(t, r).PrepFallocate(FD(int(f.Fd())), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 8<<10, 12<<10)
	if got := collect(t, r, 1); got[0].Res != 0 {
		t.Fatalf("fallocate: %d", got[0].Res)
	}

	clear(want[8<<10 : 20<<10])
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file is not what it should be (%v)", err)
	}
}
