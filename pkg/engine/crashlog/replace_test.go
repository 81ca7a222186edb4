package crashlog

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"raid-assembler/pkg/raid"
)

// TestReplace puts one log in the place of another, and has the process die before and
// after each word that is stored: the log is the old one with some writes forgotten, all of
// which were done again, and then the new one.
func TestReplace(t *testing.T) {
	const entries, slots, old, fresh = 3, 2, 7, 8

	for _, tt := range []struct{ before, after bool }{{true, true}, {true, false}, {false, true}, {false, false}} {
		t.Run(fmt.Sprintf("trusted %v and %v", tt.before, tt.after), func(t *testing.T) {
			head := make([]byte, Size(entries, slots))
			offset := func([]byte) int { return 0 }

			log, err := New(head, entries, slots, offset)
			if err != nil {
				t.Fatal(err)
			}

			log.Events(old)
			log.Recorded()
			log.Trust(tt.before)

			for id := range entries {
				log.Begin(id, raid.Range{From: 0, To: 1}, [][]byte{nil, make([]byte, raid.SectorSize)})
			}

			was := bytes.Clone(head)

			next, err := Replace(head, entries, slots, offset)
			if err != nil {
				t.Fatal(err)
			}

			next.Events(fresh)
			next.Trust(tt.after)

			stores := next.replacement()
			for n := range len(stores) + 1 {
				dead := &Log{head: bytes.Clone(head), slots: slots}
				for _, s := range stores[:n] {
					dead.set(s.word, s.value)
				}

				left, err := Read(bytes.NewReader(dead.head))
				if err != nil {
					t.Fatal(err)
				}

				switch {
				case left.trusted && left.events == old && !tt.before, left.trusted && left.events == fresh && !tt.after:
					t.Errorf("after %d stores a log is trusted that is not to be", n)
				case left.Writes() > 0 && (left.events != old || left.trusted != tt.before):
					t.Errorf("after %d stores there are writes of the log before in %+v", n, left)
				}
			}

			if !bytes.Equal(head, was) {
				t.Error("the old log was changed before the new one was published")
			}

			next.Publish()
			next.Recorded()

			left, err := Read(bytes.NewReader(head))
			if err != nil || left.Tells(fresh) != tt.after || left.Writes() != 0 || !left.Recorded() {
				t.Errorf("published: %+v (%v)", left, err)
			}
		})
	}
}

// TestReplaceAnother refuses to replace what is of another shape, or no log.
func TestReplaceAnother(t *testing.T) {
	head := make([]byte, Size(8, 8))
	offset := func([]byte) int { return 0 }

	if _, err := New(head, 4, 4, offset); err != nil {
		t.Fatal(err)
	}

	for _, tt := range []struct {
		head           []byte
		entries, slots int
	}{
		{head, 4, 5},
		{head, 5, 4},
		{head[:Size(4, 4)-1], 4, 4},
		{make([]byte, Size(4, 4)), 4, 4},
	} {
		if _, err := Replace(tt.head, tt.entries, tt.slots, offset); !errors.Is(err, ErrUnreadable) {
			t.Errorf("%d writes of %d slots in %d bytes: %v, want %v", tt.entries, tt.slots, len(tt.head), err, ErrUnreadable)
		}
	}
}
