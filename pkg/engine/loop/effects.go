package loop

import (
	"context"
	"fmt"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// step tells the state machine of an event, and does what it asks for.
func (l *Loop) step(ev engine.Event) {
	for _, effect := range l.array.Step(ev) {
		l.do(effect)
	}
}

func (l *Loop) do(effect engine.Effect) {
	switch e := effect.(type) {
	case engine.WriteSuperblocks:
		l.record(e.Seq)
	case engine.ReleaseWrites:
		l.release()
	case engine.Acknowledge:
		// The pump answers what may be answered.
	case engine.FailWrites:
		l.refuse()
	case engine.SetMember:
		l.setMember(e.Slot)
	case engine.StartSync:
		l.startSync()
	case engine.StopSync:
		l.syncer.on = false
	case engine.Report:
		l.notice(e)
	case engine.Stopped:
		l.stopped = true
	default:
		panic(fmt.Sprintf("loop: unknown effect %T", effect))
	}
}

// setMember tells the data path what holds a slot.
func (l *Loop) setMember(slot raid.Slot) {
	m := l.array.Members()[slot]
	l.path.SetMember(slot, stripe.Member{Device: int(m.Device), State: m.State, Recovered: m.Recovered})
	l.path.SetResynced(l.array.Resynced())
}

func (l *Loop) notice(r engine.Report) {
	// The data path is told in the same turn what a sync has made right.
	l.path.SetResynced(l.array.Resynced())

	if l.cfg.Notify != nil {
		l.cfg.Notify(Notice{
			Report: r, Member: l.disks[r.Device].Member,
			Offset: l.at, Mismatched: l.mismatch, Cause: l.cause[r.Device],
		})
	}
}

// Status is an array as it is now.
type Status struct {
	State    raid.ArrayState
	Degraded int
	Members  []engine.Member
	Spares   []engine.DeviceID
	Sync     Progress
	Events   uint64
	Busy     bool // somebody reads or writes it, or did a moment ago
}

// Status returns the array as it is now.
func (l *Loop) Status() (Status, error) {
	var st Status

	err := l.Do(func() {
		st = Status{
			State: l.array.State(), Degraded: l.array.Degraded(),
			Members: append([]engine.Member(nil), l.array.Members()...),
			Spares:  l.array.Spares(), Sync: l.progress(), Events: l.cfg.Keeper.Events(),
			Busy: l.writing+l.reading+len(l.held) > 0 || time.Since(l.lastAny) < stillBusy,
		}
	})

	return st, err
}

// Fail takes a device out as faulty, as an I/O error would.
func (l *Loop) Fail(id engine.DeviceID, cause string) error {
	return l.Do(func() {
		l.cause[id] = cause
		l.step(engine.MemberFailed{Device: id})
	})
}

// Add gives the array a device as a spare. Its superblock is written before
// anything is copied to it.
func (l *Loop) Add(d Device, source metadata.Source, uuid raid.UUID) (engine.DeviceID, error) {
	if d.Member.Block > l.cfg.Block {
		// What clients write is not always a whole block of it.
		return engine.None, fmt.Errorf("loop: %s has blocks of %d bytes, the array has %d",
			d.Member.Path, d.Member.Block, l.cfg.Block)
	}

	var failed error

	err := l.Do(func() {
		id, offset, size, err := l.cfg.Keeper.Add(source, uuid)
		if err != nil {
			failed = err

			return
		}

		if size < l.cfg.Setup.Size || int(id) > SlotMax {
			l.cfg.Keeper.Forget(id)
			failed = fmt.Errorf("loop: %s holds %d sectors of data as number %d, want %d and at most %d",
				d.Member.Path, size, id, l.cfg.Setup.Size, SlotMax)

			return
		}

		d.ID, d.Offset = engine.DeviceID(id), offset
		if failed = l.ring.UpdateFile(fileSlot(d.ID), d.Member.FD()); failed != nil {
			l.cfg.Keeper.Forget(id)

			return
		}

		l.disks[d.ID] = d
		l.step(engine.SpareAdded{Device: d.ID})
	})
	if err != nil {
		return engine.None, err
	}

	return d.ID, failed
}

// Remove lets go of a faulty device or a spare, and closes it when the last
// operation on it has ended.
func (l *Loop) Remove(_ context.Context, id engine.DeviceID) error {
	var failed error

	err := l.Do(func() {
		d, ok := l.disks[id]
		if !ok {
			failed = fmt.Errorf("loop: no device %d", id)

			return
		}

		l.step(engine.DeviceRemoved{Device: id})

		for _, m := range l.array.Members() {
			if m.Device == id {
				failed = fmt.Errorf("loop: %s is in use: %s", d.Member.Path, m.State)

				return
			}
		}

		l.forget(id)
		delete(l.disks, id)

		// What is in flight on it keeps the file open until it ends.
		if failed = l.ring.UpdateFile(fileSlot(id), -1); failed == nil {
			failed = d.Member.Close()
		}
	})
	if err != nil {
		return err
	}

	return failed
}

// forget has the keeper forget a device, but not before a record that names it
// is written: that would say that its slot is free, and nothing of what has
// happened since.
func (l *Loop) forget(id engine.DeviceID) {
	if l.recorder.active {
		l.recorder.parting = append(l.recorder.parting, id)
	} else {
		l.cfg.Keeper.Forget(metadata.MemberID(id))
	}
}
