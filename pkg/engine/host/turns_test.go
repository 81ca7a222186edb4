package host

import "testing"

// TestTurns has three arrays sync, two of which share a disk.
func TestTurns(t *testing.T) {
	h := New(Config{})
	one, two, three := &running{name: "one"}, &running{name: "two"}, &running{name: "three"}

	for path, r := range map[string]*running{"/dev/x1": one, "/dev/x2": one, "/dev/x3": two, "/dev/x4": three} {
		h.turns.has(r, path)
	}

	h.turns.has(two, "/dev/x2")

	take := func(r *running, want string) {
		t.Helper()

		if got := h.turnsOf(r).Take(); got != want {
			t.Errorf("%s waits for %q, want %q", r.name, got, want)
		}
	}

	take(one, "")
	take(one, "") // still
	take(two, "one")
	take(three, "")

	h.turnsOf(one).Release()
	take(two, "")
	take(one, "two")

	// Another disk may have the name of one that was let go of.
	h.turns.lost(two, "/dev/x2")
	take(one, "")
	h.turnsOf(one).Release()
	h.turns.has(two, "/dev/x2")
	take(one, "two")

	// One that ends has no turn any more.
	h.turns.forget(two)
	take(one, "")
	h.turnsOf(one).Release()
	take(two, "")
	take(one, "")
}
