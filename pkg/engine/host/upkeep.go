package host

import (
	"errors"
	"fmt"
	"slices"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/core"
	"raid-assembler/pkg/engine/loop"
	"raid-assembler/pkg/raid"
)

// refusal makes what an array answers to a request a refusal, unless it is that
// the array has ended.
func refusal(r *running, err error) error {
	if err == nil || errors.Is(err, loop.ErrEnded) {
		return err
	}

	return fmt.Errorf("array %s: %w: %w", r.name, err, ErrRefused)
}

// Sync begins a check or a repair, or ends one.
func (h *Host) Sync(p api.SyncParameters) error {
	_, r, err := h.find(p.Array)
	if err != nil {
		return err
	}

	action := raid.SyncAction(p.Action)
	if !slices.Contains([]raid.SyncAction{raid.Check, raid.Repair, raid.Idle}, action) {
		return fmt.Errorf("%q: one of check, repair and idle can be asked for: %w", p.Action, ErrRefused)
	}

	part, err := sectors(p.From, p.To)
	if err != nil {
		return err
	}

	if err := refusal(r, r.loop.Sync(action, part)); err != nil {
		return err
	}

	h.touch()

	return nil
}

// sectors returns the range between two offsets in bytes; a to of 0 is the end.
func sectors(from, to int64) (raid.Range, error) {
	part := raid.Range{From: raid.Sectors(from / raid.SectorSize), To: raid.MaxSectors}
	if to != 0 {
		part.To = raid.Sectors((to + raid.SectorSize - 1) / raid.SectorSize)
	}

	if from < 0 || to < 0 || part.Empty() {
		return part, fmt.Errorf("from byte %d to byte %d there is nothing: %w", from, to, ErrRefused)
	}

	return part, nil
}

// Replace has a member copied to a spare, or to a device that becomes one,
// which then takes its place.
func (h *Host) Replace(p api.ReplaceParameters) error {
	old, err := h.findMember(p.Array, p.Device)
	if err != nil {
		return err
	}

	st, err := old.array.loop.Status()
	if err != nil {
		return err
	}

	slot := slices.IndexFunc(st.Members, func(m engine.Member) bool { return m.Device == old.id })
	if slot < 0 {
		return fmt.Errorf("%s (serial %s) holds no slot of %s: %w", old.Path, old.Serial, old.array.name, ErrRefused)
	}

	spare := engine.None

	if p.With != "" {
		if spare, err = h.spare(old, p.With, p.Reason); err != nil {
			return err
		}
	}

	if err := refusal(old.array, old.array.loop.Replace(raid.Slot(slot), spare)); err != nil {
		return err
	}

	h.touch()

	return nil
}

// spare returns the spare that a path or a serial names, of the array that has
// old. A device that the array does not have becomes one.
func (h *Host) spare(old attached, name, reason string) (engine.DeviceID, error) {
	id, _, err := h.device(old.array, name)
	if !errors.Is(err, ErrNotFound) {
		return id, err
	}

	if err := h.Add(api.MemberParameters{Array: old.uuid.String(), Device: name, Reason: reason}); err != nil {
		return engine.None, err
	}

	id, _, err = h.device(old.array, name)

	return id, err
}

// Limit sets how fast an array syncs.
func (h *Host) Limit(p api.LimitParameters) error {
	_, r, err := h.find(p.Array)
	if err != nil {
		return err
	}

	st, err := r.loop.Status()
	if err != nil {
		return err
	}

	speed, err := limited(st.Speed, p)
	if err != nil {
		return err
	}

	if err := r.loop.SetSpeed(speed); err != nil {
		return err
	}

	h.touch()

	return nil
}

// limited returns a speed with what p says of it; 0 stands for the usual one.
func limited(speed core.Speed, p api.LimitParameters) (core.Speed, error) {
	if p.Minimum != nil {
		speed.Min = raid.Sectors(*p.Minimum / raid.SectorSize)
	}

	if p.Maximum != nil {
		speed.Max = raid.Sectors(*p.Maximum / raid.SectorSize)
	}

	if speed.Min < 0 || speed.Max < 0 || speed.Min > 0 && speed.Max > 0 && speed.Min > speed.Max {
		return speed, fmt.Errorf("at least %d and at most %d bytes a second cannot be: %w",
			speed.Min.Bytes(), speed.Max.Bytes(), ErrRefused)
	}

	return speed, nil
}

// Bitmap has a bit of an array's bitmap stand for another chunk.
func (h *Host) Bitmap(p api.BitmapParameters) error {
	_, r, err := h.find(p.Array)
	if err != nil {
		return err
	}

	if err := refusal(r, r.loop.Rechunk(raid.Sectors(p.Chunk/raid.SectorSize))); err != nil {
		return err
	}

	h.touch()

	return nil
}

// Access makes an array read-only, or writable again.
func (h *Host) Access(p api.AccessParameters) error {
	_, r, err := h.find(p.Array)
	if err != nil {
		return err
	}

	if err := refusal(r, r.loop.SetReadOnly(p.ReadOnly)); err != nil {
		return err
	}

	h.touch()

	return nil
}
