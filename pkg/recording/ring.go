package recording

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"raid-assembler/pkg/policy"
)

// packedMax is how many bytes of packed entries are kept, and oneMax the most that
// one may have.
const (
	packedMax = 1 << 20
	oneMax    = 64 << 20
)

// Ring keeps the last entries, packed. The zero value has none. It is not safe for
// concurrent use.
type Ring struct {
	packed [][]byte
	bytes  int
	first  int64 // the number of the oldest that is left, from 0

	last   open
	packer *flate.Writer // nil until it is needed; to make one takes longer than to pack
}

// open is the newest entry, which may yet hold longer.
type open struct {
	Time  time.Time       `json:"time"`
	Until time.Time       `json:"until"`
	Times int             `json:"times"`
	State json.RawMessage `json:"state"`

	same []byte // of the state, what does not change while only time passes
}

// Add takes in what was decided at a time.
func (r *Ring) Add(now time.Time, s State) error {
	state, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("recording: %w", err)
	}

	timeless := s
	timeless.View.Waited, timeless.View.Returned = nil, nil
	timeless.Decisions = append([]policy.Decision{}, s.Decisions...)

	for i := range timeless.Decisions {
		timeless.Decisions[i].Left = 0
	}

	same, err := json.Marshal(timeless)
	if err != nil {
		return fmt.Errorf("recording: %w", err)
	}

	if r.last.Times > 0 && bytes.Equal(same, r.last.same) {
		r.last.Until = now
		r.last.Times++

		return nil
	}

	if r.last.Times > 0 {
		packed, err := r.pack(r.last)
		if err != nil {
			return err
		}

		r.packed = append(r.packed, packed)
		r.bytes += len(packed)
	}

	for r.bytes > packedMax {
		r.bytes -= len(r.packed[0])
		r.packed = r.packed[1:]
		r.first++
	}

	r.last = open{now, now, 1, state, same}

	return nil
}

// From returns packed entries from a number on, or from the oldest that is left, up
// to a sum of bytes but at least one; and the number of the one after, which is below
// 0 if there is none. Below 0 stands for the newest.
func (r *Ring) From(number int64, bytesMax int) (packed [][]byte, next int64, err error) {
	if r.last.Times == 0 {
		return nil, -1, nil
	}

	newest, err := r.pack(r.last)
	if err != nil {
		return nil, -1, err
	}

	all := append(slices.Clip(r.packed), newest)
	end := r.first + int64(len(all))

	at := max(number, r.first)
	if number < 0 || at >= end {
		at = end - 1
	}

	for sum := 0; at < end; at++ {
		one := all[at-r.first]
		if sum += len(one); len(packed) > 0 && sum > bytesMax {
			return packed, at, nil
		}

		packed = append(packed, one)
	}

	return packed, -1, nil
}

// Dropped returns how many entries are not kept any more.
func (r *Ring) Dropped() int64 { return r.first }

// pack makes an entry small: one looks much like the next, and disks like each other.
func (r *Ring) pack(o open) ([]byte, error) {
	var b bytes.Buffer

	if r.packer == nil {
		var err error
		if r.packer, err = flate.NewWriter(&b, flate.BestSpeed); err != nil {
			return nil, fmt.Errorf("recording: %w", err)
		}
	}

	r.packer.Reset(&b)

	if err := json.NewEncoder(r.packer).Encode(o); err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}

	if err := r.packer.Close(); err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}

	return b.Bytes(), nil
}

// Unpack returns the entry that was packed.
func Unpack(packed []byte) (Entry, error) {
	var e Entry

	r := flate.NewReader(bytes.NewReader(packed))
	if err := json.NewDecoder(io.LimitReader(r, oneMax)).Decode(&e); err != nil {
		return e, fmt.Errorf("recording: packed entry: %w", err)
	}

	return e, nil
}
