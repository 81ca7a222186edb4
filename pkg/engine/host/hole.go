package host

import (
	"errors"
	"fmt"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/engine/core"
	"raid-assembler/pkg/engine/crashlog"
	"raid-assembler/pkg/engine/loop"
	"raid-assembler/pkg/raid"
)

// closeHole makes the parity of a RAID5 that was not stopped right by its
// partial parity logs, and says in cfg that it is. Below resynced it is already.
// Returns an error wrapping [ErrRefused], with nothing written, if the logs do not
// tell and the array is degraded.
func closeHole(all []candidate, cfg *loop.Config, p api.StartParameters, resynced raid.Sectors) error {
	best := all[0].sb
	if best.Level != raid.Level5 || best.PPL == nil {
		return nil
	}

	hole := core.Hole{
		Geometry: cfg.Geometry, Setup: &cfg.Setup, Resynced: resynced,
		AcceptLoss: p.AcceptLoss, Growing: p.GrowTo != nil, Devices: logged(all),
	}

	err := hole.Close()
	if errors.Is(err, core.ErrUntold) {
		return fmt.Errorf("dirty and degraded, and the partial parity logs do not tell what was being written: "+
			"bring the missing member back, or accept the loss with raid-assembler assemble --accept-loss: %w",
			ErrRefused)
	}

	return err
}

func logged(all []candidate) []core.LoggedDevice {
	devices := make([]core.LoggedDevice, 0, len(all))
	for _, c := range all {
		devices = append(devices, core.LoggedDevice{Storage: c.dev, Offset: c.sb.DataOffset, Log: c.sb.PPL})
	}

	return devices
}

// restore does again what an engine that died was writing, if that is known, and says
// in cfg what is known then. It returns below which offset redundancy is right.
func restore(all []candidate, cfg *loop.Config, left *crashlog.Left) (raid.Sectors, error) {
	resynced := all[0].sb.ResyncOffset
	if left == nil {
		return resynced, nil
	}

	before := cfg.Setup.Resynced
	if err := core.Restore(left, &cfg.Setup, logged(all), atOnce); err != nil {
		return resynced, err
	}

	if cfg.Setup.Resynced != before {
		resynced = cfg.Setup.Resynced
	}

	return resynced, nil
}
