package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// How much the heap may grow by before garbage is collected, in percent; at first to 4 MiB times
// that. What it has grown to stays locked; what serves requests allocates nothing.
const (
	collectAt         = 25
	guardianCollectAt = 10 // it does little
)

// lockMemory has pages stay that were touched, and the whole program: with swap or the
// program's own file on an array of ours, who would bring them back?
func lockMemory(percent int) {
	debug.SetGCPercent(percent)

	err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
	if err == nil {
		err = lockProgram()
	}

	if err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "raid-engine: memory is not locked: %v\n", err)
	}
}

// withoutHugePages starts the program anew if the kernel would give it huge pages: the
// first byte of each would lock 2 MiB. Engines inherit that it does not.
func withoutHugePages() error {
	off, err := unix.PrctlRetInt(unix.PR_GET_THP_DISABLE, 0, 0, 0, 0)
	if err != nil || off != 0 {
		return err
	}

	if err := unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0); err != nil {
		return err
	}

	path, err := os.Executable()
	if err != nil {
		return err
	}

	return unix.Exec(path, os.Args, os.Environ()) // what the runtime has taken already goes
}

// lockProgram reads all of the program: what has not run yet, since no disk has failed
// yet, is not to be read from one then.
func lockProgram() error {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()

	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}

	for _, m := range programMaps(f, strings.TrimSuffix(exe, " (deleted)")) { // once another version is installed
		if _, _, errno := unix.Syscall(unix.SYS_MLOCK, m.from, m.to-m.from, 0); errno != 0 {
			return fmt.Errorf("mlock %x-%x: %w", m.from, m.to, errno)
		}
	}

	return nil
}

// mapping is a part of the address space.
type mapping struct{ from, to uintptr }

// programMaps returns the parts of maps, as /proc has them, that are of a file and are
// not written to.
func programMaps(maps io.Reader, file string) []mapping {
	var all []mapping

	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var (
			m                       mapping
			perms, offset, dev, ino string
			path                    string
		)

		n, err := fmt.Sscanf(lines.Text(), "%x-%x %s %s %s %s %s", &m.from, &m.to, &perms, &offset, &dev, &ino, &path)
		if n == 7 && err == nil && path == file && !strings.Contains(perms, "w") {
			all = append(all, m)
		}
	}

	return all
}
