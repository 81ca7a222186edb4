package core

import (
	"testing"

	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/raid"
)

// TestReadOnlyBeforeTheRecord asks for a read-only array when a write has ended
// that a member missed, and the record of that is under way: the write must not be
// acknowledged before, as it would be if there was nothing left to wait for.
func TestReadOnlyBeforeTheRecord(t *testing.T) {
	c, _ := newMirror(t, 3)
	c.Submit(stripe.Request{Tag: 0, Op: stripe.Write, Data: make([]byte, 4096)})

	for c.array.Degraded() == 0 {
		c.turn(func(o Operation) bool { return o.Device == 2 && !o.Record })
	}

	c.Advance()

	if c.array.MayAcknowledge() || c.writing > 0 {
		t.Fatalf("%d writes are under way, want one that has ended before the failure is recorded", c.writing)
	}

	if err := c.SetReadOnly(true); err == nil {
		t.Error("the array is read-only before the failure is recorded")
	}

	if answers := c.Answers(); len(answers) > 0 {
		t.Errorf("answers = %+v, want none before the failure is recorded", answers)
	}

	for len(c.due) == 0 {
		c.turn(nil)
	}

	if !c.Answers()[0].OK || c.SetReadOnly(true) != nil || c.array.Record().Members[2].State != raid.Faulty {
		t.Error("the write did not end well, or the array cannot be made read-only after it")
	}
}
