package core

// rules is a set of the rules about the order of writes.
type rules uint16

// The rules, each with the crash that its absence loses to.
const (
	// ruleDirty: the superblocks say dirty before the first write is submitted.
	// Else redundancy is wrong after a crash, and nobody knows.
	ruleDirty rules = 1 << iota
	// ruleMarked: a write is marked in the bitmap before it is submitted. Else
	// no resync looks where redundancy is wrong.
	ruleMarked
	// ruleFailure: a failure is recorded before a write is acknowledged that
	// the member missed. Else it comes back as if it were fresh.
	ruleFailure
	// rulePosition: what a record says was taken before the flush that is
	// before it. Else the position of a recovery runs ahead of its data.
	rulePosition
	// ruleFlush: a flush, and a write with FUA, reach every working member
	// before they are acknowledged.
	ruleFlush
	// ruleClean: the superblocks say clean when no write is in flight. Else, as
	// for the first one.
	ruleClean
	// ruleLogged: what the partial parity log needs of a row is durable before the
	// row is changed. Else a crash leaves parity wrong that the log does not tell.
	ruleLogged
	// ruleNoted: what is written to a row is in the crash log before it is. Else the
	// death of the process leaves parity wrong, and nobody knows where.
	ruleNoted
	ruleEnd
)

// broken reports whether a rule is not kept. None is but in the test that shows
// what for each of them is there.
func (c *Core) broken(r rules) bool { return c.ignored&r != 0 }
