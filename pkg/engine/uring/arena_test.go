package uring

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestArenaBlocksArePageAlignedAndApart(t *testing.T) {
	page := os.Getpagesize()
	a := newTestArena(t, ArenaConfig{Size: 4 * page, Populate: true})
	x, y := block(t, a, page+1), block(t, a, page)
	for i, b := range [][]byte{x, y} {
		if addr := uintptr(unsafe.Pointer(&b[0])); addr%uintptr(page) != 0 {
			t.Errorf("block %d begins at %#x, not on a page", i, addr)
		}
	}
	if cap(x) != len(x) {
		t.Errorf("cap of a block is %d, its length %d: append would reach its neighbour", cap(x), len(x))
	}
	for i := range x {
		x[i] = 1
	}
	if y[0] != 0 {
		t.Error("blocks overlap")
	}
	if _, err := a.Block(page + 1); !errors.Is(err, ErrArenaFull) {
		t.Errorf("Block(%d) with a page left: %v, want %v", page+1, err, ErrArenaFull)
	}
	block(t, a, page)
	if _, err := a.Block(1); !errors.Is(err, ErrArenaFull) {
		t.Errorf("Block(1) of a full arena: %v, want %v", err, ErrArenaFull)
	}
	if _, err := a.Block(-1); !errors.Is(err, ErrArenaFull) {
		t.Errorf("Block(-1): %v, want %v", err, ErrArenaFull)
	}
}

func TestArenaOnAFileIsShared(t *testing.T) {
	fd, err := unix.MemfdCreate("arena", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "arena")
	defer func() { _ = f.Close() }()
	if err := f.Truncate(8192); err != nil {
		t.Fatal(err)
	}
	a := newTestArena(t, ArenaConfig{Size: 8192, File: f})
	b := newTestArena(t, ArenaConfig{Size: 8192, File: f})
	block(t, a, 4096)[5] = 42
	if got := b.Bytes()[5]; got != 42 {
		t.Errorf("byte 5 of the other mapping is %d, want 42", got)
	}
}

// TestSharedMemoryIsNotSwapped asks the kernel about a page that nobody has locked.
func TestSharedMemoryIsNotSwapped(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may mount")
	}
	const (
		pages       = 512 // more than wait to be put on a list
		unevictable = 1 << 18
	)
	page := os.Getpagesize()
	f, err := SharedMemory("test", pages*page)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	a := newTestArena(t, ArenaConfig{Size: pages * page, File: f})
	for i := range pages {
		a.Bytes()[i*page] = 1
	}
	entry := wordOf(t, "/proc/self/pagemap", uintptr(unsafe.Pointer(&a.Bytes()[0]))/uintptr(page))
	frame := entry & (1<<55 - 1)
	if flags := wordOf(t, "/proc/kpageflags", uintptr(frame)); frame == 0 || flags&unevictable == 0 {
		t.Errorf("the flags of frame %#x are %#x, want %#x among them", frame, flags, unevictable)
	}
}

// wordOf reads one of the words of 64 bits that a file consists of.
func wordOf(t *testing.T, file string, number uintptr) uint64 {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	word := make([]byte, 8)
	if _, err := f.ReadAt(word, int64(number)*8); err != nil {
		t.Fatal(err)
	}
	return binary.NativeEndian.Uint64(word)
}
