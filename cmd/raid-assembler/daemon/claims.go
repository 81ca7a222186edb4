package daemon

import (
	"maps"
	"slices"
)

// noteClaims notes which devices the engine has, which hides their partitions; of one that
// it has let go of the kernel is to find them again, whatever was there before: the table
// may have been written through the array.
func (d *Daemon) noteClaims() {
	claimed := make(map[string]bool)

	for _, a := range d.arrays {
		for _, m := range a.Members {
			if m.Device != "" {
				claimed[m.Device] = true
			}
		}
	}

	for path := range d.claimed {
		if dk := d.disks[path]; dk != nil && !claimed[path] && dk.Whole {
			go func() { _ = d.cfg.Host.FindPartitions(dk.Disk) }() // somebody else has it already
		}
	}

	d.claimed = claimed
	d.cfg.Protect(slices.Collect(maps.Keys(claimed)))
}
