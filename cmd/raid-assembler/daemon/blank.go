package daemon

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/journal"
	"raid-assembler/pkg/policy"
)

// proof is that a device is read to see whether it is blank, and the result.
type proof struct {
	cancel  context.CancelFunc
	done    atomic.Int64 // of bytes
	ended   bool
	content string // what was found, if anything
}

// unprove ends a proof, and forgets the result: the device may hold anything now.
func (dk *disk) unprove() {
	if dk.proof != nil {
		dk.proof.cancel()
		dk.proof = nil
	}
}

// blank returns what is known of whether a device holds anything.
func (dk *disk) blank() (known policy.Blank, content string) {
	f := &dk.found

	switch {
	case !dk.Whole || dk.Ignored != "" || dk.Claimed != "" || dk.attached != "" || !dk.probed:
		return policy.NotKnown, ""
	case f.Superblock != nil || f.Corrupt != "" || f.Unreadable != "" || f.Foreign != "":
		return policy.NotKnown, ""
	case len(f.Others) > 0:
		return policy.Disproved, "it holds " + contents(dk)
	case dk.proof == nil || !dk.proof.ended:
		return policy.Unproven, ""
	case dk.proof.content != "":
		return policy.Disproved, dk.proof.content
	default:
		return policy.Proven, ""
	}
}

// prove reads the devices that are to be proven to be blank, and no others.
func (d *Daemon) prove() {
	wanted := make(map[string]bool)

	for _, dec := range d.decisions {
		if dk := d.disks[dec.Device]; dec.Action == policy.Prove && dk != nil {
			wanted[dec.Device] = true

			if dk.proof == nil {
				d.proveDisk(dk)
			}
		}
	}

	for path, dk := range d.disks {
		if dk.proof != nil && !dk.proof.ended && !wanted[path] {
			dk.unprove()
		}
	}
}

func (d *Daemon) proveDisk(dk *disk) {
	ctx, cancel := context.WithCancel(d.ctx)
	p, target := &proof{cancel: cancel}, dk.Disk
	dk.proof = p

	go func() {
		at, err := d.cfg.Host.Content(ctx, target, false, p.done.Store)

		d.post(func() {
			cancel()

			if dk.proof != p {
				return // it was given up, or is another disk by now
			}

			p.ended, p.content = true, contentText(at, err)
			d.hint()
		})
	}()
}

// contentText says what was found on a device, if anything.
func contentText(at int64, err error) string {
	switch {
	case err != nil:
		return fmt.Sprintf("not all of it can be read: %v", err)
	case at >= 0:
		return fmt.Sprintf("byte %d is not zero", at)
	default:
		return ""
	}
}

// blanks returns the devices that are given to an array because they are blank.
func (d *Daemon) blanks(todo []policy.Decision) map[string]Disk {
	disks := make(map[string]Disk)

	for _, dec := range todo {
		dk := d.disks[dec.Device]
		if dec.Action != policy.AddSpare || dk == nil {
			continue
		}

		if known, _ := dk.blank(); known == policy.Proven {
			disks[dec.Device] = dk.Disk
		}
	}

	return disks
}

// addBlank gives an array a blank disk, if it is still so: somebody may have begun to
// write to it, and udev tells only of the end.
func (d *Daemon) addBlank(ctx context.Context, disk Disk, p api.MemberParameters) error {
	at, err := d.cfg.Host.Content(ctx, disk, true, nil)
	if text := contentText(at, err); text != "" {
		d.post(func() {
			if dk := d.disks[disk.Path]; dk != nil && dk.Seq == disk.Seq && dk.proof != nil {
				dk.proof.content = text
			}
		})

		return fmt.Errorf("%s was blank, and is not any more: %s", diskName(disk), text)
	}

	d.cfg.Log(journal.Event{
		Kind: journal.Decision, Array: p.Array, Member: disk.Path, Serial: disk.Serial, Reason: p.Reason,
		Message: fmt.Sprintf("%s, model %q, at %s, of %d MiB, held nothing but zeros, and is overwritten",
			diskName(disk), disk.Model, disk.Port, disk.Size.Bytes()>>20),
	})

	return d.cfg.Engine.Request(ctx, "Add", p)
}

// addProving adds a device that is read, to see whether it is blank.
func (d *Daemon) addProving(st *api.Status, dec policy.Decision) {
	dk := d.disks[dec.Device]
	if dk == nil || dk.proof == nil || slices.ContainsFunc(st.Unused, func(i api.Idle) bool {
		return i.Device == dec.Device
	}) {
		return
	}

	st.Unused = append(st.Unused, api.Idle{
		Device: dec.Device, Serial: dec.Serial, Array: d.nameOf(dec.Array), Reason: dec.Reason,
		Proof: &api.Proof{DoneBytes: dk.proof.done.Load(), TotalBytes: dk.Size.Bytes()},
	})
}
