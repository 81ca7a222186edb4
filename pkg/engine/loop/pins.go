package loop

import (
	"os"
	"slices"

	"raid-assembler/pkg/engine/uring"
)

// The table of pins has a place for each page of the arena, then one for each
// block. The kernel makes no larger ones.
const (
	pinsMax   = 1 << 14
	blocksMax = 1 << 10
)

// pins is the memory of the arena that the kernel need not look up and pin for
// each transfer, since it was registered with the ring. That is a twentieth of
// what a transfer costs, or more.
//
// Memory is registered when it is first used: the page of a transfer that lies
// in one page, all of the block of another. So what an idle array never used
// stays unused. Registering is never required: where the kernel refuses,
// transfers go on without.
type pins struct {
	table *uring.BufferTable
	arena *uring.Arena
	pages int
	state []pin // by place in the table; empty if there is none
}

type pin uint8

const (
	unseen pin = iota
	pinned
	refused
)

// newPins makes the ring's table of buffers.
func newPins(ring *uring.Ring, arena *uring.Arena) pins {
	pages := min(arena.Pages(), pinsMax-blocksMax)

	table, err := ring.RegisterBufferTable(pages + blocksMax)
	if err != nil {
		return pins{}
	}

	return pins{table: table, arena: arena, pages: pages, state: make([]pin, pages+blocksMax)}
}

// any reports whether there is memory that is registered.
func (p *pins) any() bool { return slices.Contains(p.state, pinned) }

// forget has no memory of a block be registered any more: nothing in it is in flight.
func (p *pins) forget(block []byte) error {
	if len(p.state) == 0 {
		return nil
	}

	holder, mem := p.arena.Holder(block)
	first, _ := p.arena.Page(block[:1])

	for at := first; at < min(first+len(mem)/os.Getpagesize(), p.pages); at++ {
		if err := p.empty(at); err != nil {
			return err
		}
	}

	return p.empty(p.pages + holder)
}

// empty makes a place of the table empty that is not.
func (p *pins) empty(at int) error {
	if at >= len(p.state) || p.state[at] != pinned {
		return nil
	}

	if err := p.table.Set(at, nil); err != nil {
		return err
	}

	p.state[at] = unseen

	return nil
}

// find returns the index of the registered buffer that data lies in, if there
// is one.
func (p *pins) find(data []byte) (index uint16, ok bool) {
	if len(p.state) == 0 {
		return 0, false
	}

	at, mem := p.arena.Page(data)

	// A page of a block that is registered needs no registration of its own.
	if beyond := mem == nil || at >= p.pages; beyond || p.state[at] == unseen {
		holder, block := p.arena.Holder(data)
		if holder += p.pages; beyond || holder < len(p.state) && p.state[holder] == pinned {
			at, mem = holder, block
		}
	}

	if mem == nil || at >= len(p.state) {
		return 0, false
	}

	if p.state[at] == unseen {
		p.state[at] = pinned

		if err := p.table.Set(at, mem); err != nil {
			p.state[at] = refused
		}
	}

	return uint16(at), p.state[at] == pinned
}
