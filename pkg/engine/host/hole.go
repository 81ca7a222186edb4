package host

import (
	"errors"
	"fmt"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/engine/core"
	"raid-assembler/pkg/engine/loop"
	"raid-assembler/pkg/raid"
)

// closeHole makes the parity of a RAID5 that was not stopped right by its
// partial parity logs, and says in cfg that it is. Returns an error wrapping
// [ErrRefused], with nothing written, if the logs do not tell and the array is
// degraded.
func closeHole(all []candidate, cfg *loop.Config, p api.StartParameters) error {
	best := all[0].sb
	if best.Level != raid.Level5 || best.PPL == nil {
		return nil
	}

	hole := core.Hole{
		Geometry: cfg.Geometry, Setup: &cfg.Setup, Resynced: best.ResyncOffset,
		AcceptLoss: p.AcceptLoss, Growing: p.GrowTo != nil,
	}
	for _, c := range all {
		hole.Devices = append(hole.Devices, core.LoggedDevice{Storage: c.dev, Offset: c.sb.DataOffset, Log: c.sb.PPL})
	}

	err := hole.Close()
	if errors.Is(err, core.ErrUntold) {
		return fmt.Errorf("dirty and degraded, and the partial parity logs do not tell what was being written: "+
			"bring the missing member back, or accept the loss with raid-assembler assemble --accept-loss: %w",
			ErrRefused)
	}

	return err
}
