package daemon

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/journal"
	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
	"raid-assembler/pkg/roster"
)

// members is what the daemon knows of members that may be gone, and how far that
// is written down. The file may lie on a file system that is not mounted yet, or
// that waits for an array: others read and write it, and nobody waits for them but
// decisions, for a moment. Until it is there, a copy that the initramfs left serves.
type members struct {
	roster roster.Roster
	news   bool        // that are not written down
	read   bool        // what was written down by those before
	file   os.FileInfo // that was read or written last; nil if there was none
	busy   bool        // somebody looks for another file, reads or writes
	writes bool
	since  time.Time // when that was begun
	bad    string
}

// awaited reports whether a decision should wait for what those before wrote down: it
// says which arrays are ours, and who was left behind.
func (m *members) awaited() bool { return m.busy && !m.writes && time.Since(m.since) < patience }

// takeCopy takes in what the initramfs knew, which may be long out of date.
func (m *members) takeCopy(file string) error {
	known, _, err := readRoster(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}

	m.roster = known
	m.roster.MarkCopied()

	return err
}

// noteMembers takes in what runs, and has it written down if that is worth it.
func (d *Daemon) noteMembers(now time.Time) {
	for _, a := range d.arrays {
		d.stillServes(a, now)

		known, ok := d.asKnown(a, now)
		if !ok {
			continue
		}

		gone := a.State != string(raid.ReadOnly) && d.goneBack(known, a.Events)
		if d.members.roster.Note(known) || gone {
			d.members.news = true
		}
	}

	if d.members.news {
		d.syncMembers()
	}
}

// goneBack takes in that an array runs which is older than it was when it ran before, and
// says so: whoever has what is newer is not waited for any more.
func (d *Daemon) goneBack(known roster.Array, events uint64) bool {
	from := d.members.roster.GoBack(known.UUID, events)
	if from == 0 {
		return false
	}

	reason := fmt.Sprintf("it was at event %d when it last ran here, and now runs at event %d", from, events)
	d.cfg.Log(journal.Event{
		Kind: journal.Decision, Array: known.Name, UUID: known.UUID.String(), Reason: reason,
		Message: fmt.Sprintf("%s has gone back: %s, without what was written in between", known.Name, reason),
	})

	return true
}

// asKnown translates an array that runs, with its members that are in sync.
func (d *Daemon) asKnown(a api.Array, now time.Time) (roster.Array, bool) {
	uuid, err := raid.ParseUUID(a.UUID)
	known := roster.Array{UUID: uuid, Name: a.Name, Metadata: a.Metadata, Seen: now.UTC().Truncate(time.Second)}
	known.Machine, known.Generation = d.machineOf(uuid), a.Recorded

	for _, m := range a.Members {
		if m.Slot == nil || m.Replaces || m.State != string(raid.InSync) {
			continue
		}

		dk := d.disks[m.Device]
		if dk == nil || dk.Serial != m.Serial {
			known.Generation = 0 // the engine has not found out that it is gone

			continue
		}

		known.Members = append(known.Members, roster.Member{
			Slot: raid.Slot(*m.Slot), Serial: dk.Serial, Model: dk.Model, WWN: dk.WWN, Port: dk.Port, Seen: known.Seen,
		})
	}

	return known, err == nil
}

// syncMembers reads what was written down, as soon as that is there, and again if a file
// system is mounted over it that has it as well; and it writes what is new.
func (d *Daemon) syncMembers() {
	m := &d.members
	if d.cfg.Roster == "" || m.busy {
		return
	}

	m.busy, m.writes, m.since = true, m.read && m.news, time.Now()
	d.after(patience, d.settle)

	var text []byte

	done := synced{read: !m.read, write: m.writes, file: m.file}

	if m.writes {
		text, done.err = m.roster.Encode()
		m.news = false
	}

	go func() {
		info, _ := os.Stat(d.cfg.Roster) // nil if there is none
		done.read = done.read || !sameFile(info, done.file)

		switch {
		case done.read:
			done.before, done.file, done.err = readRoster(d.cfg.Roster)
		case done.write && done.err == nil:
			done.file, done.err = writeRoster(d.cfg.Roster, done.file, text)
		}

		d.post(func() { d.membersSynced(done) })
	}()
}

// synced is what became of that: it was read, or else written if it was to be.
type synced struct {
	read, write bool
	before      roster.Roster
	file        os.FileInfo
	err         error
}

// sameFile reports whether nobody has put another file in the place of one.
func sameFile(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == b
	}

	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// membersSynced takes in how that went. Nothing depends on it.
func (d *Daemon) membersSynced(done synced) {
	m := &d.members
	m.busy, m.file = false, done.file
	m.news = m.news || done.write && (done.read || done.err != nil)

	// Without the directory above there is no file system yet to read it from.
	absent := errors.Is(done.err, fs.ErrNotExist)

	if done.read && !absent {
		m.roster.Merge(done.before)

		m.read = true

		if len(done.before.Arrays)+len(done.before.Spent) > 0 {
			d.hint() // whoever is missing has a name now
		}
	}

	d.tellMembers(done.err, absent)

	if done.err == nil && m.news {
		d.syncMembers()
	}

	d.settle()
}

// tellMembers warns, once, of what keeps members from being known.
func (d *Daemon) tellMembers(err error, absent bool) {
	m := &d.members
	if err != nil && !absent && m.bad != err.Error() {
		d.cfg.Warn(fmt.Sprintf("what was known of members that may be gone is left out: %v", err))
	}

	m.bad = ""
	if err != nil {
		m.bad = err.Error()
	}
}

// readRoster returns what was written down, and the file. If nothing was, and could be,
// there is nothing to know; if nothing can be, it returns an error wrapping
// [fs.ErrNotExist].
func readRoster(file string) (roster.Roster, os.FileInfo, error) {
	// Whatever it is, nobody waits for it to be written to.
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		_, err = os.Stat(filepath.Dir(filepath.Dir(file)))

		return roster.Roster{}, nil, err
	}

	if err != nil {
		return roster.Roster{}, nil, err
	}

	info, err := f.Stat()
	text, bad := io.ReadAll(io.LimitReader(f, roster.BytesMax+1))

	if err := errors.Join(err, bad, f.Close()); err != nil {
		return roster.Roster{}, info, err
	}

	known, err := roster.Decode(text)

	return known, info, err
}

// writeRoster replaces the file, was, at once or not at all, and returns what is there then.
// It makes no directory but the last: if that above is not there, its file system is not
// mounted yet.
func writeRoster(file string, was os.FileInfo, text []byte) (os.FileInfo, error) {
	dir := filepath.Dir(file)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return was, err
	}

	f, err := os.Create(file + ".new")
	if err != nil {
		return was, err
	}

	_, err = f.Write(text)
	bad := f.Sync()
	info, unknown := f.Stat()

	if err := errors.Join(err, bad, unknown, f.Close()); err != nil {
		return was, err
	}

	if err := os.Rename(file+".new", file); err != nil {
		return was, err
	}

	above, err := os.Open(dir)
	if err != nil {
		return info, err
	}

	return info, errors.Join(above.Sync(), above.Close())
}

// known returns who last had the slots of each array, in words.
func (m *members) known() map[raid.UUID]map[raid.Slot]string {
	known := make(map[raid.UUID]map[raid.Slot]string)

	for _, a := range m.roster.Arrays {
		known[a.UUID] = make(map[raid.Slot]string)
		for _, member := range a.Members {
			known[a.UUID][member.Slot] = member.String()
		}
	}

	return known
}

// machineOf returns the machine that an array is one of, which runs. It is ours if we
// would run it, unasked and without bounds: what was run otherwise stays what it was.
func (d *Daemon) machineOf(uuid raid.UUID) string {
	before := ""
	if known := d.members.roster.Find(uuid); known != nil {
		before = known.Machine
	}

	sb := d.freshest(uuid)
	if sb == nil || d.policy.For(identity(sb)).Mode != policy.Run {
		return before
	}

	return d.cfg.Machine
}

// ours returns the arrays that have run on this machine, with the names that they had.
func (d *Daemon) ours() map[raid.UUID]string {
	ours := make(map[raid.UUID]string)

	for _, a := range d.members.roster.Arrays {
		if a.Machine != "" && a.Machine == d.cfg.Machine {
			ours[a.UUID] = a.Name
		}
	}

	return ours
}

// last returns what arrays were when they last ran on this machine.
func (d *Daemon) last() map[raid.UUID]policy.Last {
	all := make(map[raid.UUID]policy.Last)

	for _, a := range d.members.roster.Arrays {
		if a.Generation == 0 || a.Machine == "" || a.Machine != d.cfg.Machine {
			continue
		}

		last := policy.Last{Events: a.Generation, Seen: a.Seen, Copied: a.Copied}
		for _, m := range a.Newest() {
			last.Members = append(last.Members, policy.LastMember{Serial: m.Serial, Slot: m.Slot})
		}

		all[a.UUID] = last
	}

	return all
}

// ports returns where the disk was plugged in that last had each slot.
func (m *members) ports() map[raid.UUID]map[raid.Slot]string {
	ports := make(map[raid.UUID]map[raid.Slot]string)

	for _, a := range m.roster.Arrays {
		ports[a.UUID] = make(map[raid.Slot]string)
		for _, member := range a.Members {
			ports[a.UUID][member.Slot] = member.Port
		}
	}

	return ports
}

// addAbsent adds who is not here of the arrays that run or wait.
func (d *Daemon) addAbsent(st *api.Status) {
	for _, a := range st.Arrays {
		for _, m := range a.Members {
			if m.State == string(raid.Missing) && m.Slot != nil {
				d.addAbsentMember(st, a.Name, a.UUID, raid.Slot(*m.Slot))
			}
		}
	}

	for _, dec := range d.decisions {
		uuid := dec.Array.String()
		if dec.Device != "" || byUUID(st.Arrays, dec.Array) != nil {
			continue
		}

		for _, slot := range dec.Missing {
			d.addAbsentMember(st, d.nameOf(dec.Array), uuid, slot)
		}
	}
}

func (d *Daemon) addAbsentMember(st *api.Status, name, uuid string, slot raid.Slot) {
	parsed, err := raid.ParseUUID(uuid)
	if err != nil {
		return
	}

	known := d.members.roster.Find(parsed)
	if known == nil {
		return
	}

	if m := known.Member(slot); m != nil {
		st.Absent = append(st.Absent, api.Absent{
			Array: name, UUID: uuid, Slot: int(slot), Serial: m.Serial, Model: m.Model, WWN: m.WWN, Port: m.Port,
			LastSeen: m.Seen.UTC().Format(time.RFC3339),
		})
	}
}

// explainMissing says who is missing of an array, and until when it waits.
func (d *Daemon) explainMissing(uuid raid.UUID, now time.Time) []string {
	var lines []string

	missing := make(map[raid.Slot]bool)

	for _, dec := range d.decisions {
		if dec.Array != uuid || dec.Device != "" {
			continue
		}

		for _, slot := range dec.Missing {
			missing[slot] = true
		}

		if dec.Action == policy.Wait && dec.Left >= 0 {
			left := max(0, dec.Left-now.Sub(d.decided))
			lines = append(lines, fmt.Sprintf("It waits until %s, for %v more.",
				now.Add(left).UTC().Format(time.RFC3339), left.Round(time.Second)))
		}
	}

	if a := d.running(uuid); a != nil {
		for _, m := range a.Members {
			if m.State == string(raid.Missing) && m.Slot != nil {
				missing[raid.Slot(*m.Slot)] = true
			}
		}
	}

	if known := d.members.roster.Find(uuid); known != nil {
		lines = append(lines, explainAbsent(known, func(slot raid.Slot) bool { return missing[slot] })...)
	}

	return lines
}

// explainAbsent says who last had the slots that are missing.
func explainAbsent(a *roster.Array, missing func(raid.Slot) bool) []string {
	var lines []string

	for _, m := range a.Members {
		if missing(m.Slot) {
			lines = append(lines, fmt.Sprintf("Slot %d was last held by the disk with %s, in sync on %s.",
				m.Slot, m, m.Seen.UTC().Format(time.RFC3339)))
		}
	}

	return lines
}
