package core

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/raid"
)

// TestDistrust is of a RAID5 whose parity was made right by logs: of what is being
// filled nobody knows what it missed of the writes that were under way, nor is its
// own log of any use to the parity on it.
func TestDistrust(t *testing.T) {
	setup := engine.Setup{
		Members: []engine.Member{
			{Device: 0, State: raid.InSync}, {Device: 1, State: raid.Recovering, Recovered: 64}, {Device: 2, State: raid.InSync},
		},
		Successor: engine.Member{Device: 3, State: raid.InSync}, Heir: 2, HasSuccessor: true,
	}
	want := setup
	want.Members = []engine.Member{
		{Device: 0, State: raid.InSync}, {Device: 1, State: raid.Recovering}, {Device: 2, State: raid.InSync},
	}
	want.Successor = engine.Member{Device: 3, State: raid.Recovering}

	if distrust(&setup); !cmp.Equal(setup, want) {
		t.Errorf("setup: %s", cmp.Diff(want, setup))
	}
}
