package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// standbyWhen says when an engine is to stand by: one that needs nothing more to take
// over, neither its program from a disk nor memory that the kernel has to find.
type standbyWhen string

// The values of the flag.
const (
	standbyAuto   standbyWhen = "auto" // when the host swaps to a disk
	standbyAlways standbyWhen = "always"
	standbyNever  standbyWhen = "never"
)

// String implements [flag.Value].
func (w *standbyWhen) String() string { return string(*w) }

// Set implements [flag.Value].
func (w *standbyWhen) Set(text string) error {
	switch v := standbyWhen(text); v {
	case standbyAuto, standbyAlways, standbyNever:
		*w = v

		return nil
	default:
		return fmt.Errorf("one of %s, %s and %s", standbyAuto, standbyAlways, standbyNever)
	}
}

// wantEvery is how often it is looked whether an engine is to stand by.
const wantEvery = time.Second

// want is heard again and again while an engine is to stand by.
func want(when standbyWhen) <-chan struct{} {
	wanted := make(chan struct{})

	if when == standbyNever {
		return wanted
	}

	go func() {
		for range time.Tick(wantEvery) {
			if when == standbyAlways || hostSwaps() {
				wanted <- struct{}{}
			}
		}
	}()

	return wanted
}

// hostSwaps reports whether the host swaps to anything but memory.
func hostSwaps() bool {
	f, err := os.Open("/proc/swaps")
	if err != nil {
		return false // a kernel without swap
	}
	defer func() { _ = f.Close() }()

	return swapsToDisk(f)
}

// swapsToDisk is hostSwaps of what /proc/swaps says: a line of titles, and one for each
// swap space, which begins with its path. Which disks a file lies on is not asked.
func swapsToDisk(swaps io.Reader) bool {
	lines := bufio.NewScanner(swaps)

	for lines.Scan() {
		if path := lines.Text(); strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "/dev/zram") {
			return true
		}
	}

	return false
}
