package exercise

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Model is what a device holds.
type Model struct {
	Pattern uint64 // seed of generation First, or 0
	Last    Gen    // the last one used
	Sectors []Gen
}

// NewModel is a device of that many sectors in its first generation.
func NewModel(sectors int64, pattern uint64) (*Model, error) {
	if sectors <= 0 || sectors >= sectorMax {
		return nil, fmt.Errorf("exercise: a device of %d sectors", sectors)
	}

	m := &Model{Pattern: pattern, Last: First, Sectors: make([]Gen, sectors)}
	for i := range m.Sectors {
		m.Sectors[i] = First
	}

	return m, nil
}

const headerSize = 24

// errModel says that a file holds no model.
var errModel = errors.New("exercise: not a model")

// ReadModel reads what Write wrote.
func ReadModel(r io.Reader) (*Model, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, fmt.Errorf("%w: %w", errModel, err)
	}

	n := binary.LittleEndian.Uint64(header[16:])
	if n == 0 || n >= sectorMax {
		return nil, fmt.Errorf("%w: %d sectors", errModel, n)
	}

	m := &Model{
		Pattern: binary.LittleEndian.Uint64(header[0:]),
		Last:    Gen(binary.LittleEndian.Uint64(header[8:])),
		Sectors: make([]Gen, n),
	}
	if err := binary.Read(r, binary.LittleEndian, m.Sectors); err != nil {
		return nil, fmt.Errorf("%w: %w", errModel, err)
	}

	return m, nil
}

// Write writes the model.
func (m *Model) Write(w io.Writer) error {
	header := binary.LittleEndian.AppendUint64(nil, m.Pattern)
	header = binary.LittleEndian.AppendUint64(header, uint64(m.Last))
	header = binary.LittleEndian.AppendUint64(header, uint64(len(m.Sectors)))

	if _, err := w.Write(header); err != nil {
		return fmt.Errorf("exercise: %w", err)
	}

	if err := binary.Write(w, binary.LittleEndian, m.Sectors); err != nil {
		return fmt.Errorf("exercise: %w", err)
	}

	return nil
}

// Apply records that an operation of generation g was done.
func (m *Model) Apply(op Op, g Gen) {
	m.Last = g

	switch op.Kind {
	case Read, Flush:
		return
	case Zero:
		g |= zeroed
	case Discard:
		g = Unknown
	case Write:
	}

	for s := op.First; s < op.First+op.Count; s++ {
		m.Sectors[s] = g
	}
}

// Check returns an error unless p, read from sectors beginning with first, is
// what is there.
func (m *Model) Check(p []byte, first int64) error {
	var want [SectorSize]byte

	for i := 0; i < len(p); i += SectorSize {
		sector := first + int64(i/SectorSize)

		g := m.Sectors[sector]
		if g == Unknown {
			continue
		}

		got := p[i : i+SectorSize]
		if fillSector(want[:], sector, g, m.Pattern); string(got) != string(want[:]) {
			return fmt.Errorf("exercise: sector %d holds %s, want generation %d (zeroed %t)",
				sector, describe(got, sector, m.Pattern), g.number(), g&zeroed != 0)
		}
	}

	return nil
}
