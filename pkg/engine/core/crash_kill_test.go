package core

import (
	"bytes"
	"io"
	"slices"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/crashlog"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/raid"
)

// leftover is memory that a process which is killed leaves: the head of its crash log,
// and after that what it writes from.
type leftover struct {
	head   []byte
	log    *crashlog.Log // whose head it is, or will be; nil without parity
	blocks [][]byte      // each at a multiple of crashBuffer
}

const leftoverHead = 1 << 16

// forgetful is a crash log that forgets what is being written.
type forgetful struct{ CrashLog }

func (forgetful) Begin(int, raid.Range, [][]byte) {}

// withLog completes a configuration by a crash log, where there is parity: in the place of
// that of a process that was killed, if w has one.
func (s *leftover) withLog(w *world, cfg *Config, buffers [][]byte) {
	if !cfg.Setup.Level.HasParity() {
		return
	}

	begin := crashlog.New
	if s.head = make([]byte, leftoverHead); w.left != nil {
		s.head, begin = w.m.memory.head, crashlog.Replace
	}

	s.blocks = slices.Concat(cfg.Scratch, buffers, cfg.Logs, cfg.Spares.Scratch, cfg.Spares.Requests, cfg.Spares.Logs)

	var err error
	s.log, err = begin(s.head, stripe.Writes(crashDepth), len(cfg.Setup.Members), s.offset)
	if err != nil {
		panic(err)
	}

	if cfg.CrashLog = s.log; w.ignored&ruleNoted != 0 {
		cfg.CrashLog = forgetful{s.log}
	}
}

// offset says where memory is.
func (s *leftover) offset(part []byte) int {
	for i, b := range s.blocks {
		if at := stripe.Within(b, part); at >= 0 {
			return leftoverHead + i*crashBuffer + at
		}
	}

	panic("memory of nobody is written to rows")
}

// snapshot returns all of it.
func (s *leftover) snapshot() io.ReaderAt {
	all := make([]byte, leftoverHead+len(s.blocks)*crashBuffer)
	copy(all, s.head)

	for i, b := range s.blocks {
		copy(all[leftoverHead+i*crashBuffer:], b)
	}

	return bytes.NewReader(all)
}

// kill ends the process: what had been submitted is done, what had not never will be,
// and nothing that a drive has completed is lost.
func (w *world) kill() {
	w.happens()
	w.saw("kill")
	w.say("the process is killed: %v", w.m)

	for _, o := range w.m.flying {
		if !w.m.hangs.drives[o.drive] && w.rng.IntN(2) == 0 {
			w.m.carryOut(o)
		}
	}

	w.logs.end(w.m)

	var err error
	if w.left, err = crashlog.Read(w.m.memory.snapshot()); err != nil {
		w.wrong("%v", err)
	}

	if w.left.Writes() > 0 {
		w.saw("kill-in-write")
	}

	w.comeBack()

	if w.m.powerless {
		w.forgetUnflushed()
	}
}

// restore does again what a process that was killed was writing. Then parity is right,
// so that nothing has to be refused.
func (w *world) restore(use []found, setup *engine.Setup) {
	before := setup.Resynced

	var devices []LoggedDevice
	for _, f := range use {
		devices = append(devices, LoggedDevice{Storage: supplied{f.drive, w}, Offset: f.DataOffset})
	}

	w.logs.power = -1
	if err := Restore(w.left, setup, devices, w.inAnyOrder); err != nil {
		w.wrong("%v", err)
	}

	if setup.Resynced != before {
		w.saw("told-degraded")
	}
}

// inAnyOrder does all, until one fails.
func (w *world) inAnyOrder(each []func() error) error {
	w.rng.Shuffle(len(each), func(i, j int) { each[i], each[j] = each[j], each[i] })

	for _, do := range each {
		if err := do(); err != nil {
			return err
		}
	}

	return nil
}
