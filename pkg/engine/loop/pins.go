package loop

import "raid-assembler/pkg/engine/uring"

// pinsMax is the largest table of buffers that the kernel makes.
const pinsMax = 1 << 14

// pins are the pages of the arena that the kernel need not look up and pin for
// each transfer, since they were registered with the ring. That is a twentieth
// of what a transfer of one page costs; of larger ones it is little.
//
// A page is registered when it is first used: memory that an idle array never
// used stays unused. Registering is never required: where the kernel refuses,
// transfers go on without.
type pins struct {
	table *uring.BufferTable
	arena *uring.Arena
	pages []pin // by page; empty if there is no table
}

type pin uint8

const (
	unseen pin = iota
	pinned
	refused
)

// newPins makes the ring's table of buffers.
func newPins(ring *uring.Ring, arena *uring.Arena) pins {
	n := min(arena.Pages(), pinsMax)

	table, err := ring.RegisterBufferTable(n)
	if err != nil {
		return pins{}
	}

	return pins{table: table, arena: arena, pages: make([]pin, n)}
}

// find returns the index of the registered buffer that data lies in, if there
// is one.
func (p *pins) find(data []byte) (index uint16, ok bool) {
	if len(p.pages) == 0 {
		return 0, false
	}

	number, page := p.arena.Page(data)
	if page == nil || number >= len(p.pages) {
		return 0, false
	}

	if p.pages[number] == unseen {
		p.pages[number] = pinned

		if err := p.table.Set(number, page); err != nil {
			p.pages[number] = refused
		}
	}

	return uint16(number), p.pages[number] == pinned
}
