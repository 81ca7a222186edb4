package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/api/varlink"
	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
)

// refusal is that the engine would not give a device to an array.
type refusal struct {
	seq   uint64 // of the disk then: another one may be taken
	until time.Time
}

// move has an array let go of a spare, and gives it to another. If that will not
// take it, the first has it back: it would be nobody's otherwise.
func (d *Daemon) move(ctx context.Context, dec policy.Decision) error {
	from := api.MemberParameters{Array: dec.From.String(), Device: dec.Device, Reason: dec.Reason}
	if err := d.cfg.Engine.Request(ctx, "Remove", from); err != nil {
		return err
	}

	to := api.MemberParameters{Array: dec.Array.String(), Device: dec.Device, Reason: dec.Reason}

	err := d.cfg.Engine.Request(ctx, "Add", to)
	if !answered(err) {
		return err // who has it shows at the next look
	}

	from.Reason = fmt.Sprintf("%s would not take it: %v", dec.Name, err)

	return errors.Join(err, d.cfg.Engine.Request(ctx, "Add", from))
}

// answered reports whether err is what the engine said, and not that it said
// nothing.
func answered(err error) bool {
	var said *varlink.Error

	return errors.As(err, &said)
}

// refusedBy notes that the engine did not give an array a device that is not its
// own, so that others come first for a while.
func (d *Daemon) refusedBy(dec policy.Decision, err error) {
	dk := d.disks[dec.Device]
	if dec.Action != policy.AddSpare || dk == nil || dk.of(dec.Array) != nil || !answered(err) {
		return
	}

	if d.no[dec.Array] == nil {
		d.no[dec.Array] = make(map[string]refusal)
	}

	d.no[dec.Array][dec.Device] = refusal{dk.Seq, time.Now().Add(retryMax)}
	d.after(retryMax, d.hint)
}

// refusals returns what the engine refused of late, as policy asks for it.
func (d *Daemon) refusals(now time.Time) map[raid.UUID]map[string]bool {
	all := make(map[raid.UUID]map[string]bool)

	for uuid, devices := range d.no {
		all[uuid] = make(map[string]bool)

		for path, r := range devices {
			if dk := d.disks[path]; dk != nil && dk.Seq == r.seq && now.Before(r.until) {
				all[uuid][path] = true
			} else {
				delete(devices, path)
			}
		}
	}

	return all
}
