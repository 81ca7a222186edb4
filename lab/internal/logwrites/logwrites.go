// Package logwrites reads logs in the format of dm-log-writes, which QEMU's
// blklogwrites writes, and makes of them what a disk holds after a power cut.
//
// A log begins with one sector of superblock, then come entries, each one
// sector of header and, unless it is a discard, its data:
//
//	superblock  0 magic  8 version  16 entries  24 sector size (u32)
//	header      0 sector  8 sectors  16 flags  24 length of a mark's text
//
// All numbers are little endian and 64 bits wide where nothing else is said.
// The count of entries is written now and then only, so it is not used.
package logwrites

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
)

// SectorSize is the size of the log's sectors, as the lab has QEMU make them.
const SectorSize = 512

const magic = 0x6a736677736872

// Flags of an entry.
const (
	flagFlush   = 1
	flagFUA     = 2
	flagDiscard = 4
	flagMark    = 8
)

// ErrCorrupt says that a log is not one that QEMU writes.
var ErrCorrupt = errors.New("corrupt log")

// entry is one request that the disk has completed.
type entry struct {
	sector  int64
	sectors int64
	flags   uint64
	data    int64 // where in the log its data begins
}

func (e entry) flush() bool   { return e.flags&flagFlush != 0 }
func (e entry) fua() bool     { return e.flags&flagFUA != 0 }
func (e entry) discard() bool { return e.flags&flagDiscard != 0 }

// sectorsMax is more than any disk has.
const sectorsMax = 1 << 40

func (e entry) check() error {
	switch {
	case e.flags >= 2*flagMark:
		return fmt.Errorf("flags %#x: %w", e.flags, ErrCorrupt)
	case e.sector < 0 || e.sector > sectorsMax:
		return fmt.Errorf("sector %d: %w", e.sector, ErrCorrupt)
	case e.sectors < 0 || e.sectors > sectorsMax:
		return fmt.Errorf("%d sectors: %w", e.sectors, ErrCorrupt)
	default:
		return nil
	}
}

// Log is a log that has been read.
type Log struct {
	r       io.ReaderAt
	entries []entry
	hole    bool
}

// Whole reports whether the log was read to its end. Entries are written at the
// same time, so that in a log which is being written one may be missing before
// others.
func (l *Log) Whole() bool { return !l.hole }

// Read reads the log in the first size bytes of r, which it goes on using.
// It returns an error wrapping [ErrCorrupt] if that is no log.
func Read(r io.ReaderAt, size int64) (*Log, error) {
	l := &Log{r: r}

	var sector [SectorSize]byte

	for at := int64(SectorSize); at < size; {
		if _, err := r.ReadAt(sector[:], at); err != nil {
			return nil, fmt.Errorf("logwrites: entry at %d: %w", at, err)
		}

		e := entry{
			sector:  int64(binary.LittleEndian.Uint64(sector[0:])),
			sectors: int64(binary.LittleEndian.Uint64(sector[8:])),
			flags:   binary.LittleEndian.Uint64(sector[16:]),
			data:    at + SectorSize,
		}
		if e.sectors == 0 && e.flags == 0 {
			l.hole = true

			break
		}

		if err := e.check(); err != nil {
			return nil, fmt.Errorf("logwrites: entry %d: %w", len(l.entries), err)
		}

		at = e.data
		if !e.discard() {
			at += e.sectors * SectorSize
		}

		if at > size {
			l.hole = true // its data is still being written

			break
		}

		l.entries = append(l.entries, e)
	}

	return l, l.checkSuper(size)
}

// checkSuper checks the superblock, which a log of few writes does not have yet.
func (l *Log) checkSuper(size int64) error {
	if size == 0 {
		return nil
	}

	var super [28]byte
	if _, err := l.r.ReadAt(super[:], 0); err != nil {
		return fmt.Errorf("logwrites: superblock: %w", err)
	}

	if super == [28]byte{} {
		return nil
	}

	if got := binary.LittleEndian.Uint64(super[:]); got != magic {
		return fmt.Errorf("logwrites: magic %#x, want %#x: %w", got, uint64(magic), ErrCorrupt)
	}

	if got := binary.LittleEndian.Uint32(super[24:]); got != SectorSize {
		return fmt.Errorf("logwrites: sectors of %d bytes, want %d: %w", got, SectorSize, ErrCorrupt)
	}

	return nil
}

// Cut is what a power cut did to a disk.
type Cut struct {
	Requests  int // in the log
	Unflushed int // writes and discards after the last flush
	Kept      int // of those, how many are on the disk nevertheless
	Torn      int // sectors of the last kept one that made it, or 0 if it is whole
}

// Replay applies the log to a disk that holds what it held when the log began,
// as a power cut would: all up to the last flush; of the later requests those
// with FUA and a random choice of the others, since a disk writes its cache back
// in any order. The last one of them is torn between two sectors of sectorSize
// bytes. The same rng gives the same disk.
func (l *Log) Replay(disk io.WriterAt, sectorSize int64, rng *rand.Rand) (Cut, error) {
	cut := Cut{Requests: len(l.entries)}

	flushed := 0

	for i, e := range l.entries {
		if e.flush() {
			flushed = i + 1
		}
	}

	kept := l.entries[:flushed:flushed]

	for _, e := range l.entries[flushed:] {
		if e.sectors == 0 {
			continue
		}

		cut.Unflushed++

		if e.fua() || rng.IntN(2) == 0 {
			kept = append(kept, e)
			cut.Kept++
		}
	}

	if cut.Kept > 0 {
		last := &kept[len(kept)-1]
		unit := sectorSize / SectorSize

		if units := last.sectors / unit; units > 1 && !last.fua() {
			last.sectors = (1 + rng.Int64N(units-1)) * unit
			cut.Torn = int(last.sectors)
		}
	}

	for _, e := range kept {
		if err := l.apply(e, disk); err != nil {
			return Cut{}, err
		}
	}

	return cut, nil
}

// apply does one request. A discarded range reads as zeroes.
func (l *Log) apply(e entry, disk io.WriterAt) error {
	const pieceMax = 1 << 20

	if e.flags&flagMark != 0 {
		return nil
	}

	for done, length := int64(0), e.sectors*SectorSize; done < length; {
		piece := make([]byte, min(pieceMax, length-done))

		if !e.discard() {
			if _, err := l.r.ReadAt(piece, e.data+done); err != nil {
				return fmt.Errorf("logwrites: data at %d: %w", e.data+done, err)
			}
		}

		if _, err := disk.WriteAt(piece, e.sector*SectorSize+done); err != nil {
			return fmt.Errorf("logwrites: %w", err)
		}

		done += int64(len(piece))
	}

	return nil
}
