package stripe

import "raid-assembler/pkg/raid"

// Move copies the memory of old to to, which is as long, and uses that from now
// on, as an operation that was given up may use old still. What is in flight
// goes on with old, and what such a read brings has to be copied by the caller
// before its end is told. Old is memory of a request, a piece of scratch
// memory, or that of a log, as a whole.
func (p *Path) Move(old, to []byte) {
	copy(to, old)

	for i := range p.clients {
		rebase(&p.clients[i].Data, old, to)
	}

	for i := range p.bands {
		b := &p.bands[i]
		rebase(&b.data, old, to)

		for slot := range b.bufs {
			rebase(&b.bufs[slot], old, to)
		}

		for place := range b.ios {
			rebase(&b.ios[place].data, old, to)
		}
	}

	for i := range p.logs {
		l := &p.logs[i]
		rebase(&l.buf, old, to)

		for place := range l.ios {
			rebase(&l.ios[place].data, old, to)
		}
	}

	rebase(&p.zeros, old, to)

	if p.crash != nil {
		p.crash.Move(old, to)
	}
}

// rebase has part, if it is in old, be the same part of to.
func rebase(part *[]byte, old, to []byte) {
	if from := Within(old, *part); from >= 0 {
		*part = to[from : from+len(*part) : from+len(*part)]
	}
}

// Within returns where in memory a part of it begins, by whole sectors, or -1
// if part is other memory, or none.
func Within(memory, part []byte) int {
	if len(part) == 0 {
		return -1
	}

	for i := 0; i+len(part) <= len(memory); i += raid.SectorSize {
		if &memory[i] == &part[0] {
			return i
		}
	}

	return -1
}
