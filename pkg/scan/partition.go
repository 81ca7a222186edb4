package scan

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// findTables finds partition tables. Of what was found already, a file system
// with a boot sector is no partition table, though it ends like one.
func findTables(head, tail window, src metadata.Source, found []Signature) []Signature {
	block := int64(max(src.Block, raid.SectorSize))
	size := src.Size.Bytes()

	var tables []Signature

	primary, ok := gpt(head, block, block)
	if ok {
		tables = append(tables, primary)
	}

	if backup, ok := gpt(tail, size-block, block); ok {
		backup.Detail = "backup, " + backup.Detail
		// It is left over as soon as the primary one is not there, and a part of
		// that if it is.
		backup.table = false
		tables = append(tables, backup)
	}

	boot := head.at(0, raid.SectorSize)
	for _, s := range found {
		if s.Offset == 0 {
			boot = nil
		}
	}

	if table, ok := mbr(boot, block); ok {
		tables = append(tables, table)
	}

	return tables
}

// mbr reads the partition table in the boot sector given, unless it is but the
// one that protects a GPT.
func mbr(boot []byte, block int64) (Signature, bool) {
	const (
		offEntries = 446
		entrySize  = 16
		protective = 0xee
	)

	if boot == nil || boot[510] != 0x55 || boot[511] != 0xaa {
		return Signature{}, false
	}

	var (
		types []string
		last  raid.Range
	)

	for i := range 4 {
		entry := boot[offEntries+i*entrySize:][:entrySize]
		start := int64(binary.LittleEndian.Uint32(entry[8:]))
		count := int64(binary.LittleEndian.Uint32(entry[12:]))

		if entry[0]&0x7f != 0 || entry[4] == protective {
			return Signature{}, false // code, or not a table of its own
		}

		if entry[4] == 0 || count == 0 {
			continue
		}

		types = append(types, fmt.Sprintf("%#02x", entry[4]))
		last = farthest(last, start*(block/raid.SectorSize), (start+count)*(block/raid.SectorSize))
	}

	if len(types) == 0 {
		return Signature{}, false
	}

	return Signature{
		Kind: "mbr", Detail: fmt.Sprintf("partitions of type %s", strings.Join(types, ", ")), table: true,
		end: last.To, last: last,
	}, true
}

// gpt reads the GPT header at an offset of w, which is wide enough for the
// entries beside it. Entries elsewhere, or more than anybody makes, are not
// verified, and count as damaged.
func gpt(w window, at, block int64) (Signature, bool) {
	const (
		headerSize   = 92
		offSize      = 12
		offSum       = 16
		offLastBlock = 48 // that partitions may use
		offEntries   = 72
		offCount     = 80
		offEntrySize = 84
		offEntrySum  = 88
		tableMax     = 16 << 10 // what nearly all have
	)

	le := binary.LittleEndian

	header := w.at(at, raid.SectorSize)
	if header == nil || string(header[:8]) != "EFI PART" {
		return Signature{}, false
	}

	s := Signature{Kind: "gpt", Offset: at, table: true, damaged: true, Detail: "damaged"}

	// Sums cover what the header says they cover.
	size := le.Uint32(header[offSize:])
	if size < headerSize || size > raid.SectorSize {
		return s, true
	}

	sum := le.Uint32(header[offSum:])
	clean := append([]byte(nil), header[:size]...)
	clear(clean[offSum : offSum+4])

	entries := le.Uint64(header[offEntries:])
	count, entrySize := le.Uint32(header[offCount:]), le.Uint32(header[offEntrySize:])

	if crc32.ChecksumIEEE(clean) != sum || entrySize == 0 || count > tableMax/entrySize || entries > 1<<40 {
		return s, true
	}

	table := w.at(int64(entries)*block, int(count*entrySize))
	if table == nil || crc32.ChecksumIEEE(table) != le.Uint32(header[offEntrySum:]) {
		return s, true
	}

	last := le.Uint64(header[offLastBlock:])
	s.damaged = false
	s.Detail = fmt.Sprintf("%d partitions", used(table, int(entrySize)))
	s.end = raid.Sectors(min(last, 1<<50)+1) * raid.Sectors(block/raid.SectorSize)

	s.last = lastOf(table, int(entrySize), block/raid.SectorSize)

	return s, true
}

// farthest returns which of two partitions reaches farther.
func farthest(one raid.Range, start, end int64) raid.Range {
	if raid.Sectors(end) > one.To {
		return raid.Range{From: raid.Sectors(start), To: raid.Sectors(end)}
	}

	return one
}

// lastOf returns which partition of a GPT reaches farthest.
func lastOf(table []byte, entrySize int, scale int64) raid.Range {
	const (
		offFirst = 32
		offLast  = 40
		entryMin = 128
		most     = 1 << 50
	)

	var last raid.Range

	for i := 0; i+max(entrySize, entryMin) <= len(table); i += entrySize {
		from := binary.LittleEndian.Uint64(table[i+offFirst:])
		to := binary.LittleEndian.Uint64(table[i+offLast:])

		if from > 0 && from <= to && to < most {
			last = farthest(last, int64(from)*scale, int64(to+1)*scale)
		}
	}

	return last
}

// used returns how many entries of a GPT have a type.
func used(table []byte, entrySize int) int {
	const typeSize = 16

	count := 0

	for i := 0; i+max(entrySize, typeSize) <= len(table); i += entrySize {
		if [typeSize]byte(table[i:]) != [typeSize]byte{} {
			count++
		}
	}

	return count
}
