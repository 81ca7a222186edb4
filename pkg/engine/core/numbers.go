package core

import (
	"fmt"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/metadata"
)

// numbers are what devices are called. There are DeviceMax and one of them, and those of
// devices that were let go of are given to others, the oldest first: in years an array
// may be given any number of devices, each of which the keeper calls anew.
type numbers struct {
	names   map[engine.DeviceID]metadata.MemberID // that the keeper has for them
	devices map[metadata.MemberID]engine.DeviceID
	next    engine.DeviceID // where the search for another one begins
}

func newNumbers() numbers {
	return numbers{
		names: make(map[engine.DeviceID]metadata.MemberID), devices: make(map[metadata.MemberID]engine.DeviceID),
	}
}

// number returns a number that no device has, nor an operation that has not ended.
func (c *Core) number() (engine.DeviceID, error) {
	const all = DeviceMax + 1

	flying := make(map[engine.DeviceID]bool)
	for i := range c.flights {
		flying[c.flights[i].Device] = flying[c.flights[i].Device] || c.flights[i].flying
	}

	for range all {
		id := c.numbers.next % all
		c.numbers.next = id + 1

		if _, taken := c.names[id]; !taken && !flying[id] {
			return id, nil
		}
	}

	return engine.None, fmt.Errorf("core: it has had %d devices, and all are still in use", all)
}

// call has a device be called id here, and member by the keeper.
func (c *Core) call(id engine.DeviceID, member metadata.MemberID) {
	c.names[id], c.devices[member] = member, id
}

// forget has the keeper forget a device, but not before a record that names it
// is written: that would say that its slot is free, and nothing of what has
// happened since.
func (c *Core) forget(id engine.DeviceID) {
	if c.recorder.active {
		c.recorder.parting = append(c.recorder.parting, id)

		return
	}

	member := c.names[id]
	delete(c.names, id)
	delete(c.devices, member)
	c.cfg.Keeper.Forget(member)
}
