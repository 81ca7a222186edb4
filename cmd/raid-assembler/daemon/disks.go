package daemon

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/journal"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// disk is what the daemon knows of one device. If it is unplugged, what is
// plugged in next is another one, whatever its name.
type disk struct {
	Disk

	found    Finding
	probed   bool      // found holds
	running  bool      // a probe
	nth      int       // of the probes, the one that runs
	again    bool      // probe once more after it
	slow     bool      // it has taken longer than decisions wait
	attached string    // how the engine has it; empty if it does not
	beside   string    // how the engine has all that is in its container
	told     raid.UUID // of the member that the journal knows it as
	doubts   []string  // the conflicts that were found
	proof    *proof    // whether it is blank; nil if nobody wanted to know
}

// of returns what a device says of an array, or nil if it is no member of it.
func (dk *disk) of(array raid.UUID) *metadata.Superblock {
	if dk.found.Superblock == nil {
		return nil
	}

	return dk.found.Superblock.Of(array)
}

// all returns what a device says of each array that it is a member of.
func (dk *disk) all() []*metadata.Superblock {
	if dk.found.Superblock == nil {
		return nil
	}

	return dk.found.Superblock.All()
}

// update takes in what devices there are.
func (d *Daemon) update(disks []Disk) {
	here := make(map[string]bool, len(disks))

	for _, seen := range disks {
		here[seen.Path] = true
	}

	// What went comes first: it may be back by another name.
	for path, dk := range d.disks {
		if !here[path] {
			d.vanished(dk)
			delete(d.disks, path)
		}
	}

	for _, seen := range disks {
		old := d.disks[seen.Path]
		if old != nil && old.same(seen) {
			d.seenAgain(old, seen)

			continue
		}

		if old != nil {
			d.vanished(old)
		}

		d.appeared(seen)
	}

	d.shuns.keep(disks)
	d.rescan, d.anew = false, false
	clear(d.touched)
}

// seenAgain takes in a device that was there before.
func (d *Daemon) seenAgain(old *disk, seen Disk) {
	if old.Serial == "" {
		d.came(seen)
	}

	news := d.rescan && old.attached == "" || d.touched[seen.Path] || old.Ignored != seen.Ignored
	old.Disk = seen

	if news || seen.Claimed != "" {
		old.unprove()
	}

	if news && seen.Ignored == "" {
		d.probe(old)
	}
}

// appeared takes in a device that was not there before.
func (d *Daemon) appeared(seen Disk) {
	dk := &disk{Disk: seen}
	d.disks[seen.Path] = dk
	d.came(seen)

	if seen.Ignored != "" {
		return
	}

	d.cfg.Log(journal.Event{
		Kind: journal.NewDevice, Member: seen.Path, Serial: seen.Serial,
		Message: fmt.Sprintf("%s appeared, %d MiB", diskName(seen), seen.Size.Bytes()>>20),
	})
	d.probe(dk)
}

// same reports whether what is seen is what was there. The serial may become
// known later than the disk.
func (dk *disk) same(seen Disk) bool {
	return dk.Seq == seen.Seq && dk.Size == seen.Size && (dk.Seq != 0 || dk.Serial == seen.Serial)
}

// diskName is how the journal calls a disk.
func diskName(dk Disk) string {
	if dk.Serial == "" {
		return dk.Path
	}

	return fmt.Sprintf("%s (serial %s)", dk.Path, dk.Serial)
}

// vanished tells that a device went away, if it was of interest.
func (d *Daemon) vanished(dk *disk) {
	dk.unprove()

	if dk.attached != "" {
		d.went(dk.Disk)
	}

	sb := dk.found.Superblock
	if sb == nil {
		return
	}

	ev := journal.Event{
		Kind: journal.DeviceVanished, Member: dk.Path, Serial: dk.Serial,
		Message: diskName(dk.Disk) + " went away, which was of no array",
	}

	if !sb.Array.IsZero() {
		ev.Array, ev.UUID = d.nameOf(sb.Array), sb.Array.String()
		ev.Message = fmt.Sprintf("%s went away, a member of %s", diskName(dk.Disk), ev.Array)
	}

	d.cfg.Log(ev)
}

// probe starts to read what is on dk.
func (d *Daemon) probe(dk *disk) {
	if dk.running {
		dk.again = true

		return
	}

	dk.running = true
	dk.nth++
	nth, disk := dk.nth, dk.Disk

	go func() {
		found := d.cfg.Host.Probe(disk)
		d.post(func() { d.answered(dk, found) })
	}()

	d.after(patience, func() {
		if dk.running && dk.nth == nth && !dk.slow && d.disks[dk.Path] == dk {
			dk.slow, dk.probed = true, true
			dk.found = Finding{Unreadable: fmt.Sprintf("no answer within %v", patience)}
			d.hint()
		}
	})
}

// answered takes in what a probe found.
func (d *Daemon) answered(dk *disk, found Finding) {
	dk.running = false

	if d.disks[dk.Path] != dk {
		return // it is another one by now
	}

	if dk.again {
		dk.again = false
		d.probe(dk)

		return
	}

	d.tellFound(dk, found)

	late := dk.slow
	dk.found, dk.probed, dk.slow = found, true, false
	dk.doubts = found.Conflicts

	if late || d.looked.IsZero() {
		d.hint() // nobody waits for it
	}

	d.settle()
}

// tellFound puts into the journal that a device turned out to be a member.
func (d *Daemon) tellFound(dk *disk, found Finding) {
	sb := found.Superblock
	if sb == nil || dk.told == sb.Device {
		return
	}

	dk.told = sb.Device

	role := sb.Role(sb.Number)
	ev := journal.Event{
		Kind: journal.SuperblockFound, Member: dk.Path, Serial: dk.Serial,
		Message: fmt.Sprintf("%s is of no array yet (metadata %s)", diskName(dk.Disk), sb.Format),
	}

	if !sb.Array.IsZero() {
		ev.Array, ev.UUID = d.nameOf(sb.Array), sb.Array.String()
		ev.Message = fmt.Sprintf("%s is %v of an array called %q (%v, %v of %d, metadata %s) at event %d",
			diskName(dk.Disk), role, sb.Name, sb.Array, sb.Level, sb.Disks, sb.Format, sb.Events)
	}

	if slot, ok := role.Slot(); ok {
		ev.Slot = &slot
	}

	d.cfg.Log(ev)
}

// probing reports whether a decision should wait for a probe. What the engine
// has is decided about by what the engine says.
func (d *Daemon) probing() bool {
	for _, dk := range d.disks {
		if dk.running && !dk.slow && dk.attached == "" {
			return true
		}
	}

	return false
}

// probeSuspects probes again what may have changed without a word: devices
// that hold metadata, or that something was wrong with. Others are left to
// sleep.
func (d *Daemon) probeSuspects() {
	for _, dk := range d.disks {
		wrong := dk.found.Corrupt != "" || dk.found.Unreadable != ""
		if dk.attached == "" && (dk.found.Superblock != nil || wrong) {
			d.probe(dk)
		}
	}
}

// attach notes which devices the engine has. When that changes, so has what is
// on the device, and udev does not tell: the engine's writes are no news to it.
// In a container it has on all devices when it does for one.
func (d *Daemon) attach() {
	how, beside := d.attachments()

	for path, dk := range d.disks {
		if dk.attached != how[path] || dk.beside != beside[path] {
			dk.attached, dk.beside = how[path], beside[path]

			if dk.Ignored == "" {
				d.probe(dk)
			}
		}
	}
}

// attachments returns how the engine has each device, by path, and how all that is in
// its container.
func (d *Daemon) attachments() (how, beside map[string]string) {
	how, beside = make(map[string]string), make(map[string]string)
	all, container := make(map[string]string), make(map[string]string)
	seqs := make(map[string]uint64)

	for _, a := range d.arrays {
		for _, m := range a.Members {
			if m.Device == "" {
				continue
			}

			slot := int(raid.NoSlot)
			if m.Slot != nil {
				slot = *m.Slot
			}

			is := fmt.Sprintf("%s %d %s", a.UUID, slot, m.State)
			how[m.Device] = strings.TrimPrefix(how[m.Device]+", "+is, ", ")
			seqs[memberKey(a, m)] = d.memberSeq(a, m)

			if a.Container != "" {
				container[m.Device] = a.Container
				all[a.Container] += m.Device + " " + is + "\n"
			}
		}
	}

	d.seqs = seqs

	for path, of := range container {
		beside[path] = all[of]
	}

	return how, beside
}

func memberKey(a api.Array, m api.Member) string { return a.UUID + " " + m.Device + " " + m.Serial }

// memberSeq returns the sequence number of the disk that a member was when it
// was first seen as one.
func (d *Daemon) memberSeq(a api.Array, m api.Member) uint64 {
	if seq, ok := d.seqs[memberKey(a, m)]; ok {
		return seq
	}

	if dk := d.disks[m.Device]; dk != nil {
		return dk.Seq
	}

	return 0
}

// sortedDisks returns the devices by path.
func (d *Daemon) sortedDisks() []*disk {
	return slices.SortedFunc(maps.Values(d.disks), func(a, b *disk) int { return cmp.Compare(a.Path, b.Path) })
}

// known returns when the first member of each array was seen that is not run,
// and starts and ends the clocks.
func (d *Daemon) clocks(now time.Time) map[raid.UUID]time.Duration {
	running, waited := make(map[raid.UUID]bool), make(map[raid.UUID]time.Duration)

	for _, a := range d.arrays {
		if uuid, err := raid.ParseUUID(a.UUID); err == nil {
			running[uuid] = true
		}
	}

	for _, dk := range d.disks {
		for _, sb := range dk.all() {
			if sb.Array.IsZero() || running[sb.Array] {
				continue
			}

			if _, ok := d.first[sb.Array]; !ok {
				d.first[sb.Array] = now
			}

			waited[sb.Array] = now.Sub(d.first[sb.Array])
		}
	}

	for uuid := range d.first {
		if _, ok := waited[uuid]; !ok {
			delete(d.first, uuid)
		}
	}

	return waited
}
