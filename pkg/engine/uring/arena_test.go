package uring

import (
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
