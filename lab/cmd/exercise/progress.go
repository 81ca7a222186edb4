package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// progress watches a block device: how long requests waited at most without any being
// completed.
func progress(o options) (string, error) {
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE); err != nil {
		return "", fmt.Errorf("stay in memory: %w", err)
	}

	device, err := filepath.EvalSymlinks(o.path)
	if err != nil {
		return "", err
	}

	var (
		path    = filepath.Join("/sys/class/block", filepath.Base(device), "stat")
		since   = time.Now() // the last completion, or that nothing waited
		longest time.Duration

		first, last uint64
	)

	for end := since.Add(o.period); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		done, waiting, err := readStat(path)
		if err != nil {
			return "", err
		}

		if first == 0 {
			first = done
		}

		longest = max(longest, time.Since(since))

		if done != last || !waiting {
			last, since = done, time.Now()
		}
	}

	return fmt.Sprintf("%d requests, and none was completed for %v at most",
		last-first, longest.Round(time.Millisecond)), nil
}

// readStat returns how many requests a device has completed, and whether some wait. The
// fields are those of Linux's Documentation/block/stat.rst.
func readStat(path string) (done uint64, waiting bool, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, false, err
	}

	var numbers []uint64

	for field := range strings.FieldsSeq(string(text)) {
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return 0, false, err
		}

		numbers = append(numbers, n)
	}

	if len(numbers) < 16 {
		return 0, false, errors.New(path + " has too few fields")
	}

	const reads, writes, inFlight, discards, flushes = 0, 4, 8, 11, 15

	return numbers[reads] + numbers[writes] + numbers[discards] + numbers[flushes], numbers[inFlight] > 0, nil
}
