package daemon

import (
	"slices"
	"strings"
	"time"

	"raid-assembler/pkg/policy"
)

// comings are when a disk came back that had gone from an array which ran.
type comings struct {
	gone bool
	back []time.Time
}

// key names a disk whatever its path is, or is empty. A part of a disk has the serial
// number of all of it.
func (seen Disk) key() string {
	if seen.Serial == "" || seen.Whole {
		return seen.Serial
	}

	return seen.Serial + " " + strings.TrimPrefix(seen.Path, strings.TrimRight(seen.Path, "0123456789"))
}

// went notes that a disk is gone that an array had.
func (d *Daemon) went(seen Disk) {
	key := seen.key()
	if key == "" {
		return
	}

	if d.comes[key] == nil {
		d.comes[key] = &comings{}
	}

	d.comes[key].gone = true
}

// came notes that a disk is there, if it was gone. What was long ago is forgotten.
func (d *Daemon) came(seen Disk) {
	c := d.comes[seen.key()]
	if c == nil || !c.gone {
		return
	}

	now := time.Now()
	c.gone = false
	c.back = append(slices.DeleteFunc(c.back, func(at time.Time) bool { return now.Sub(at) >= policy.FlapWindow }), now)
}

// returned returns how long ago the devices came back that had gone, by path.
func (d *Daemon) returned(now time.Time) map[string][]time.Duration {
	ages := make(map[string][]time.Duration)

	for path, dk := range d.disks {
		if c := d.comes[dk.key()]; c != nil {
			for _, at := range c.back {
				ages[path] = append(ages[path], now.Sub(at))
			}
		}
	}

	return ages
}
