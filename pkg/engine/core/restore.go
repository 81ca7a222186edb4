package core

import (
	"slices"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/crashlog"
	"raid-assembler/pkg/raid"
)

// Restore does again what a process that died was writing to an array which is about
// to be started, and says in the setup that parity is right where nothing else could
// make it so. devices are by their IDs. Whether left is of the array as it is now,
// [crashlog.Left.Tells]; all is as for [crashlog.Left.Redo].
func Restore(
	left *crashlog.Left, setup *engine.Setup, devices []LoggedDevice, all func(each []func() error) error,
) error {
	targets := make(map[raid.Slot][]crashlog.Target)
	add := func(slot raid.Slot, m engine.Member) {
		if m.Device != engine.None {
			targets[slot] = append(targets[slot], component{devices[m.Device]})
		}
	}

	for slot, m := range setup.Members {
		add(raid.Slot(slot), m)
	}

	if setup.HasSuccessor {
		add(setup.Heir, setup.Successor)
	}

	if err := left.Redo(setup.Size, targets, all); err != nil {
		return err
	}

	degraded := slices.ContainsFunc(setup.Members, func(m engine.Member) bool { return m.State != raid.InSync })
	if !degraded || setup.Resynced == raid.MaxSectors {
		return nil
	}

	setup.Resynced = raid.MaxSectors

	if !left.Recorded() {
		distrust(setup)
	}

	return nil
}

// component is what a device has of an array.
type component struct{ LoggedDevice }

// Write implements [crashlog.Target].
func (c component) Write(p []byte, at raid.Sectors) error {
	return c.LoggedDevice.Write(p, c.Offset+at)
}
