package loop

import (
	"runtime"
	"slices"
	"testing"

	"raid-assembler/pkg/engine/uring"
)

// TestPins: what lies in one page, or else in one block, is found, always by the
// same index, without allocating; what does not is not; and the kernel takes the
// index.
func TestPins(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	arena, err := uring.NewArena(uring.ArenaConfig{Size: 8 * 4096})
	if err != nil {
		t.Fatal(err)
	}

	ring, err := uring.New(uring.Config{Entries: 8})
	if err != nil {
		t.Fatal(err)
	}

	p, mem := newPins(ring, arena), arena.Bytes()
	if p.pages != 8 {
		t.Fatalf("%d pages, want 8", p.pages)
	}

	for _, size := range []int{4 * 4096, 4096 + 1, 4096} {
		if _, err := arena.Block(size); err != nil {
			t.Fatal(err)
		}
	}

	for _, tc := range []struct {
		name     string
		data     []byte
		index    uint16
		eligible bool
	}{
		{"first page", mem[:4096], 0, true},
		{"within the last page", mem[7*4096+512 : 8*4096], 7, true},
		{"again", mem[7*4096 : 7*4096+512], 7, true},
		{"over two pages", mem[4096+512 : 2*4096+512], 8, true},
		{"two pages", mem[:8192], 8, true},
		{"all of a block", mem[:4*4096], 8, true},
		{"of the second", mem[4*4096+512 : 4*4096+8192], 9, true},
		{"over two blocks", mem[3*4096 : 5*4096], 0, false},
		{"all of it", mem, 0, false},
		{"none of it", make([]byte, 512), 0, false},
		{"nothing", mem[:0], 0, false},
	} {
		if index, ok := p.find(tc.data); index != tc.index || ok != tc.eligible {
			t.Errorf("%s: find() = %d, %v, want %d, %v", tc.name, index, ok, tc.index, tc.eligible)
		}
	}

	if allocs := testing.AllocsPerRun(5, func() {
		clear(p.state) // so that all is registered anew
		p.find(mem[4096:8192])
		p.find(mem[4096:16384])
	}); allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}

	checkPins(t, &p, ring, mem[3*4096:4*4096])
	checkPins(t, &p, ring, mem[4*4096+512:4*4096+8192])
}

// TestForget: what is registered in a block is not any more, the page and the block, and
// is when it is used again.
func TestForget(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	file, err := uring.SharedMemory("test", 8*4096)
	if err != nil {
		t.Fatal(err)
	}

	defer func() { _ = file.Close() }()

	arena, err := uring.NewArena(uring.ArenaConfig{Size: 8 * 4096, File: file})
	if err != nil {
		t.Fatal(err)
	}

	ring, err := uring.New(uring.Config{Entries: 8})
	if err != nil {
		t.Fatal(err)
	}

	var blocks [2][]byte
	for i := range blocks {
		if blocks[i], err = arena.Block(4 * 4096); err != nil {
			t.Fatal(err)
		}
	}

	p := newPins(ring, arena)

	for _, data := range [][]byte{blocks[0][4096:8192], blocks[1][4096:8192], blocks[0], blocks[1]} {
		checkPins(t, &p, ring, data)
	}

	if err := p.forget(blocks[1]); err != nil {
		t.Fatal(err)
	}

	want := make([]pin, p.pages+blocksMax)
	want[1], want[p.pages] = pinned, pinned

	if !slices.Equal(p.state, want) {
		t.Errorf("registered are %v, want %v", p.state[:p.pages+2], want[:p.pages+2])
	}

	if err := arena.Release(blocks[1]); err != nil {
		t.Fatal(err)
	}

	checkPins(t, &p, ring, blocks[1][4096:8192])
	checkPins(t, &p, ring, blocks[1])
	checkPins(t, &p, ring, blocks[0])
}

// checkPins reads zeros into memory by its index. They come from a file: a read of
// /dev/zero ends early when a signal is pending.
func checkPins(t *testing.T, p *pins, ring *uring.Ring, data []byte) {
	t.Helper()

	zeros, err := uring.SharedMemory("zeros", len(data))
	if err != nil {
		t.Fatal(err)
	}

	defer func() { _ = zeros.Close() }()

	last := len(data) - 1
	data[0], data[last] = 1, 1

	index, ok := p.find(data)
	if !ok {
		t.Fatal("it is not registered")
	}

	ring.SQE().PrepReadFixed(uring.FD(int(zeros.Fd())), data, 0, index)

	if err := ring.SubmitAndWait(1); err != nil {
		t.Fatal(err)
	}

	var batch [1]uring.CQE
	if n := ring.Reap(batch[:]); n != 1 || int(batch[0].Res) != len(data) {
		t.Fatalf("%d completions, the first %+v, want one of %d bytes", n, batch[0], len(data))
	}

	if data[0] != 0 || data[last] != 0 {
		t.Error("it was not read into")
	}
}

// TestNoPins: a kernel without the table is no worse than none.
func TestNoPins(t *testing.T) {
	var p pins
	if index, ok := p.find(make([]byte, 512)); index != 0 || ok {
		t.Errorf("find() = %d, %v, want 0, false", index, ok)
	}
}
