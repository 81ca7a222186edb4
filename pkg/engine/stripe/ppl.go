package stripe

import (
	"slices"

	"raid-assembler/pkg/engine/intent"
	"raid-assembler/pkg/engine/parity"
	"raid-assembler/pkg/raid"
)

// A partial parity log closes the write hole of RAID5. Before a band changes
// rows, the parity of what it does not change is written to the member that has
// the rows' parity. After a crash that partial parity and the data, as it is
// found, make parity which is right for what was not being written, whether its
// members are there or not.
//
// A log holds one unit: the bands that were waiting when it was written. The
// next one comes over it when all writes of the unit have ended, and the
// members have been flushed: until then they may lose what the unit is about.
//
// While redundancy is not right everywhere nothing is logged, for what is wrong
// would be made to look right: after a crash the array is resynced as a whole.

// logStage is what a log does.
type logStage uint8

const (
	logIdle    logStage = iota
	logFlush            // members are flushed, so that the last unit can go
	logWrite            // a unit is being written
	logHolding          // the writes of the unit are under way
)

// partialLog is the log on the member of one slot.
type partialLog struct {
	stage  logStage
	buf    []byte
	header intent.PPLHeader
	queue  []*band    // that wait for the next unit
	unit   []*band    // those of the unit
	left   int        // writes of bands of the unit, or transfers of the log, that have not ended
	spoilt bool       // a transfer of the log has failed
	cached bool       // the last unit may be in members' caches only
	ios    []transfer // of the log, by place
}

// newLogs returns the logs of an array of which each member has one.
func newLogs(cfg Config) []partialLog {
	if cfg.Logs == nil {
		return nil
	}

	logs := make([]partialLog, cfg.Disks)
	bands := cfg.Depth * bandsPerRequest

	for i := range logs {
		logs[i] = partialLog{
			buf: cfg.Logs[i], queue: make([]*band, 0, bands), unit: make([]*band, 0, intent.PPLEntryMax),
			ios: make([]transfer, places(cfg.Disks)),
		}
		logs[i].header = intent.PPLHeader{
			Signature: cfg.Signature, Generation: cfg.Generation,
			Entries: make([]intent.PPLEntry, 0, intent.PPLEntryMax),
		}
	}

	return logs
}

// logPiece returns the most that a band may cover so that a log has room for
// it.
func logPiece(piece raid.Sectors, logs [][]byte) raid.Sectors {
	for _, buf := range logs {
		piece = min(piece, raid.Sectors((len(buf)-intent.PPLHeaderSize)/raid.SectorSize))
	}

	return piece
}

// logged puts b in line for the log of its parity, and reports whether it has
// to wait for that. A band whose parity is not there has no hole to close, once
// that is recorded.
func (p *Path) logged(b *band) bool {
	if p.logs == nil {
		return false
	}

	slot := p.geo.ParitySlot(b.row)
	if gone := b.parities == 0 || !p.takes(&p.members[slot], b.hi); gone && p.failuresRecorded() {
		return false
	}

	if b.unlogged = p.resynced != raid.MaxSectors; b.unlogged {
		p.unlogged++

		return false
	}

	p.logs[slot].queue = append(p.logs[slot].queue, b)

	return true
}

// failuresRecorded reports whether those that failed are known to have.
func (p *Path) failuresRecorded() bool { return p.recorded && len(p.failures) == 0 }

// logging reports whether logs can be written. An entry in any log says that the
// logs tell all, and so the first waits until nothing is changed that was begun
// without.
func (p *Path) logging() bool { return p.unlogged == 0 && p.failuresRecorded() }

// advanceLogs begins what the logs that are idle have waiting.
func (p *Path) advanceLogs() {
	if !p.logging() {
		if p.broken {
			p.failLogged()
		}

		return
	}

	for slot := range p.logs {
		l := &p.logs[slot]
		if len(l.queue) == 0 || l.stage != logIdle {
			continue
		}

		p.letThrough(raid.Slot(slot))

		switch {
		case len(l.queue) == 0:
		case l.cached:
			p.flushForLog(raid.Slot(slot))
		default:
			p.writeLog(raid.Slot(slot))
		}
	}
}

// failLogged ends the bands that wait for what will never be recorded.
func (p *Path) failLogged() {
	for slot := range p.logs {
		for l := &p.logs[slot]; len(l.queue) > 0; {
			p.done(l.shift(), false)
		}
	}
}

// letThrough lets the bands go on whose parity is not there any more. In the
// log of a member that came since they would be found after rows were changed
// that it has no parity of yet.
func (p *Path) letThrough(slot raid.Slot) {
	l := &p.logs[slot]

	for i := 0; i < len(l.queue); {
		b := l.queue[i]
		if p.takes(&p.members[slot], b.hi) {
			i++

			continue
		}

		l.queue = append(l.queue[:i], l.queue[i+1:]...)
		p.renew(b)
		p.storeRow(b)
	}
}

// shift takes the first band out of the queue.
func (l *partialLog) shift() *band {
	b := l.queue[0]
	l.queue = append(l.queue[:0], l.queue[1:]...)

	return b
}

// logsDue reports whether advanceLogs would begin anything.
func (p *Path) logsDue() bool {
	logging := p.logging()

	for i := range p.logs {
		if l := &p.logs[i]; len(l.queue) > 0 && (logging && l.stage == logIdle || !logging && p.broken) {
			return true
		}
	}

	return false
}

// flushForLog makes durable what the members have of the last unit.
func (p *Path) flushForLog(slot raid.Slot) {
	l := &p.logs[slot]
	l.stage, l.cached = logFlush, false

	for place := range p.places() {
		if m, _ := p.at(place); m.working() {
			p.askLog(slot, place, nil)
		}
	}
}

// writeLog writes the next unit: to the successor as well, if there is one, which
// may have the slot before the writes of the unit have ended.
func (p *Path) writeLog(slot raid.Slot) {
	l := &p.logs[slot]
	l.header.Generation++
	l.header.Entries = l.header.Entries[:0]
	end := intent.PPLHeaderSize

	for len(l.queue) > 0 && len(l.header.Entries) < intent.PPLEntryMax {
		b := l.queue[0]

		partial, ok := p.partialParity(b, l.buf[end:])
		if !ok {
			break
		}

		l.header.Entries = append(l.header.Entries, p.entry(b, slot, partial))
		end += len(partial)
		l.unit = append(l.unit, l.shift())
	}

	l.header.Encode(l.buf)
	l.stage = logWrite
	p.askLog(slot, int(slot), l.buf[:end])

	if slot == p.heir && p.successor.working() {
		p.askLog(slot, p.disks, l.buf[:end])
	}
}

// entry describes b in a log.
func (p *Path) entry(b *band, slot raid.Slot, partial []byte) intent.PPLEntry {
	column := b.lo - raid.Sectors(b.row)*p.chunk
	first := p.geo.ArraySectors()

	for s := range raid.Slot(p.disks) {
		if b.written.has(s) {
			first = min(first, p.arrayAt(b.row, s, column))
		}
	}

	return intent.PPLEntry{
		Sector: first, Partial: uint32(len(partial)), Parity: slot,
		Data:     uint32(b.sectors().Bytes()) * uint32(b.written.count()),
		Checksum: intent.PPLChecksum(partial),
	}
}

// partialParity leaves in room the parity of what b does not change, which is
// nothing if b changes all; not ok if there is no room.
func (p *Path) partialParity(b *band, room []byte) (partial []byte, ok bool) {
	r := p.rowOf(b.row)
	if b.written == r.data {
		return nil, true
	}

	n := int(b.sectors().Bytes())
	if n > len(room) {
		return nil, false
	}

	p.renew(b)
	copy(room[:n], b.buf(r.p.first()))

	for slot := range raid.Slot(p.disks) {
		if b.written.has(slot) {
			parity.XORInto(room[:n], p.fresh[slot])
		}
	}

	return room[:n], true
}

// logIDs is where the numbers of transfers of logs begin: places for each slot.
func (p *Path) logIDs() int { return len(p.bands) * p.places() }

// askLog asks for a transfer of the log of slot with what place stands for: a write of
// data, or a flush if there is none.
func (p *Path) askLog(slot raid.Slot, place int, data []byte) {
	m, _ := p.at(place)
	l := &p.logs[slot]
	t := &l.ios[place]
	*t = transfer{
		id: int32(p.logIDs() + int(slot)*p.places() + place), device: int32(m.Device), op: Flush, data: data,
		end: raid.Sectors(len(data) / raid.SectorSize),
	}

	if data != nil {
		t.op, t.fua, t.log = Write, true, true
	}

	l.left++
	p.unsent = append(p.unsent, t)
}

// logEnded takes the end of a transfer of a log. A member whose log cannot be
// written is of no use, nor is one that cannot be flushed. The unit is written
// again then, or let through, when that is recorded.
func (p *Path) logEnded(id int, fault Fault) {
	slot, place := raid.Slot(id/p.places()), id%p.places()
	l := &p.logs[slot]

	if fault != None {
		t := &l.ios[place]
		m, at := p.holder(place, t)
		p.giveUp(m, at, t)

		l.spoilt = l.spoilt || t.op == Write
	}

	if l.left--; l.left > 0 {
		return
	}

	if l.stage == logFlush {
		l.stage = logIdle

		return
	}

	if l.spoilt {
		l.stage, l.spoilt = logIdle, false
		l.queue = slices.Insert(l.queue, 0, l.unit...)
		l.unit = l.unit[:0]

		return
	}

	l.stage, l.left, l.cached = logHolding, len(l.unit), true

	// Each has an end of its own, which may come at once.
	for _, b := range l.unit {
		b.holds = l
	}

	for i := range l.unit {
		p.renew(l.unit[i])
		p.storeRow(l.unit[i])
	}

	l.unit = l.unit[:0]
}

// logReleased notes that a band of the unit that a log holds has ended, or one
// that is in no log.
func (p *Path) logReleased(b *band) {
	if b.unlogged {
		p.unlogged--
	}

	if l := b.holds; l != nil {
		if l.left--; l.left == 0 {
			l.stage = logIdle
		}
	}
}
