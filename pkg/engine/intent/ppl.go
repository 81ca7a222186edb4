package intent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/parity"
	"raid-assembler/pkg/raid"
)

// A partial parity log, as struct ppl_header of include/uapi/linux/raid/md_p.h
// has it: a header of 4096 bytes, then the partial parity of its entries in
// their order.
//
//	  0  reserved, all ones        512 bytes
//	512  signature                   4
//	520  generation                  8
//	528  entries_count               4
//	532  checksum                    4, of the header with zeros here
//	536  entries                    24 each, 148 at most:
//	     data_sector 8, pp_size 4, data_size 4, parity_disk 4, checksum 4
//
// The partial parity of a write is the XOR of the data that it does not
// modify. What it modifies, as it is found after a crash, and the partial
// parity make parity that is right for what was not modified.
const (
	PPLHeaderSize = 4096
	PPLEntryMax   = 148

	// PPLFirst is the generation of a log that is in use and has no entries yet;
	// one that is not in use has 0, as those of md that have none.
	PPLFirst = 1

	pplReserved     = 512
	offPPLSignature = 512
	offPPLGen       = 520
	offPPLCount     = 528
	offPPLChecksum  = 532
	offPPLEntries   = 536
	pplEntrySize    = 24
)

// errPPL says that there is no valid header of a partial parity log.
var errPPL = errors.New("no partial parity log")

var pplZero [4]byte // in place of the checksum

// castagnoli returns a table that is made when it is first asked for, as an array with logs
// is found: it takes nearly half of the instructions that a program begins with, and udev
// starts one for each disk.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// PPLChecksum returns the checksum that partial parity, its header and the
// signature of an array are made of.
func PPLChecksum(data []byte) uint32 { return crc32.Checksum(data, castagnoli()) }

// PPLEntry is one write in a log: the same rows of consecutive data chunks of
// one stripe.
type PPLEntry struct {
	Sector   raid.Sectors // of the array, the first that is modified
	Partial  uint32       // bytes of partial parity; 0 if all data of the rows is modified
	Data     uint32       // bytes that are modified, in all chunks
	Parity   raid.Slot    // that the parity is on, and the log
	Checksum uint32       // of the partial parity
}

// PPLHeader is the header of a log.
type PPLHeader struct {
	Signature  uint32 // of the array
	Generation uint64
	Entries    []PPLEntry
}

// DecodePPL reads a header. Returns an error if it is none, or is not whole.
func DecodePPL(buf []byte) (*PPLHeader, error) {
	if len(buf) < PPLHeaderSize {
		return nil, fmt.Errorf("intent: %d bytes: %w", len(buf), errPPL)
	}

	le := binary.LittleEndian
	buf = buf[:PPLHeaderSize]

	if stored, sum := le.Uint32(buf[offPPLChecksum:]), pplHeaderChecksum(buf); stored != sum {
		return nil, fmt.Errorf("intent: checksum %#08x, computed %#08x: %w", stored, sum, errPPL)
	}

	count := le.Uint32(buf[offPPLCount:])
	if count > PPLEntryMax {
		return nil, fmt.Errorf("intent: %d entries exceed %d: %w", count, PPLEntryMax, errPPL)
	}

	h := &PPLHeader{Signature: le.Uint32(buf[offPPLSignature:]), Generation: le.Uint64(buf[offPPLGen:])}

	for i := range int(count) {
		e := buf[offPPLEntries+i*pplEntrySize:]
		sector, parity := le.Uint64(e), le.Uint32(e[16:])

		// What no array has is left for nobody to convert.
		if sector > uint64(raid.MaxSectors>>1) || parity > 1<<16 {
			return nil, fmt.Errorf("intent: entry %d of sector %d with parity on %d: %w", i, sector, parity, errPPL)
		}

		h.Entries = append(h.Entries, PPLEntry{
			Sector: raid.Sectors(sector), Partial: le.Uint32(e[8:]), Data: le.Uint32(e[12:]),
			Parity: raid.Slot(parity), Checksum: le.Uint32(e[20:]),
		})
	}

	return h, nil
}

// pplHeaderChecksum returns the checksum of a header, its own field left out.
func pplHeaderChecksum(buf []byte) uint32 {
	sum := crc32.Update(0, castagnoli(), buf[:offPPLChecksum])
	sum = crc32.Update(sum, castagnoli(), pplZero[:])

	return crc32.Update(sum, castagnoli(), buf[offPPLChecksum+4:PPLHeaderSize])
}

// Encode writes h to buf, which has room for a header. It does not allocate.
// Preconditions: there are at most PPLEntryMax entries.
func (h *PPLHeader) Encode(buf []byte) {
	le := binary.LittleEndian
	buf = buf[:PPLHeaderSize]

	for i := range pplReserved {
		buf[i] = 0xff
	}

	clear(buf[pplReserved:])
	le.PutUint32(buf[offPPLSignature:], h.Signature)
	le.PutUint64(buf[offPPLGen:], h.Generation)
	le.PutUint32(buf[offPPLCount:], uint32(len(h.Entries)))

	for i, entry := range h.Entries {
		e := buf[offPPLEntries+i*pplEntrySize:][:pplEntrySize]
		le.PutUint64(e, uint64(entry.Sector))
		le.PutUint32(e[8:], entry.Partial)
		le.PutUint32(e[12:], entry.Data)
		le.PutUint32(e[16:], uint32(entry.Parity))
		le.PutUint32(e[20:], entry.Checksum)
	}

	le.PutUint32(buf[offPPLChecksum:], pplHeaderChecksum(buf))
}

// size returns how many bytes the log takes with its partial parity.
func (h *PPLHeader) size() int {
	size := PPLHeaderSize
	for _, e := range h.Entries {
		size += int(e.Partial)
	}

	return size
}

// LatestPPL returns the newest log in the area of a member, and at which byte
// it begins. In a ring each log begins where the last ended, from the start of
// the area again when there was no room. Returns an error if there is none of
// the array that has the signature.
func LatestPPL(area []byte, signature uint32, ring bool) (latest *PPLHeader, at int, err error) {
	for next := 0; next+PPLHeaderSize <= len(area); next += latest.size() {
		h, err := DecodePPL(area[next:])
		if err == nil && h.Signature != signature {
			err = fmt.Errorf("intent: signature %#08x, want %#08x: %w", h.Signature, signature, errPPL)
		}

		switch {
		case latest == nil && err != nil:
			return nil, 0, err
		case err != nil, latest != nil && h.Generation <= latest.Generation:
			return latest, at, nil
		}

		if latest, at = h, next; !ring {
			break
		}
	}

	if latest == nil {
		return nil, 0, fmt.Errorf("intent: an area of %d bytes: %w", len(area), errPPL)
	}

	return latest, at, nil
}

// PPLRedo is parity to be made anew: the XOR of the data of some members, as it
// is on disk, and of what the log has.
type PPLRedo struct {
	Component raid.Range // on each member
	Parity    raid.Slot
	Data      []raid.Slot
	Partial   []byte // nil if all data of the rows is modified
}

// Sum returns the parity that r is about. read reads the sectors of r.Component
// of the member in a slot.
func (r PPLRedo) Sum(read func(p []byte, slot raid.Slot) error) ([]byte, error) {
	sum := make([]byte, r.Component.Len().Bytes())
	data := make([]byte, len(sum))
	copy(sum, r.Partial)

	for _, slot := range r.Data {
		if err := read(data, slot); err != nil {
			return nil, err
		}

		parity.XORInto(sum, data)
	}

	return sum, nil
}

// PPLRecovery is what is to be done for one member's log.
type PPLRecovery struct {
	Redo       []PPLRedo
	Entries    int // of which the log was right
	Mismatches int // that cannot be relied upon, or 1 if there is no log
	// InUse says that the array logs: what is in no log was not being written.
	InUse bool
}

// RecoverPPL returns what is to be done before an array is used that was not
// stopped, for the log in the area of the member in a slot. Rows of which a
// member that was written to is missing are left out: what that one has is
// not known, and what it had is being written.
//
// The array is in sync afterwards if all members are here, none of their logs
// has Mismatches and one is InUse; else it is to be resynced, if it can be.
func RecoverPPL(
	m *geometry.Map, slot raid.Slot, log PPLArea, here func(raid.Slot) bool,
) PPLRecovery {
	var r PPLRecovery

	h, at, err := LatestPPL(log.Bytes, log.Signature, log.Ring)
	if err != nil {
		return PPLRecovery{Mismatches: 1}
	}

	at += PPLHeaderSize

	for _, e := range h.Entries {
		var partial []byte

		if end := at + int(e.Partial); end <= len(log.Bytes) {
			partial = log.Bytes[at:end]
			at = end
		}

		redo, err := redoEntry(m, slot, e, partial, here)
		if err != nil {
			r.Mismatches++

			continue
		}

		r.Entries++
		r.Redo = append(r.Redo, redo...)
	}

	r.InUse = r.Entries > 0 || h.Generation >= PPLFirst

	return r
}

// PPLArea is where a member keeps its logs.
type PPLArea struct {
	Bytes     []byte
	Signature uint32
	Ring      bool
}

// redoEntry returns what is to be done for one entry.
func redoEntry(
	m *geometry.Map, slot raid.Slot, e PPLEntry, partial []byte, here func(raid.Slot) bool,
) ([]PPLRedo, error) {
	if len(partial) != int(e.Partial) || PPLChecksum(partial) != e.Checksum {
		return nil, errors.New("intent: partial parity does not match its checksum")
	}

	if e.Data == 0 {
		return nil, nil // of which there is one in an empty log that was made by hand
	}

	chunk, last, strip, disks, err := shape(m, e)
	if err != nil {
		return nil, err
	}

	// The rows change where a chunk ends or where the modified data does.
	cuts := []raid.Sectors{0, chunk - e.Sector%chunk, (last - e.Sector) % chunk, strip}
	slices.Sort(cuts)

	var redo []PPLRedo

	for i, from := range cuts[:3] {
		to := min(cuts[i+1], strip)
		if from >= to {
			continue
		}

		r, err := redoRows(m, e.Sector+from, last, disks)
		if err != nil {
			return nil, err
		}

		if r.Parity != e.Parity || r.Parity != slot {
			return nil, fmt.Errorf("intent: parity of sector %d is on %d, the log of %d says %d",
				e.Sector, r.Parity, slot, e.Parity)
		}

		r.Component.To = r.Component.From + to - from

		if len(partial) > 0 {
			r.Partial = partial[from.Bytes():to.Bytes()]
		}

		if len(r.Data) > 0 && !slices.ContainsFunc(r.Data, func(s raid.Slot) bool { return !here(s) }) {
			redo = append(redo, r)
		}
	}

	return redo, nil
}

// shape returns the sector that the modified data of an entry ends before, how
// many rows it is about and in how many chunks.
func shape(m *geometry.Map, e PPLEntry) (chunk, last, strip raid.Sectors, disks int, err error) {
	chunk = m.Chunk()
	all := m.Disks() - 1
	partial, data := raid.Sectors(e.Partial/raid.SectorSize), raid.Sectors(e.Data/raid.SectorSize)

	if chunk == 0 || e.Partial%raid.SectorSize != 0 || e.Data%raid.SectorSize != 0 {
		return 0, 0, 0, 0, fmt.Errorf("intent: %d bytes of partial parity, %d of data", e.Partial, e.Data)
	}

	switch {
	case partial >= chunk:
		disks, strip, last = all, chunk, e.Sector+data
	case partial > 0:
		disks, strip = int(data/partial), partial
	default:
		disks, strip = all, data/raid.Sectors(all)
	}

	if partial < chunk {
		last = e.Sector + raid.Sectors(disks-1)*chunk + strip
	}

	fits := partial <= chunk && disks > 0 && disks <= all && strip > 0 && strip <= chunk
	if !fits || e.Sector < 0 || last <= e.Sector || last > m.ArraySectors() {
		return 0, 0, 0, 0, fmt.Errorf("intent: %d rows of %d chunks at sector %d of %d",
			strip, disks, e.Sector, m.ArraySectors())
	}

	return chunk, last, strip, disks, nil
}

// redoRows returns what is to be XORed for rows that begin at sector first of
// the array, in chunks up to sector last.
func redoRows(m *geometry.Map, first, last raid.Sectors, disks int) (PPLRedo, error) {
	var r PPLRedo

	for d := range disks {
		sector := first + raid.Sectors(d)*m.Chunk()
		if sector >= last {
			break
		}

		slot, component, _ := m.Locate(sector)
		if d > 0 && component != r.Component.From {
			return r, fmt.Errorf("intent: sectors %d and %d are of two stripes", first, sector)
		}

		r.Component.From = component
		r.Data = append(r.Data, slot)
	}

	r.Parity = m.ParitySlot(int64(r.Component.From / m.Chunk()))

	return r, nil
}
