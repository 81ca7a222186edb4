package loop

import "raid-assembler/pkg/engine/uring"

// Hold has all memory be there that requests may use, registered with the ring, however
// busy the array was so far: while memory is reclaimed by writing to this array, none may
// be needed for that. Memory that is used only once a member does not answer is left out.
func (l *Loop) Hold() error {
	for _, block := range l.own {
		if err := uring.Populate(block); err != nil {
			return err
		}
	}

	return l.Do(func() {
		for _, block := range l.own {
			_, _ = l.pins.find(block) // which goes without, if it must
		}
	})
}
