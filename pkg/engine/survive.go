package engine

import "raid-assembler/pkg/raid"

// Survives reports whether the array would not be broken without the devices
// that gone names.
func (a *Array) Survives(gone func(DeviceID) bool) bool {
	return a.geo.Survives(func(slot raid.Slot) bool {
		return a.inSync(slot) && !gone(a.members[slot].Device)
	})
}
