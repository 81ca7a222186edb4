package asr

import "hash/crc32"

// stamp is the count of what was recorded, in bytes of a table's header that the
// format reserves:
//
//	0   4  count
//	4   2  sequence number of the array when it was written
//	6   2  zero
//	8   4  CRC-32 of the above, the magic number of the disk and that of the array
//	       whose spare it is
//
// It has to be in the first sector, which is written as a whole, and whoever does
// not know it leaves it alone or clears it.
type stamp struct {
	Count uint32 `json:"count"`
	Seq   uint16 `json:"seq"`
}

const (
	stampSize = 12
	offOfSeq  = 4
	offOfZero = 6
	offOfSum  = 8
)

// stampSum returns the checksum of the stamp of a disk's table.
func stampSum(table []byte, drive uint32) uint32 {
	crc := crc32.Update(0, crc32.IEEETable, table[offStamp:][:offOfSum])
	crc = ^crc32.Update(crc, crc32.IEEETable, table[offSpareArray:][:4])

	// A slice of the number would be memory that a Record must not need.
	for shift := 24; shift >= 0; shift -= 8 {
		crc = crc32.IEEETable[byte(crc)^byte(drive>>shift)] ^ crc>>8
	}

	return ^crc
}

// readStamp returns the stamp of a disk's table, nil if there is none, and false
// if what is there is neither a stamp nor nothing.
func readStamp(table []byte, drive uint32) (*stamp, bool) {
	raw := table[offStamp:][:stampSize]
	if [stampSize]byte(raw) == [stampSize]byte{} {
		return nil, true
	}

	s := &stamp{Count: order.Uint32(raw), Seq: order.Uint16(raw[offOfSeq:])}

	return s, order.Uint16(raw[offOfZero:]) == 0 && order.Uint32(raw[offOfSum:]) == stampSum(table, drive)
}

// events returns the event count where an array has the sequence number seq: each
// change that others made since counts as well.
func (s *stamp) events(seq uint16) uint64 {
	if s == nil {
		return uint64(seq)
	}

	return uint64(s.Count) + uint64(seq-s.Seq)
}

// put writes s into the table of a disk.
func (s stamp) put(table []byte, drive uint32) {
	raw := table[offStamp:][:stampSize]
	order.PutUint32(raw, s.Count)
	order.PutUint16(raw[offOfSeq:], s.Seq)
	order.PutUint16(raw[offOfZero:], 0)
	order.PutUint32(raw[offOfSum:], stampSum(table, drive))
}
