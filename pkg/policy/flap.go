package policy

import (
	"slices"
	"time"
)

// What comes and goes is taken in again at once flapFree times within FlapWindow. From
// then on it is left alone for a while, which doubles each time: every return has the
// array write what was missed, and every loss has it go without.
const (
	FlapWindow   = 24 * time.Hour
	flapFree     = 3
	flapPauseMin = time.Minute
	flapPauseMax = time.Hour
)

// flaps says why d is not taken in yet, for it comes and goes, and for how long, if so.
func (t *tender) flaps(d *Device) (why, time.Duration) {
	ages := t.returned[d.Path]
	if len(ages) == 0 {
		return why{}, 0
	}

	// Only what was before the last time counts, so that to wait does not shorten it.
	last, times := slices.Min(ages), 0

	for _, age := range ages {
		if age-last < FlapWindow {
			times++
		}
	}

	if times <= flapFree {
		return why{}, 0
	}

	pause := flapPauseMin
	for range times - flapFree - 1 {
		pause = min(2*pause, flapPauseMax)
	}

	if last >= pause {
		return why{}, 0
	}

	return because(Flapping, "it went and came back %d times within a day, and is not taken in until %v after the "+
		"last time: look at its cable, its port and its power; raid-assembler add %v %s takes it in now",
		times, pause, t.array.UUID, d.Path), pause - last
}
