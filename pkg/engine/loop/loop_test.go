package loop

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"raid-assembler/pkg/engine/uring"
)

// TestDoAfterTheEnd asks for something when the array is not served any more:
// the number of the descriptor that would have woken its thread is another
// file's by then, and that must not be written to.
func TestDoAfterTheEnd(t *testing.T) {
	wake, err := uring.NewWake()
	if err != nil {
		t.Fatal(err)
	}

	l := &Loop{wake: wake, mail: make(chan func(), 64), done: make(chan struct{})}

	if err := l.closeWake(); err != nil {
		t.Fatal(err)
	}

	// The lowest number that is free, which is the one just closed.
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}

	defer func() { _ = file.Close() }()

	close(l.done)

	for range 64 {
		if err := l.Do(func() { t.Error("it was done") }); !errors.Is(err, ErrEnded) {
			t.Fatalf("Do() = %v, want %v", err, ErrEnded)
		}
	}

	if info, err := file.Stat(); err != nil || info.Size() != 0 {
		t.Errorf("%d bytes were written to another file (%v)", info.Size(), err)
	}
}

// TestHandOverWaits has an array be handed over while attributes of its queue are being
// set, which takes effect only while the array is served.
func TestHandOverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Loop{mail: make(chan func()), done: make(chan struct{})}
		set, over := make(chan struct{}), make(chan error, 1)

		l.tuning.Go(func() { <-set })
		close(l.done)

		go func() { over <- l.HandOver(t.Context()) }()

		synctest.Wait()

		early := len(over) > 0

		close(set)

		if err := <-over; early || !errors.Is(err, ErrEnded) {
			t.Errorf("HandOver() = %v, before the attributes were set: %v, want %v and false", err, early, ErrEnded)
		}
	})
}
