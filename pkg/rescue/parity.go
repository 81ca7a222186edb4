package rescue

import (
	"errors"

	"raid-assembler/pkg/engine/parity"
	"raid-assembler/pkg/raid"
)

// pieceMax is how much is reconstructed at once: a row of the most slots that
// an array can have is still of a bearable size then.
const pieceMax = 64 << 10

// row is what is read to reconstruct one block of it.
type row struct {
	blocks [][]byte // by slot
	data   [][]byte // the blocks of data that are known, by exponent
	code   *parity.Code
}

func (a *Array) newRow() *row {
	r := &row{blocks: make([][]byte, len(a.slots)), data: make([][]byte, a.layout.Exponents())}
	for slot := range r.blocks {
		r.blocks[slot] = make([]byte, pieceMax)
	}

	if a.Superblock.Level == raid.Level6 {
		r.code = parity.NewCode(a.layout.Exponents())
	}

	return r
}

// reconstruct makes the data of slot from what the others have in its row.
// Preconditions: p lies in one chunk.
func (a *Array) reconstruct(p []byte, slot raid.Slot, offset int64) error {
	r, ok := a.rows.Get().(*row)
	if !ok {
		r = a.newRow()
	}

	defer a.rows.Put(r)

	for len(p) > 0 {
		n := min(len(p), pieceMax)
		if err := a.reconstructIn(r, p[:n], slot, offset); err != nil {
			return err
		}

		p, offset = p[n:], offset+int64(n)
	}

	return nil
}

// reconstructIn is reconstruct for one piece. Q is not read if P is enough.
func (a *Array) reconstructIn(r *row, out []byte, slot raid.Slot, offset int64) error {
	number := offset / a.layout.Chunk().Bytes()
	p, q := a.layout.ParitySlot(number), a.layout.QSlot(number)

	block := func(s raid.Slot) []byte { return r.blocks[s][:len(out)] }

	var errs []error

	lost := slot

	clear(r.data)

	for s := range raid.Slot(len(a.slots)) {
		if s == slot || s == q {
			continue
		}

		if err := a.readMember(block(s), s, offset); err != nil {
			errs = append(errs, err)
			lost = s

			if len(errs) == a.Superblock.Redundancy() {
				return errors.Join(errs...)
			}
		}

		if s != p {
			r.data[a.layout.Exponent(number, s)] = block(s)
		}
	}

	if len(errs) == 0 {
		copy(out, block(p))

		for _, data := range r.data {
			if data != nil {
				parity.XORInto(out, data)
			}
		}

		return nil
	}

	if err := a.readMember(block(q), q, offset); err != nil {
		return errors.Join(append(errs, err)...)
	}

	wanted := a.layout.Exponent(number, slot)
	r.data[wanted] = out

	if lost == p {
		r.code.RecoverQ(r.data, block(q), wanted)
	} else {
		r.code.RecoverTwo(r.data, block(p), block(q), wanted, a.layout.Exponent(number, lost))
	}

	return nil
}
