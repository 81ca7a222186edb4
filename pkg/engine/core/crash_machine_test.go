package core

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

const (
	crashDepth   = 6
	crashPiece   = 4096
	crashSlab    = 32 // sectors
	crashRecords = 16
)

// machine runs one array on drives in memory: the core, and what the thread of
// an array does for it.
type machine struct {
	*Core

	w      *world
	rng    *rand.Rand
	keeper *witness
	drives map[engine.DeviceID]*drive

	flying []op                        // to end in any order
	slow   bool                        // the operations of records are
	reqs   [crashDepth]*stripe.Request // by tag, until answered

	memory leftover // that outlives it, if the power does not fail

	chunk raid.Sectors // that a bit of the bitmap is to stand for, once nothing is written; 0: as it is

	hangs hangs
	// powerless is that a drive was without, and is not known on disk to have failed.
	powerless bool

	hurt     bool                 // something that goes on has met a sector that cannot be read
	recorded map[*drive]bool      // that it failed
	failed   map[*drive]bool      // and the array was not broken by that
	sound    map[*drive]raid.Slot // in sync, by the last record that is durable
	behind   map[*drive]bool      // when the array was started, and no record has been durable since
}

// op is an operation on a drive.
type op struct {
	Operation

	drive *drive // nil if it was removed
	mark  int    // flush: what it makes durable
}

// content is what an operation writes.
func (o op) content() []byte {
	if o.Op == stripe.Write {
		return o.Data
	}

	return make([]byte, o.Sectors.Bytes())
}

// witness is a keeper that remembers what it was asked to record last.
type witness struct {
	metadata.Keeper

	state metadata.State
	left  int // writes of it that have not ended well
}

func (k *witness) Record(st metadata.State) [][]metadata.Write {
	k.state = st
	k.state.Members = maps.Clone(st.Members)
	stages := k.Keeper.Record(st)
	k.left = 0

	for _, stage := range stages {
		k.left += len(stage)
	}

	return stages
}

func newMachine(w *world, cfg Config, drives map[engine.DeviceID]*drive) *machine {
	m := &machine{
		w: w, rng: w.rng, keeper: &witness{Keeper: cfg.Keeper}, drives: drives,
		slow: w.rng.IntN(2) == 0, sound: make(map[*drive]raid.Slot),
		recorded: make(map[*drive]bool), failed: make(map[*drive]bool), behind: make(map[*drive]bool),
	}

	for slot, member := range cfg.Setup.Members {
		if member.State == raid.InSync {
			m.sound[drives[member.Device]] = raid.Slot(slot)
		}
	}

	cfg.Keeper, cfg.Depth, cfg.Slab, cfg.Notify = m.keeper, crashDepth, crashSlab, m.notice
	cfg.Scratch = memory(len(cfg.Setup.Members)+3, crashPiece)
	cfg.Records = memory(crashRecords, crashPiece)
	m.hangs.withSpares(&cfg, m.rng)
	w.logs.withLogs(&cfg, w.event)
	m.memory.withLog(w, &cfg, m.hangs.buffers)

	w.m = m

	var err error
	if m.Core, err = New(cfg); err != nil {
		w.wrong("%v", err)
	}

	if m.memory.log != nil {
		m.memory.log.Publish()
	}

	m.ignored = w.ignored
	m.Start(time.Unix(1e9, 0))
	m.pump()

	return m
}

// memory is as those leave it who had it before.
func memory(n, size int) [][]byte {
	all := bytes.Repeat([]byte{0x5a}, n*size)
	list := make([][]byte, n)

	for i := range list {
		list[i] = all[i*size : (i+1)*size : (i+1)*size]
	}

	return list
}

func (m *machine) notice(n Notice) {
	m.w.say("    %v, device %d, slot %d", n.Note, n.Device, n.Slot)
	m.w.saw(n.Note.String())
	m.brokenBy(n)

	if n.Note == engine.NoteFailed && m.array.State() != raid.Broken {
		m.failed[m.drives[n.Device]] = true
	}
}

// submit begins a request of a client.
func (m *machine) submit(r stripe.Request) {
	m.reqs[r.Tag] = &r
	m.Submit(r)
	m.pump()
}

// idle reports whether no request is in flight.
func (m *machine) idle() bool { return m.writing+m.reading+len(m.held) == 0 }

// atRest reports whether nothing goes on.
func (m *machine) atRest() bool {
	return m.idle() && len(m.flying) == 0 && !m.syncer.on && !m.recorder.active && !m.path.Syncing()
}

// pass lets some time go by.
func (m *machine) pass(d time.Duration) { m.SetTime(m.now.Add(d)) }

// pump moves what has completed on.
func (m *machine) pump() {
	m.Advance()

	for o := range m.Operations {
		d := m.drives[o.Device]

		mark := 0
		if d != nil {
			mark = d.seq
		}

		m.flying = append(m.flying, op{Operation: *o, drive: d, mark: mark})
	}

	for _, a := range m.Answers() {
		req := m.reqs[a.Tag]
		m.reqs[a.Tag] = nil

		if a.Memory != nil {
			m.hangs.buffers[a.Tag] = a.Memory
			req.Data = a.Memory[:len(req.Data)]
			m.w.saw("memory-replaced")
		}

		m.w.answered(req, a.OK)
	}

	m.hurt = m.hurt && (!m.idle() || m.path.Syncing())
}

// release gives memory back that nobody wants.
func (m *machine) release() {
	if !m.Resting() {
		return
	}

	m.w.saw("released")

	for _, block := range slices.Concat(m.cfg.Scratch, m.cfg.Records, m.cfg.Logs, m.hangs.buffers) {
		clear(block)
	}
}

// witnessed takes what is known once a record is durable.
func (m *machine) witnessed() {
	m.w.growth.durable = m.w.growth.to > 0

	if m.array.State() == raid.Broken {
		return
	}

	clear(m.sound)
	clear(m.behind)

	for id, member := range m.keeper.state.Members {
		if d := m.drives[engine.DeviceID(id)]; d != nil {
			m.recorded[d] = m.recorded[d] || member.State == raid.Faulty
			if member.State == raid.InSync {
				m.sound[d] = member.Slot
			}
		}
	}
}

// complete ends operations in flight, some at a time and in any order.
func (m *machine) complete() {
	m.pass(time.Duration(m.rng.IntN(20)) * time.Millisecond)

	if len(m.hangs.drives) > 0 {
		m.pass(time.Duration(m.rng.IntN(500)) * time.Millisecond)
	}

	for n := 1 + m.rng.IntN(3); n > 0 && len(m.flying) > 0; n-- {
		i := m.rng.IntN(len(m.flying))

		o := m.flying[i]
		if m.hanging(o) || o.Record && m.slow && m.rng.IntN(5) > 0 {
			continue
		}

		m.flying[i] = m.flying[len(m.flying)-1]
		m.flying = m.flying[:len(m.flying)-1]

		if m.rng.IntN(200) == 0 {
			m.w.saw("again")
			m.Again(o.ID)

			continue
		}

		late := m.ends(o)
		fault := m.carryOut(o)

		if m.flights[o.ID].kind == recording && o.Op == stripe.Write && fault == stripe.None && !late {
			if m.keeper.left--; m.keeper.left == 0 {
				m.witnessed()
			}
		}

		m.Complete(o.ID, fault)
	}

	m.rechunk()
	m.pump()
}

// rechunk asks again for another bitmap, if it had to wait.
func (m *machine) rechunk() {
	if m.chunk == 0 {
		return
	}

	if done, err := m.Rechunk(m.chunk); done || err != nil {
		if m.chunk = 0; done {
			m.w.saw("rechunk")
			m.w.say("a bit stands for another chunk")
		}
	}
}

// carryOut does what o asks for, which a drive that died on the way may have
// done as well.
func (m *machine) carryOut(o op) stripe.Fault {
	d := o.drive
	if d == nil || d.dead && m.rng.IntN(2) == 0 {
		return stripe.Gone
	}

	fault := stripe.None

	switch o.Op {
	case stripe.Read:
		if !d.readable(o.Sector, raid.Sectors(len(o.Data)/raid.SectorSize)) {
			fault, m.hurt = stripe.Medium, true
		}

		for i := range len(o.Data) / raid.SectorSize {
			copy(o.Data[i*raid.SectorSize:], d.read(o.Sector + raid.Sectors(i))[:])
		}
	case stripe.Write, stripe.Discard, stripe.WriteZeroes:
		data := o.content()

		if o.Op != stripe.Discard && !d.writable(o.Sector, raid.Sectors(len(data)/raid.SectorSize)) {
			fault, m.hurt = stripe.Medium, true
			data = data[:m.rng.IntN(len(data)/raid.SectorSize)*raid.SectorSize]
		}

		d.write(o.Sector, data, o.FUA)

		if m.isLog(o) && fault == stripe.None {
			m.w.logs.used[d] = true
		}
	case stripe.Flush:
		d.flush(o.mark)
	}

	if d.dead {
		return stripe.Gone
	}

	return fault
}

// add gives the array a drive as a spare.
func (m *machine) add(d *drive, uuid raid.UUID) {
	delete(m.recorded, d)
	delete(m.failed, d)
	delete(m.sound, d)

	_, err := m.Add(d.source(), uuid, func(id engine.DeviceID) error {
		m.drives[id] = d

		return nil
	})
	if err != nil {
		m.w.wrong("%v", err)
	}

	m.pump()
}

// readd gives a drive that was a member back its slot, if it can be known what
// it missed.
func (m *machine) readd(d *drive, sb *metadata.Superblock) bool {
	_, err := m.Readd(metadata.Attachment{Superblock: sb, Source: d.source()}, func(id engine.DeviceID) error {
		delete(m.recorded, d)
		delete(m.failed, d)
		delete(m.sound, d)
		m.drives[id] = d

		return nil
	})

	switch {
	case errors.Is(err, ErrStale):
		return false
	case err != nil:
		m.w.wrong("%v", err)
	}

	m.pump()

	return true
}

// remove lets go of a device that is faulty or a spare.
func (m *machine) remove(id engine.DeviceID) {
	if m.Remove(id) == nil {
		delete(m.drives, id)
	}

	m.pump()
}

// cut takes the power: what is in flight may be there or not, in part.
func (m *machine) cut(all []*drive) {
	for _, o := range m.flying {
		if o.Op != stripe.Read && o.Op != stripe.Flush && o.drive != nil {
			o.drive.write(o.Sector, o.content(), false)
		}
	}

	keep := []int{0, 10, 50, 90, 100}[m.rng.IntN(5)]
	for _, d := range all {
		d.cut(m.rng, keep)
	}
}

func (m *machine) String() string {
	text := fmt.Sprintf("%s sync=%s", m.array.State(), m.array.Syncing().Action)

	if heir, s := m.array.Successor(); s.Device != engine.None {
		text += fmt.Sprintf(" successor of %d: device %d", heir, s.Device)
	}

	for slot, member := range m.array.Members() {
		text += fmt.Sprintf(" %d:%s", slot, member.State)

		if d := m.drives[member.Device]; d != nil {
			text += fmt.Sprintf("(drive %d, dead %v)", d.name, d.dead)
		}
	}

	return text
}
