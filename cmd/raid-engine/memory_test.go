package main

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestSparesWhatWasUsed(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))

	used := make([][]byte, 64)
	for i := range used {
		used[i] = make([]byte, 64<<10)
	}

	runtime.KeepAlive(used)

	if !spares() {
		t.Error("the heap has use for 4 MiB that nobody refers to")
	}

	debug.FreeOSMemory()

	if spares() {
		t.Error("given back, and still there")
	}
}
