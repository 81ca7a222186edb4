package exercise

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// Kind is what an operation does.
type Kind int

// The kinds.
const (
	Read Kind = iota
	Write
	Flush
	Zero
	Discard
)

// Op is an operation on sectors.
type Op struct {
	Kind         Kind
	First, Count int64
	Durable      bool // a write that is on stable storage once it is done
}

// Overlaps reports whether both touch a sector that one of them changes.
func (o Op) Overlaps(other Op) bool {
	if o.Kind == Read && other.Kind == Read {
		return false
	}

	return o.First < other.First+other.Count && other.First < o.First+o.Count
}

// mix is how often which operations come.
type mix struct {
	weights    [Discard + 1]int
	unit       int64 // of offsets and lengths, in sectors; 0: that of the device
	longest    int64
	sequential bool
	durable    int // of a hundred writes
}

// mixes are the workloads, by name. Those that cut the power rely on flushes.
var mixes = map[string]mix{
	"sequential": {weights: [...]int{Read: 1, Write: 20, Flush: 1, Discard: 0}, longest: 1024, sequential: true},
	"random":     {weights: [...]int{Read: 4, Write: 10, Flush: 1, Discard: 0}, unit: 8, longest: 8},
	"unaligned":  {weights: [...]int{Read: 6, Write: 10, Flush: 1, Discard: 0}, longest: 300},
	"fua":        {weights: [...]int{Read: 2, Write: 10, Discard: 0}, longest: 40, durable: 80},
	"discard":    {weights: [...]int{Read: 4, Write: 12, Flush: 1, Zero: 2, Discard: 2}, longest: 600},
	"mixed":      {weights: [...]int{Read: 8, Write: 16, Flush: 1, Zero: 1, Discard: 0}, longest: 600, durable: 5},
}

// Mixes returns the names of the workloads.
func Mixes() []string {
	var names []string
	for name := range mixes {
		names = append(names, name)
	}

	slices.Sort(names)

	return names
}

// Stream is a sequence of operations. The same seed gives the same.
type Stream struct {
	mix     mix
	rng     *rand.Rand
	sectors int64
	next    int64 // of a sequential one
}

// NewStream begins a sequence for a device of that many sectors, which are to be
// touched in multiples of unit.
func NewStream(name string, seed uint64, sectors, unit int64) (*Stream, error) {
	m, ok := mixes[name]
	if !ok {
		return nil, fmt.Errorf("exercise: workload %q, want one of %s", name, strings.Join(Mixes(), ", "))
	}

	m.unit = max(m.unit, unit)
	if sectors < m.longest {
		return nil, fmt.Errorf("exercise: a device of %d sectors, want %d at least", sectors, m.longest)
	}

	return &Stream{mix: m, rng: rand.New(rand.NewPCG(seed, golden)), sectors: sectors}, nil
}

// Next returns the next operation.
func (s *Stream) Next() Op {
	total := 0
	for _, w := range s.mix.weights {
		total += w
	}

	op, pick := Op{}, s.rng.IntN(total)
	for k, w := range s.mix.weights {
		if pick -= w; pick < 0 {
			op.Kind = Kind(k)

			break
		}
	}

	if op.Kind == Flush {
		return op
	}

	unit := s.mix.unit
	op.Count = (1 + s.rng.Int64N(s.mix.longest/unit)) * unit
	op.First = s.rng.Int64N((s.sectors-op.Count)/unit+1) * unit

	if s.mix.sequential && op.Kind == Write {
		if s.next+op.Count > s.sectors {
			s.next = 0
		}

		op.First = s.next
		s.next += op.Count
	}

	op.Durable = op.Kind == Write && s.rng.IntN(100) < s.mix.durable

	return op
}
