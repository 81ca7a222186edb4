package main

import (
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReceived: what systemd gives to this process is found by its names, closed to the
// engines, and forgotten; what it gave to another is not ours.
func TestReceived(t *testing.T) {
	for _, tt := range []struct {
		name, pid, count, names string
		want                    []string
	}{
		{"two", strconv.Itoa(os.Getpid()), "2", "varlink:crash-served.3", []string{"varlink", "crash-served.3"}},
		{"one without a name", strconv.Itoa(os.Getpid()), "2", "varlink", []string{"varlink", ""}},
		{"another's", "1", "2", "varlink:crash-served.3", nil},
		{"nothing", "", "", "", nil},
		{"not a number", strconv.Itoa(os.Getpid()), "x", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("LISTEN_PID", tt.pid)
			t.Setenv("LISTEN_FDS", tt.count)
			t.Setenv("LISTEN_FDNAMES", tt.names)

			files := given(t, 60, len(tt.want))

			got := receivedFrom(files)
			if len(got) != len(tt.want) {
				t.Fatalf("%d files, want %d", len(got), len(tt.want))
			}

			for i, f := range got {
				flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
				if f.Name() != tt.want[i] || err != nil || flags&unix.FD_CLOEXEC == 0 {
					t.Errorf("file %d is %q with flags %#x (%v), want %q, closed on exec", i, f.Name(), flags, err, tt.want[i])
				}

				_ = f.Close()
			}

			if _, set := os.LookupEnv("LISTEN_PID"); set {
				t.Error("engines would be told that they are given files")
			}
		})
	}
}

// given makes descriptors from first on, as systemd leaves them.
func given(t *testing.T, first, count int) int {
	t.Helper()

	for i := range count {
		null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}

		if err := unix.Dup2(null, first+i); err != nil {
			t.Fatal(err)
		}

		if err := unix.Close(null); err != nil {
			t.Fatal(err)
		}
	}

	return first
}
