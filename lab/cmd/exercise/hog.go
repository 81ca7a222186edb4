package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// hog takes so many MiB of memory, and has all of it be used again and again until the
// time is over. It is the first that the kernel ends for want of memory.
func hog(o options) (string, error) {
	mebibytes, err := strconv.Atoi(o.path)
	if err != nil {
		return "", err
	}

	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0); err != nil {
		return "", err
	}

	mem, err := unix.Mmap(-1, 0, mebibytes<<20, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return "", fmt.Errorf("take %d MiB: %w", mebibytes, err)
	}

	rounds := 0

	for end := time.Now().Add(o.period); time.Now().Before(end); rounds++ {
		for at := 0; at < len(mem) && time.Now().Before(end); at += unix.Getpagesize() {
			mem[at]++
		}
	}

	return fmt.Sprintf("used it %d times", rounds), unix.Munmap(mem)
}
