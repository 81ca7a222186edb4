package main

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSwapsToDisk: one engine stands by where memory may have to go to a disk first.
func TestSwapsToDisk(t *testing.T) {
	const titles = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"

	for text, want := range map[string]bool{
		"":     false,
		titles: false,
		titles + "/dev/zram0                              partition\t524284\t\t0\t\t100\n": false,
		titles + "/dev/zram0 partition 1 0 100\n/dev/ublkb0p1 partition 9 0 -2\n":          true,
		titles + "/swap\\040file file 1 0 -2\n":                                            true,
	} {
		if got := swapsToDisk(strings.NewReader(text)); got != want {
			t.Errorf("swapsToDisk(%q) = %v", text, got)
		}
	}
}

// TestProgramMaps finds this test's program in memory.
func TestProgramMaps(t *testing.T) {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()

	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}

	info, err := os.Stat(exe)
	if err != nil {
		t.Fatal(err)
	}

	var (
		size int64
		page = int64(unix.Getpagesize())
	)

	for _, m := range programMaps(f, exe) {
		size += int64(m.to - m.from)
	}

	// What debuggers read of it is not mapped, and what is written to is no part.
	if size < info.Size()/3 || size > info.Size()+page {
		t.Errorf("%d bytes of %d are mapped", size, info.Size())
	}

	maps := "10000-20000 r-xp 00000000 fe:00 12 /x (deleted)\n20000-30000 rw-p 00010000 fe:00 12 /x (deleted)\n" +
		"30000-40000 r--p 00000000 fe:00 13 /y\n40000-50000 rw-p 00000000 00:00 0 \n"
	if got := programMaps(strings.NewReader(maps), "/x"); len(got) != 1 || got[0] != (mapping{0x10000, 0x20000}) {
		t.Errorf("parts %v, want the first alone", got)
	}
}
