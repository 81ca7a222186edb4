package core

import (
	"fmt"
	"slices"
	"time"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/raid"
)

const (
	// slowFloor is below what no member is slow, however fast its peers are.
	slowFloor = 50 * time.Millisecond
	// slowFactor is how many times as long as its peers a slow member takes.
	slowFactor = 8
	// judgeEvery is how often members are compared, judgeReads how many reads of
	// a member that takes, and judgeTimes how often in a row it has to be slow.
	judgeEvery = time.Second
	judgeReads = 16
	judgeTimes = 3
	// probeEvery is how often a slow member is asked whether it still is, and
	// probesGood how often in a row it has to be fast.
	probeEvery = time.Second
	probesGood = 10
	probeSize  = 8 * raid.SectorSize
)

// pulse is how fast a device has been of late.
type pulse struct {
	latency time.Duration // of reads: a moving mean
	reads   int           // since it was judged
	strikes int           // in a row that it was found to be slow
	slow    bool
	since   time.Time // it is slow
	good    int       // probes in a row that were fast
}

// slowness finds the members that are much slower to read than their peers, has
// others read in their place, and looks now and then whether they have
// recovered. Writes go to them as before, and only their reads are judged: these
// a cache cannot make good for long.
type slowness struct {
	pulses  []pulse // by device
	judgeAt time.Time
	peers   []time.Duration
	probing bool
	probeAt time.Time
	place   uint64 // of the last probe, in a pseudo-random walk
	any     bool   // some member is slow
}

func newSlowness(disks int) slowness {
	return slowness{peers: make([]time.Duration, 0, disks)}
}

// sampled takes how long a read took.
func (s *slowness) sampled(id engine.DeviceID, took time.Duration) {
	p := &s.pulses[id]
	if p.reads++; p.latency == 0 {
		p.latency = took
	}

	p.latency += (took - p.latency) / 16
}

// judge compares the members, and asks the slow ones, when it is time.
func (c *Core) judge() {
	s := &c.slowness
	if c.now.Before(s.judgeAt) {
		return
	}

	s.judgeAt = c.now.Add(judgeEvery)
	s.any = false

	for slot := range c.array.Members() {
		c.judgeMember(raid.Slot(slot))
	}

	for i := range s.pulses {
		if p := &s.pulses[i]; p.reads >= judgeReads {
			p.reads = 0
		}
	}
}

// judgeMember finds out whether the member of a slot is slow.
func (c *Core) judgeMember(slot raid.Slot) {
	s := &c.slowness

	m := c.array.Members()[slot]
	if m.Device == engine.None {
		return
	}

	p := &s.pulses[m.Device]

	switch peers := c.peersOf(slot); {
	case m.State != raid.InSync:
		*p = pulse{}
	case p.slow:
		s.any = true
		c.probe(m.Device)
	case p.reads < judgeReads || peers == 0:
	case p.latency < slowFloor || p.latency < slowFactor*peers:
		p.strikes = 0
	default:
		if p.strikes++; p.strikes >= judgeTimes && c.spareable(m.Device) {
			p.slow, p.since, p.good = true, c.now, 0
			s.any = true
			c.setMember(slot)
			c.tell(engine.NoteSlow, m.Device, slot, fmt.Sprintf("reads take %v, those of its peers %v",
				p.latency.Round(time.Millisecond), peers.Round(time.Millisecond)))
		}
	}
}

// peersOf returns how long reads of the other members take: the median of those
// that are known, or 0 if none is.
func (c *Core) peersOf(slot raid.Slot) time.Duration {
	s := &c.slowness
	s.peers = s.peers[:0]

	for i, m := range c.array.Members() {
		if raid.Slot(i) == slot || m.State != raid.InSync || c.disks[m.Device].WriteMostly {
			continue
		}

		if p := &s.pulses[m.Device]; p.latency > 0 && !p.slow {
			s.peers = append(s.peers, p.latency)
		}
	}

	if len(s.peers) == 0 {
		return 0
	}

	slices.Sort(s.peers)

	return max(s.peers[len(s.peers)/2], time.Microsecond)
}

// spareable reports whether all can be read without a device and the slow ones.
func (c *Core) spareable(id engine.DeviceID) bool {
	return c.array.Survives(func(other engine.DeviceID) bool {
		return other == id || c.slowness.pulses[other].slow
	})
}

// probe reads a block of a slow member, somewhere else each time: one that its
// cache holds would tell nothing.
func (c *Core) probe(id engine.DeviceID) {
	s := &c.slowness
	spares := c.cfg.Spares.Records

	if s.probing || c.now.Before(s.probeAt) || c.closed || len(spares) == 0 || len(spares[0]) < probeSize {
		return
	}

	buf := spares[len(spares)-1]
	c.cfg.Spares.Records = spares[:len(spares)-1]
	s.probing, s.probeAt = true, c.now.Add(probeEvery)
	s.place = s.place*6364136223846793005 + 1442695040888963407

	blocks := uint64(c.cfg.Setup.Size / minGrain)
	at := c.disks[id].Offset + raid.Sectors(s.place>>16%max(blocks, 1))*minGrain
	c.operate(Operation{Device: id, Op: stripe.Read, Sector: at, Data: buf[:probeSize]}, probing)
}

// probed takes the answer of a slow member.
func (c *Core) probed(f flight, fault stripe.Fault) {
	s := &c.slowness
	s.probing = false
	c.cfg.Spares.Records = append(c.cfg.Spares.Records, f.Data[:cap(f.Data)])

	p := &s.pulses[f.Device]

	slot := slices.IndexFunc(c.array.Members(), func(m engine.Member) bool { return m.Device == f.Device })
	if slot < 0 || !p.slow || f.late {
		return
	}

	took := c.deadliner.waited - f.since

	if peers := c.peersOf(raid.Slot(slot)); fault != stripe.None || took > slowFloor/2 && took > 2*peers {
		p.good = 0

		return
	}

	if p.good++; p.good >= probesGood && c.array.Members()[slot].State == raid.InSync {
		*p = pulse{}
		c.setMember(raid.Slot(slot))
		c.tell(engine.NoteSlowEnd, f.Device, raid.Slot(slot), "")
	}
}

// tell reports something that the state machine has no part in.
func (c *Core) tell(note engine.Note, id engine.DeviceID, slot raid.Slot, why string) {
	if c.cfg.Notify != nil {
		c.cfg.Notify(Notice{Report: engine.Report{Note: note, Device: id, Slot: slot}, Cause: why})
	}
}

// slowMembers returns the devices that others are read in place of.
func (c *Core) slowMembers() []engine.DeviceID {
	var list []engine.DeviceID

	for id := range c.slowness.pulses {
		if c.slowness.pulses[id].slow {
			list = append(list, engine.DeviceID(id))
		}
	}

	return list
}
