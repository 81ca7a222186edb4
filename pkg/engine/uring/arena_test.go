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

// TestRelease gives a block back that was written to: the kernel has its memory, the neighbours keep theirs, and what
// is there next is zero.
func TestRelease(t *testing.T) {
	for _, shared := range []bool{false, true} {
		cfg := ArenaConfig{Size: 16 * 4096}
		if shared {
			f, err := SharedMemory("test", cfg.Size)
			if err != nil {
				t.Fatal(err)
			}
			cfg.File = f
		}
		a := newTestArena(t, cfg)
		if shared {
			_ = cfg.File.Close() // the arena has it
		}
		before, b, after := block(t, a, 4096), block(t, a, 8*4096), block(t, a, 4096)
		for i := range a.Bytes() {
			a.Bytes()[i] = 1
		}
		// What is locked, as all of the engine's memory is, is given back too.
		if err := unix.Mlock(a.Bytes()); err != nil {
			t.Fatal(err)
		}
		if err := a.Release(b); err != nil {
			t.Fatal(err)
		}
		if got := resident(t, a.Bytes()); got != 8 {
			t.Errorf("shared %v: %d pages are resident, want 8 of 16", shared, got)
		}
		if before[4095] != 1 || b[0] != 0 || b[len(b)-1] != 0 || after[0] != 1 {
			t.Errorf("shared %v: around the ends of the block: %d %d, %d %d, want 1 0, 0 1",
				shared, before[4095], b[0], b[len(b)-1], after[0])
		}
	}
}

// resident returns how many pages of memory are there.
func resident(t *testing.T, mem []byte) (n int) {
	t.Helper()
	page := os.Getpagesize()
	for i := 0; i < len(mem); i += page {
		const present = 1 << 63
		if wordOf(t, "/proc/self/pagemap", uintptr(unsafe.Pointer(&mem[i]))/uintptr(page))&present != 0 {
			n++
		}
	}
	return n
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
