package loop

import (
	"errors"
	"fmt"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/core"
	"raid-assembler/pkg/engine/member"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

func (l *Loop) notice(n core.Notice) {
	if l.cfg.Notify != nil {
		l.cfg.Notify(Notice{
			Report: n.Report, Member: l.disks[n.Device],
			Offset: n.Offset, Mismatched: n.Mismatched, Cause: n.Cause,
		})
	}
}

// Status returns the array as it is now.
func (l *Loop) Status() (st Status, err error) {
	err = l.Do(func() { st = l.core.Status() })

	return st, err
}

// Fail takes a device out as faulty, as an I/O error would.
func (l *Loop) Fail(id engine.DeviceID, cause string) error {
	return l.ask(func() error { return l.core.Fail(id, cause) })
}

// Lost says that a device is not there any more, whether the array can do
// without it or not.
func (l *Loop) Lost(id engine.DeviceID, cause string) error {
	return l.Do(func() { l.core.Lost(id, cause) })
}

// Add gives the array a device as a spare. Its superblock is written before
// anything is copied to it.
func (l *Loop) Add(d *member.Device, source metadata.Source, uuid raid.UUID) (id engine.DeviceID, err error) {
	if d.Block > l.cfg.Block {
		return engine.None, l.largeBlocks(d)
	}

	err = l.ask(func() (err error) {
		id, err = l.core.Add(source, uuid, l.opener(d))

		return err
	})
	if err != nil {
		return engine.None, fmt.Errorf("loop: %s: %w", d.Path, err)
	}

	return id, nil
}

// Readd gives a device that was in sync in its slot before back that slot, to
// be filled with no more than what it missed. Returns an error wrapping
// [core.ErrStale], with nothing changed, if nobody can know what that is: it can
// be added as a spare then.
func (l *Loop) Readd(d *member.Device, m metadata.Attachment) (id engine.DeviceID, err error) {
	if d.Block > l.cfg.Block {
		return engine.None, l.largeBlocks(d)
	}

	err = l.ask(func() (err error) {
		id, err = l.core.Readd(m, l.opener(d))

		return err
	})
	if err != nil {
		return engine.None, fmt.Errorf("loop: %s: %w", d.Path, err)
	}

	return id, nil
}

// largeBlocks is why a device does not fit: what clients write is not always a
// whole block of it.
func (l *Loop) largeBlocks(d *member.Device) error {
	return fmt.Errorf("loop: %s has blocks of %d bytes, the array has %d", d.Path, d.Block, l.cfg.Block)
}

// opener returns what makes a device fit for operations.
func (l *Loop) opener(d *member.Device) func(engine.DeviceID) error {
	return func(id engine.DeviceID) error {
		if err := l.ring.UpdateFile(fileSlot(id), d.FD()); err != nil {
			return err
		}

		l.disks[id] = d

		return nil
	}
}

// Remove lets go of a faulty device or a spare, and closes it. What is in
// flight on it keeps its file open until it ends.
func (l *Loop) Remove(id engine.DeviceID) (err error) {
	ended := l.Do(func() {
		if err = l.core.Remove(id); err != nil {
			return
		}

		d := l.disks[id]
		delete(l.disks, id)

		if err = l.ring.UpdateFile(fileSlot(id), -1); err == nil {
			err = d.Close()
		}
	})
	if ended != nil {
		return ended
	}

	if err != nil {
		return fmt.Errorf("loop: device %d: %w", id, err)
	}

	return nil
}

// Sync begins a check or a repair of a range, in the unit of a resync, or ends
// one with Idle. Returns an error if that cannot be now.
func (l *Loop) Sync(action raid.SyncAction, r raid.Range) error {
	return l.ask(func() error { return l.core.Sync(action, r) })
}

// Replace has a spare filled with what is in slot, and then take it over;
// engine.None is any spare. Returns an error if that cannot be now.
func (l *Loop) Replace(slot raid.Slot, spare engine.DeviceID) error {
	return l.ask(func() error { return l.core.Replace(slot, spare) })
}

// SetReadOnly has nothing written from now on, or lets it begin again. Returns
// an error while writes are in flight.
func (l *Loop) SetReadOnly(on bool) error {
	return l.ask(func() error { return l.core.SetReadOnly(on) })
}

// How long new writes are held at most, and how often it is looked whether those
// in flight have ended.
const (
	drainMax   = 5 * time.Second
	drainEvery = 5 * time.Millisecond
)

// Rechunk has a bit of the bitmap stand for another chunk. Returns an error if
// that cannot be, or the writes that are in flight do not end.
func (l *Loop) Rechunk(chunk raid.Sectors) error {
	for until := time.Now().Add(drainMax); ; time.Sleep(drainEvery) {
		done := false

		err := l.ask(func() (err error) {
			done, err = l.core.Rechunk(chunk)

			return err
		})

		switch {
		case err != nil || done:
			return err
		case time.Now().After(until):
			err := fmt.Errorf("loop: what is being written did not end within %v", drainMax)

			return errors.Join(err, l.ask(func() error {
				_, err := l.core.Rechunk(0)

				return err
			}))
		}
	}
}

// SetSpeed says between which bounds the array is synced from now on.
func (l *Loop) SetSpeed(s core.Speed) error { return l.Do(func() { l.core.SetSpeed(s) }) }

// ask runs f in the array's thread and returns what it does.
func (l *Loop) ask(f func() error) (err error) {
	if ended := l.Do(func() { err = f() }); ended != nil {
		return ended
	}

	return err
}
