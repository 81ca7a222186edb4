package main

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// TestPulse has a guardian look at an engine again and again: at each look it has
// heard of it or not, and sees that it is stopped or not.
func TestPulse(t *testing.T) {
	type looks struct {
		n       int
		beats   bool
		stopped bool
	}

	for _, tt := range []struct {
		name string
		all  []looks
		want string
	}{
		{"it serves", []looks{{1000, true, false}}, ""},
		{"it starts slowly", []looks{{unbornMax - 1, false, false}, {1, true, false}}, ""},
		{"it never serves", []looks{{unbornMax, false, false}}, "it did not begin to serve"},
		{"it is slow", []looks{{1, true, false}, {missedMax - 1, false, false}, {1, true, false}, {5, false, false}}, ""},
		{"it is stuck", []looks{{1, true, false}, {missedMax, false, false}}, "an array was not served any more"},
		{"it was stopped and goes on", []looks{{9, true, false}, {stoppedMax - 1, false, true}, {9, false, false}}, ""},
		{"it is stopped", []looks{{9, true, false}, {stoppedMax, false, true}}, "it was stopped"},
		{"it is stopped before it serves", []looks{{stoppedMax, false, true}}, "it was stopped"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var (
				p     pulse
				beats uint64
				why   string
			)

			for _, l := range tt.all {
				for range l.n {
					if why != "" {
						t.Fatalf("it is killed too early: %s", why)
					}

					if l.beats {
						beats++
					}

					why = p.look(beats, l.stopped)
				}
			}

			if why != tt.want {
				t.Errorf("it is killed for %q, want %q", why, tt.want)
			}
		})
	}
}

// TestPause: engines that die one soon after the other are started ever later, and one
// that has lived for a while is followed at once.
func TestPause(t *testing.T) {
	pause := time.Duration(0)

	for _, want := range []int64{50, 100, 200, 400, 800, 1000, 1000} {
		if pause = pauseAfter(soon-1, pause); pause.Milliseconds() != want {
			t.Errorf("a pause of %v, want %d ms", pause, want)
		}
	}

	if pause = pauseAfter(soon, pause); pause != 0 {
		t.Errorf("a pause of %v after one that lived", pause)
	}
}

// TestBeat: an engine is heard while its arrays answer, and not while one does not.
func TestBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			from, to = io.Pipe()
			beats    atomic.Uint64
			stuck    = make(chan struct{})
			calls    int
			ready    int
		)

		go hear(from, &beats, func() { ready++ })
		go beat(to, func() {
			if calls++; calls == 5 {
				<-stuck
			}
		})

		time.Sleep(time.Minute)

		if synctest.Wait(); ready != 0 {
			t.Error("it was taken to serve before it said so")
		}

		if _, err := to.Write([]byte{alive, served}); err != nil {
			t.Fatal(err)
		}

		if synctest.Wait(); ready != 1 {
			t.Errorf("it serves, which was heard %d times", ready)
		}

		if n := beats.Load(); n != 6 {
			t.Errorf("%d beats before an array is stuck, want 6", n)
		}

		close(stuck)
		time.Sleep(10 * beatEvery)
		synctest.Wait()

		if n := beats.Load(); n < 15 {
			t.Errorf("%d beats after it answers again, want 15 at least", n)
		}

		_ = from.CloseWithError(errors.New("the guardian is dead"))

		time.Sleep(2 * beatEvery) // it ends
	})
}

// TestStopped sees real children that are stopped, and such that run or have ended.
func TestStopped(t *testing.T) {
	var out bytes.Buffer

	child := exec.Command("sleep", "60")
	child.Stdout = &out

	if err := child.Start(); err != nil {
		t.Fatal(err)
	}

	is := func(when string, want bool) {
		t.Helper()

		for deadline := time.Now().Add(10 * time.Second); stopped(child.Process) != want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("stopped = %v %s, want %v", !want, when, want)
			}
		}
	}

	is("at first", false)

	for range 2 {
		if err := child.Process.Signal(unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}

		is("when it was stopped", true)
		is("when it was looked at already", true)

		if err := child.Process.Signal(unix.SIGCONT); err != nil {
			t.Fatal(err)
		}

		is("when it goes on", false)
	}

	if err := child.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}

	is("when it was stopped", true)

	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}

	is("when it was killed", false)

	if err := child.Wait(); err == nil {
		t.Error("a child that was killed ended well")
	}

	is("when it has ended", false)
}
