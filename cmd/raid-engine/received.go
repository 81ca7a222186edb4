package main

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// received returns the files that systemd gave to this process, by its names for them, and
// forgets how they came. The usual library does the same and brings all of TLS along, which
// would be locked in memory too.
func received() []*os.File { return receivedFrom(3) }

// receivedFrom is received of descriptors from first on.
func receivedFrom(first int) []*os.File {
	defer func() {
		for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
			_ = os.Unsetenv(name) // engines are given other files
		}
	}()

	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil
	}

	count, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")

	var files []*os.File

	for i := range count {
		name := ""
		if i < len(names) {
			name = names[i]
		}

		syscall.CloseOnExec(first + i)
		files = append(files, os.NewFile(uintptr(first+i), name))
	}

	return files
}
