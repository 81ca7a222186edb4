package geometry

import (
	"fmt"

	"raid-assembler/pkg/raid"
)

// rotation says where the parity and the data of a row are. P moves by step
// each row, over the first width slots.
type rotation struct {
	width int
	start int // where P is in row 0; in the tables from the end, if negative
	step  int // -1, 0 or 1
	skip  int // parity slots from P on that data goes round: 1 or 2
	wraps bool
	q     qPlace
	ddf   bool // Q counts by slot
}

// qPlace says where Q is.
type qPlace int

const (
	qNone   qPlace = iota
	qAfter         // the slot after P, slot 0 being after the last
	qBefore        // the slot before P
	qLast          // always the last slot, and P is never there
)

var rotations5 = map[raid.Layout]rotation{
	raid.LeftAsymmetric:  {start: -1, step: -1, skip: 1},
	raid.RightAsymmetric: {start: 0, step: 1, skip: 1},
	raid.LeftSymmetric:   {start: -1, step: -1, skip: 1, wraps: true},
	raid.RightSymmetric:  {start: 0, step: 1, skip: 1, wraps: true},
	raid.ParityFirst:     {start: 0, skip: 1},
	raid.ParityLast:      {start: -1, skip: 1},
}

var rotations6 = map[raid.Layout]rotation{
	raid.LeftAsymmetric:   {start: -1, step: -1, skip: 2, q: qAfter},
	raid.RightAsymmetric:  {start: 0, step: 1, skip: 2, q: qAfter},
	raid.LeftSymmetric:    {start: -1, step: -1, skip: 2, q: qAfter, wraps: true},
	raid.RightSymmetric:   {start: 0, step: 1, skip: 2, q: qAfter, wraps: true},
	raid.ParityFirst:      {start: 0, skip: 2, q: qAfter},
	raid.ParityLast:       {start: -2, skip: 2, q: qAfter},
	raid.DDFZeroRestart:   {start: 0, step: 1, skip: 2, q: qAfter, ddf: true},
	raid.DDFNRestart:      {start: -2, step: -1, skip: 2, q: qAfter, ddf: true},
	raid.DDFNContinue:     {start: -1, step: -1, skip: 1, q: qBefore, ddf: true, wraps: true},
	raid.LeftAsymmetric6:  {start: -1, step: -1, skip: 1, q: qLast},
	raid.RightAsymmetric6: {start: 0, step: 1, skip: 1, q: qLast},
	raid.LeftSymmetric6:   {start: -1, step: -1, skip: 1, q: qLast, wraps: true},
	raid.RightSymmetric6:  {start: 0, step: 1, skip: 1, q: qLast, wraps: true},
	raid.ParityFirst6:     {start: 0, skip: 1, q: qLast},
}

// maxExponents is how many data blocks Q can tell apart.
const maxExponents = 255

// rotate finishes the map of a parity level.
func (m *Map) rotate() error {
	rotations, parities := rotations5, 1
	if m.level == raid.Level6 {
		rotations, parities = rotations6, 2
	}

	layout := m.layout
	if m.level == raid.Level4 {
		layout = raid.ParityLast // md ignores what a RAID4 says of it
	}

	r, ok := rotations[layout]
	if !ok {
		return fmt.Errorf("unknown layout %d of %v", m.layout, m.level)
	}

	r.width = m.disks
	if r.q == qLast {
		r.width--
	}

	if r.start < 0 {
		r.start += r.width
	}

	m.data, m.rotation = m.disks-parities, r

	if m.level == raid.Level6 && m.Exponents() > maxExponents {
		return fmt.Errorf("%d slots of layout %d: Q tells %d data blocks apart, not %d",
			m.disks, m.layout, maxExponents, m.Exponents())
	}

	return nil
}

// The methods below are about the rows of parity levels. Their preconditions:
// the level is RAID4, RAID5 or RAID6, and row is in [0, Rows).

// DataDisks returns how many chunks of a row hold data.
func (m *Map) DataDisks() int { return m.data }

// RowSectors returns how many array sectors one row holds.
func (m *Map) RowSectors() raid.Sectors { return m.row }

// Rows returns the number of rows.
func (m *Map) Rows() int64 { return int64(m.component / m.chunk) }

// Period is after how many rows of a level with parity the slots come again.
func (m *Map) Period() int { return m.rotation.width }

// ParitySlot returns the slot that holds the parity of a row: P on a RAID6.
func (m *Map) ParitySlot(row int64) raid.Slot { return raid.Slot(m.parity(row)) }

func (m *Map) parity(row int64) int {
	r := &m.rotation

	p := r.start + r.step*int(row%int64(r.width))

	switch {
	case p < 0:
		return p + r.width
	case p >= r.width:
		return p - r.width
	default:
		return p
	}
}

// QSlot returns the slot that holds Q of a row, or NoSlot if the level has
// none.
func (m *Map) QSlot(row int64) raid.Slot { return raid.Slot(m.qOf(m.parity(row))) }

// qOf returns the slot of Q where P is in slot p.
func (m *Map) qOf(p int) int {
	switch m.rotation.q {
	case qAfter:
		if p == m.disks-1 {
			return 0
		}

		return p + 1
	case qBefore:
		if p == 0 {
			return m.disks - 1
		}

		return p - 1
	case qLast:
		return m.disks - 1
	case qNone:
		return int(raid.NoSlot)
	default:
		panic("geometry: unknown place of Q")
	}
}

// DataSlot returns the slot that holds the chunk with data index d of a row.
// Preconditions: d is in [0, DataDisks).
func (m *Map) DataSlot(row int64, d int) raid.Slot {
	r := &m.rotation
	p := m.parity(row)

	switch {
	case r.wraps:
		return raid.Slot((p + r.skip + d) % r.width)
	case r.q == qAfter && p == m.disks-1:
		return raid.Slot(d + 1) // Q is in slot 0
	case d >= p:
		return raid.Slot(d + r.skip)
	default:
		return raid.Slot(d)
	}
}

// DataIndex returns the data index of the chunk that slot holds in a row, or
// -1 if that is parity. Preconditions: slot is in [0, Disks).
func (m *Map) DataIndex(row int64, slot raid.Slot) int {
	r := &m.rotation
	p := m.parity(row)
	s := int(slot)

	switch {
	case s == p || s == m.qOf(p):
		return -1
	case r.wraps:
		return (s - p - r.skip + 2*r.width) % r.width
	case r.q == qAfter && p == m.disks-1:
		return s - 1
	case s > p:
		return s - r.skip
	default:
		return s
	}
}

// Exponent returns e if the chunk that slot holds in a row counts as 2^e in Q,
// or -1 if that is parity. md counts the data slots from the one after Q on;
// in the layouts of DDF each slot counts as its number. It is the data index if
// the level has no Q. Preconditions: slot is in [0, Disks).
func (m *Map) Exponent(row int64, slot raid.Slot) int {
	p := m.parity(row)
	q := m.qOf(p)
	s := int(slot)

	switch {
	case s == p || s == q:
		return -1
	case m.rotation.q == qNone:
		return m.DataIndex(row, slot)
	case m.rotation.ddf:
		return s
	}

	e := (s - q - 1 + m.disks) % m.disks
	if (p-q-1+m.disks)%m.disks < e {
		e--
	}

	return e
}

// Exponents returns how many exponents there are: those from 0 on that no chunk
// of a row has count zeros.
func (m *Map) Exponents() int {
	if m.rotation.ddf {
		return m.disks
	}

	return m.data
}
