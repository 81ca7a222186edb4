// Package crashlog is what an engine leaves to the next one when it dies and the
// machine does not: what it was writing to rows with parity. A row of which only a
// part was written is made right by writing all of it again, which costs nothing
// beforehand: the log lies in the memory that the writes are made from, and says
// which part of it goes where. That memory is a file without a name; another process
// holds it too (see [Client]) and hands it to the next engine.
//
// The log tells of the crash of a process only. Its memory does not outlive a power
// cut, and need not be written in any order but that of the program.
package crashlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"raid-assembler/pkg/raid"
)

// The head of the memory: a fixed part and an entry for each write that there may
// be at a time, all in little-endian words of 64 bits.
const (
	magic   = "RACRASH1" // with the version of what follows
	wordLen = 8

	atEntries = 1 // word numbers, of the head
	atSlots   = 2
	atTrusted = 3
	atEvents  = 4
	atRecord  = 5
	headWords = 8

	atSum      = 0 // word numbers, of an entry
	atFrom     = 1
	atTo       = 2
	atSet      = 3 // bits: the slots that are written
	entryWords = 4 // and one for each slot: where its data is
)

// The largest logs that are read.
const (
	entriesMax = 1 << 16
	slotsMax   = 64
)

// ErrUnreadable says that memory holds no log that can be understood.
var ErrUnreadable = errors.New("no crash log")

// Log is written by the engine whose log it is. It is not safe for concurrent use.
type Log struct {
	head   []byte
	before []byte // what head takes the place of once it is published; nil if there is nothing
	slots  int
	offset func([]byte) int
}

// Size returns how much memory the head of a log takes, in bytes.
func Size(entries, slots int) int {
	return wordLen * (headWords + entries*(entryWords+slots))
}

// New returns an empty log for so many writes at a time and so many slots, whose head
// is the beginning of memory that the writes are made from. offset says where in that
// memory something is, in bytes.
func New(head []byte, entries, slots int, offset func([]byte) int) (*Log, error) {
	if entries < 1 || entries > entriesMax || slots < 1 || slots > slotsMax || len(head) < Size(entries, slots) {
		return nil, fmt.Errorf("crashlog: %d writes of %d slots in %d bytes: %w",
			entries, slots, len(head), ErrUnreadable)
	}

	clear(head)

	l := &Log{head: head, slots: slots, offset: offset}
	l.set(atEntries, uint64(entries))
	l.set(atSlots, uint64(slots))
	copy(head, magic)

	return l, nil
}

// Replace returns an empty log, as [New] does, for memory that begins with the log of an
// engine that died, which has to be of the same shape. Until [Log.Publish] that one stays.
func Replace(head []byte, entries, slots int, offset func([]byte) int) (*Log, error) {
	if len(head) < Size(entries, slots) {
		return nil, fmt.Errorf("crashlog: %d bytes: %w", len(head), ErrUnreadable)
	}

	l, err := New(make([]byte, Size(entries, slots)), entries, slots, offset)
	if err != nil {
		return nil, err
	}

	const shape = wordLen * atTrusted
	if !bytes.Equal(head[:shape], l.head[:shape]) {
		return nil, fmt.Errorf("crashlog: head %x, for %d writes of %d slots: %w",
			head[:shape], entries, slots, ErrUnreadable)
	}

	l.before = head

	return l, nil
}

// Publish puts a log in the place of the one before, all of whose writes were done again.
func (l *Log) Publish() {
	if l.before == nil {
		return
	}

	stores := l.replacement()
	l.head, l.before = l.before, nil

	for _, s := range stores {
		l.set(s.word, s.value)
	}
}

// store is that a word of the head gets a value.
type store struct {
	word  int
	value uint64
}

// replacement returns what makes the log before the new one. After each store there is a
// log that is right: writes are forgotten before anything else is said.
func (l *Log) replacement() []store {
	fresh := func(w int) store { return store{w, word(l.head, w)} }

	var stores []store
	for id := range int(fresh(atEntries).value) {
		stores = append(stores, store{entry(id, l.slots) + atSum, 0})
	}

	if trusted := fresh(atTrusted); trusted.value == 0 {
		stores = append(stores, trusted)
	}

	return append(stores, fresh(atEvents), fresh(atRecord), fresh(atTrusted))
}

func (l *Log) set(word int, v uint64) { binary.LittleEndian.PutUint64(l.head[word*wordLen:], v) }

// entry returns the number of the first word of an entry.
func entry(id, slots int) int { return headWords + id*(entryWords+slots) }

// Begin notes a write to component sectors before it is submitted: what each slot is
// to hold there, or nil where that stays as it is.
func (l *Log) Begin(id int, at raid.Range, data [][]byte) {
	e := entry(id, l.slots)
	set := uint64(0)

	for slot, d := range data {
		if d == nil {
			continue
		}

		set |= 1 << uint(slot)
		l.set(e+entryWords+slot, uint64(l.offset(d)))
	}

	l.set(e+atFrom, uint64(at.From))
	l.set(e+atTo, uint64(at.To))
	l.set(e+atSet, set)
	l.set(e+atSum, checksum(l.words(e)))
}

// End forgets a write that has ended.
func (l *Log) End(id int) { l.set(entry(id, l.slots)+atSum, 0) }

// Move says that what is in old is in to now, and that old is used anew.
func (l *Log) Move(old, to []byte) {
	from, n := uint64(l.offset(old)), uint64(len(old))
	entries := int(binary.LittleEndian.Uint64(l.head[atEntries*wordLen:]))

	for id := range entries {
		e := entry(id, l.slots)
		words := l.words(e)

		if word(words, atSum) == 0 {
			continue
		}

		for slot := range l.slots {
			at := word(words, entryWords+slot)
			if word(words, atSet)&(1<<uint(slot)) != 0 && at >= from && at < from+n {
				l.set(e+entryWords+slot, at-from+uint64(l.offset(to)))
			}
		}
	}
}

// Trust says whether redundancy is right but for what is being written.
func (l *Log) Trust(trusted bool) {
	v := uint64(0)
	if trusted {
		v = 1
	}

	l.set(atTrusted, v)
}

// Events says which event count superblocks have, or are about to.
func (l *Log) Events(n uint64) { l.set(atEvents, n) }

// Recorded says that superblocks of this engine are on disk.
func (l *Log) Recorded() { l.set(atRecord, 1) }

// words returns an entry.
func (l *Log) words(e int) []byte { return l.head[e*wordLen : (e+entryWords+l.slots)*wordLen] }

func word(words []byte, n int) uint64 { return binary.LittleEndian.Uint64(words[n*wordLen:]) }

// checksum tells an entry that is whole from one that was being made. It is never 0.
// Where the data is does not count: that changes by one word at a time, and what a
// word was is as good as what it is.
func checksum(words []byte) uint64 {
	sum := uint64(0x9e3779b97f4a7c15)
	mix := func(v uint64) { sum = (sum ^ v) * 0xff51afd7ed558ccd; sum ^= sum >> 32 }

	mix(word(words, atFrom))
	mix(word(words, atTo))
	mix(word(words, atSet))

	return sum | 1
}

// Left is what an engine that died has left.
type Left struct {
	memory  io.ReaderAt
	entries int
	slots   int
	trusted bool
	record  bool
	events  uint64
	writes  []write
}

// write is one that was going on.
type write struct {
	at   raid.Range
	data []int64 // where in the memory it is, by slot; -1 for none
}

// Read reads the log at the beginning of memory. Returns an error wrapping
// [ErrUnreadable] if it is none, or of another version.
func Read(memory io.ReaderAt) (*Left, error) {
	head := make([]byte, headWords*wordLen)
	if _, err := memory.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("crashlog: %w: %w", ErrUnreadable, err)
	}

	entries, slots := word(head, atEntries), word(head, atSlots)
	if !bytes.HasPrefix(head, []byte(magic)) || entries > entriesMax || slots < 1 || slots > slotsMax {
		return nil, fmt.Errorf("crashlog: head %x: %w", head, ErrUnreadable)
	}

	all := make([]byte, Size(int(entries), int(slots)))
	if _, err := memory.ReadAt(all, 0); err != nil {
		return nil, fmt.Errorf("crashlog: %w: %w", ErrUnreadable, err)
	}

	l := &Left{
		memory: memory, entries: int(entries), slots: int(slots),
		trusted: word(head, atTrusted) == 1, record: word(head, atRecord) == 1, events: word(head, atEvents),
	}

	for id := range int(entries) {
		words := all[entry(id, int(slots))*wordLen:][:(entryWords+int(slots))*wordLen]
		if word(words, atSum) != checksum(words) {
			continue // it has ended, or was not submitted
		}

		w := write{at: raid.Range{
			From: raid.Sectors(word(words, atFrom)), To: raid.Sectors(word(words, atTo)),
		}}

		for slot := range int(slots) {
			at := int64(-1)
			if word(words, atSet)&(1<<uint(slot)) != 0 {
				at = int64(word(words, entryWords+slot))
			}

			w.data = append(w.data, at)
		}

		l.writes = append(l.writes, w)
	}

	return l, nil
}

// Tells reports whether l is all that there is to know of an array whose freshest
// superblock has an event count: that redundancy is right once l has been redone.
// The engine may have died before its last superblock was on any disk. Whoever else
// used the devices since has written others.
func (l *Left) Tells(events uint64) bool {
	return l.trusted && (events == l.events || events+1 == l.events)
}

// Trusted reports whether redundancy is right once l has been redone.
func (l *Left) Trusted() bool { return l.trusted }

// Recorded reports whether superblocks of the engine that died are on disk, so that
// nothing there is from before it.
func (l *Left) Recorded() bool { return l.record }

// Again reads the log anew: what was to take its place may have done so.
func (l *Left) Again() (*Left, error) { return Read(l.memory) }

// Memory returns the file that a log lies in, for one of the same shape in its place; nil
// if it is of another shape, the file of another size in bytes, or there is none.
func (l *Left) Memory(entries, slots, size int) *os.File {
	if l == nil || l.entries != entries || l.slots != slots {
		return nil
	}

	file, ok := l.memory.(*os.File)
	if !ok {
		return nil
	}

	if info, err := file.Stat(); err != nil || info.Size() != int64(size) {
		return nil
	}

	return file
}

// Close gives up the memory.
func (l *Left) Close() error {
	if c, ok := l.memory.(io.Closer); ok {
		return c.Close()
	}

	return nil
}

// Writes is how many writes were going on.
func (l *Left) Writes() int { return len(l.writes) }

// Target is where something of a slot is to be written.
type Target interface {
	// Write writes whole sectors.
	Write(p []byte, at raid.Sectors) error
	// Flush has what was written be on stable storage.
	Flush() error
}

// Redo does all again that was being written, to what there is of each slot, whose
// sectors are those of the component, up to size. All does that for each target, in any
// order or at a time, and returns an error if one did. It may be done any number of times,
// until something else is written.
func (l *Left) Redo(size raid.Sectors, targets map[raid.Slot][]Target, all func(each []func() error) error) error {
	for _, w := range l.writes {
		if w.at.From < 0 || w.at.To <= w.at.From || w.at.To > size {
			return fmt.Errorf("crashlog: sectors %d to %d of %d: %w", w.at.From, w.at.To, size, ErrUnreadable)
		}
	}

	var each []func() error

	for slot := range raid.Slot(l.slots) {
		for _, t := range targets[slot] {
			each = append(each, func() error { return l.redo(slot, t) })
		}
	}

	return all(each)
}

// redo does again what was being written to a slot.
func (l *Left) redo(slot raid.Slot, t Target) error {
	written := false

	for _, w := range l.writes {
		if w.data[slot] < 0 {
			continue
		}

		buf := make([]byte, (w.at.To - w.at.From).Bytes())
		if _, err := l.memory.ReadAt(buf, w.data[slot]); err != nil {
			return fmt.Errorf("crashlog: %w: %w", ErrUnreadable, err)
		}

		if err := t.Write(buf, w.at.From); err != nil {
			return err
		}

		written = true
	}

	if !written {
		return nil
	}

	return t.Flush()
}
