package core

import "time"

// Turns has the arrays that share a device sync one after the other: each would
// otherwise have the heads go to and fro, and none come to an end sooner.
type Turns interface {
	// Take asks for the turn. It returns which array has it, or nothing if it is
	// ours from now on.
	Take() (holder string)
	// Release gives it back.
	Release()
}

// turnEvery is how often it is asked for.
const turnEvery = 200 * time.Millisecond

// turn is whether the sync may go on, for the devices that it shares.
type turn struct {
	ours   bool
	holder string // that it waits for
	askAt  time.Time
}

// takeTurn reports whether it is our turn.
func (c *Core) takeTurn() bool {
	t := &c.syncer.turn

	if t.ours || c.cfg.Turns == nil {
		return true
	}

	if c.now.Before(t.askAt) {
		return false
	}

	t.askAt = c.now.Add(turnEvery)
	t.holder = c.cfg.Turns.Take()
	t.ours = t.holder == ""

	if t.ours {
		// What it waited is no part of its pace.
		c.startPace()
	}

	return t.ours
}

// passTurn lets others have their turn when nothing is synced.
func (c *Core) passTurn() {
	t := &c.syncer.turn

	if c.syncer.on || c.path.Syncing() {
		return
	}

	t.holder, t.askAt = "", time.Time{}

	if t.ours {
		t.ours = false
		c.cfg.Turns.Release()
	}
}
