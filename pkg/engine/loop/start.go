package loop

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/core"
	"raid-assembler/pkg/engine/crashlog"
	"raid-assembler/pkg/engine/member"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/engine/ublk"
	"raid-assembler/pkg/engine/uring"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// Start makes the array's block device and serves it.
func Start(ctx context.Context, cfg Config) (*Loop, error) {
	l := &Loop{
		cfg: cfg, disks: make(map[engine.DeviceID]*member.Device),
		mail: make(chan func(), 64), done: make(chan struct{}),
	}

	if err := l.prepare(); err != nil {
		return nil, err
	}

	if err := l.addDevice(ctx); err != nil {
		return nil, errors.Join(err, l.arena.Close(), l.wake.Close())
	}

	ready := make(chan error, 1)
	go l.run(ready)

	if err := <-ready; err != nil {
		if l.recovers() {
			return nil, err
		}

		return nil, errors.Join(err, l.cfg.Control.DelDevAsync(ctx, l.device))
	}

	if err := l.announce(ctx); err != nil {
		if l.recovers() {
			return nil, errors.Join(err, l.HandOver(context.WithoutCancel(ctx)))
		}

		return nil, errors.Join(err, l.Stop(ctx))
	}

	return l, nil
}

// clientsFirst is how long an array that was taken over does only what it is asked for: its
// clients have waited.
const clientsFirst = 3 * time.Second

// recovers reports whether the device is there already, and in use: whatever goes wrong,
// it is left to the next engine.
func (l *Loop) recovers() bool { return l.cfg.Recover != ublk.AnyDevice }

// syncAfter is how long nothing is synced.
func (l *Loop) syncAfter() time.Duration {
	if l.recovers() {
		return clientsFirst
	}

	return 0
}

// prepare allocates all that the I/O path will use.
func (l *Loop) prepare() error {
	scratchPieces, records := max(pieces, len(l.cfg.Setup.Members)+2), recordOps(len(l.cfg.Setup.Members))
	cfg := core.Config{
		Geometry: l.cfg.Geometry, Setup: l.cfg.Setup, Chunk: l.cfg.Chunk, Keeper: l.cfg.Keeper, Depth: Depth,
		Notify: l.notice, Turns: l.cfg.Turns, SyncAfter: l.syncAfter(),
	}

	// Everything twice: the spares are touched only when a member does not answer.
	arena, err := l.newArena(&cfg, 2*(Depth*MaxIO+scratchPieces*pieceSize+records*recordSize+
		len(l.cfg.Setup.Members)*logMax)+1<<16)
	if err != nil {
		return err
	}

	l.arena = arena

	for _, d := range l.cfg.Devices {
		l.disks[d.ID] = d.Member
		cfg.Devices = append(cfg.Devices, core.Device{
			ID: d.ID, Offset: d.Offset, WriteMostly: d.WriteMostly, FailFast: d.FailFast,
			BadBlocks: d.BadBlocks,
		})
	}

	if err := l.allocate(&cfg, scratchPieces, records); err != nil {
		return err
	}

	l.own, l.scratch = slices.Concat(cfg.Scratch, cfg.Records, cfg.Logs), cfg.Scratch
	cfg.Generation = uint64(time.Now().UnixNano())

	for i := range l.ticks {
		if l.ticks[i], err = arena.Timespec(); err != nil {
			return err
		}
	}

	if l.cfg.Container != nil {
		l.seat = l.cfg.Container.Join(func() { _ = l.signal() }) // an array that has ended has left
		cfg.Seat = l.seat
	}

	if l.core, err = core.New(cfg); err != nil {
		return err
	}

	if err := l.keepLog(); err != nil {
		return err
	}

	l.wake, err = uring.NewWake()

	return err
}

// allocate takes memory of the arena for the data path, the records and the logs.
func (l *Loop) allocate(cfg *core.Config, scratchPieces, records int) (err error) {
	for _, b := range []struct {
		list    *[][]byte
		n, size int
	}{
		{&cfg.Scratch, scratchPieces, pieceSize},
		{&cfg.Records, records, recordSize},
		{&cfg.Spares.Requests, Depth, MaxIO},
		{&cfg.Spares.Scratch, scratchPieces, pieceSize},
		{&cfg.Spares.Records, records, recordSize},
	} {
		if *b.list, err = blocks(l.arena, b.n, b.size); err != nil {
			return err
		}
	}

	for _, list := range []*[][]byte{&cfg.Logs, &cfg.Spares.Logs} {
		if *list, err = l.logs(); err != nil {
			return err
		}
	}

	return nil
}

// keepLog has the crash log be kept, or take its place in what is kept already: not before
// it tells the truth, since until then that of the engine before does.
func (l *Loop) keepLog() error {
	switch {
	case l.crash == nil:
	case l.log != nil:
		return errors.Join(l.cfg.Keep(l.log), l.log.Close()) // the memory is mapped
	case l.seat != nil:
		l.seat.Publish(l.crash)
	default:
		l.crash.Publish()
	}

	return nil
}

// newArena returns the memory of an array, which outlives the process, and begins with the
// crash log. It is that of the engine before, if that had as much: where the host swaps to
// the array, there may be no other until requests are served. What that engine has in flight
// may still be written from it, and read into it, until the device is taken over: nothing of
// it is written to before, but for the log.
func (l *Loop) newArena(cfg *core.Config, size int) (*uring.Arena, error) {
	if l.cfg.Keep == nil {
		return uring.NewArena(uring.ArenaConfig{Size: size})
	}

	writes, slots := stripe.Writes(Depth), len(cfg.Setup.Members)
	head := crashlog.Size(writes, slots)
	size += head + 1<<16

	file, begin := l.cfg.Left.Memory(writes, slots, size), crashlog.Replace
	if file == nil || !l.recovers() {
		var err error
		if file, err = uring.SharedMemory("raid-engine", size); err != nil {
			return nil, err
		}

		l.log, begin = file, crashlog.New
	}

	arena, err := uring.NewArena(uring.ArenaConfig{Size: size, File: file})
	if err != nil {
		return nil, err
	}

	block, err := arena.Block(head)
	if err == nil {
		l.crash, err = begin(block, writes, slots, arena.Offset)
	}

	if err != nil {
		return nil, errors.Join(err, arena.Close())
	}

	if cfg.Setup.Level.HasParity() {
		cfg.CrashLog = l.crash
	}

	return arena, nil
}

// logMax is the most of a partial parity log that is used at a time, as md has
// it.
const logMax = 128 << 10

// logs returns memory for the partial parity logs, if the array has some.
func (l *Loop) logs() ([][]byte, error) {
	if len(l.cfg.Devices) == 0 {
		return nil, nil
	}

	log := l.cfg.Keeper.Log(metadata.MemberID(l.cfg.Devices[0].ID))
	if log == nil {
		return nil, nil
	}

	return blocks(l.arena, len(l.cfg.Setup.Members), int(min(log.Size.Bytes(), logMax)))
}

// blocks returns n blocks of an arena.
func blocks(arena *uring.Arena, n, size int) ([][]byte, error) {
	list := make([][]byte, n)

	for i := range list {
		var err error
		if list[i], err = arena.Block(size); err != nil {
			return nil, err
		}
	}

	return list, nil
}

// addDevice makes the ublk device, or prepares the one that lost its server.
func (l *Loop) addDevice(ctx context.Context) error {
	ctl := l.cfg.Control

	ctx, cancel := context.WithTimeout(ctx, TakeOverMax)
	defer cancel()

	if l.recovers() {
		return l.takeOver(ctx)
	}

	info, err := ctl.AddDev(ctx, ublk.DevInfo{
		ID: ublk.AnyDevice, Queues: 1, Depth: Depth, MaxIO: MaxIO,
		Features: ublk.UserRecovery | ublk.UserRecoveryReissue,
	})
	if err != nil {
		return err
	}

	l.info, l.device = info, info.ID

	err = ctl.SetParams(ctx, info.ID, l.params())
	if err == nil {
		err = l.open(ctx)
	}

	if err != nil {
		return errors.Join(err, ctl.DelDevAsync(context.WithoutCancel(ctx), info.ID))
	}

	return nil
}

// TakeOverMax is how long the old engine's last transfers may take to end: a
// disk that does not answer holds them for the SCSI layer's patience.
const TakeOverMax = 3 * time.Minute

// takeOver waits until all that the old engine had in flight has ended.
func (l *Loop) takeOver(ctx context.Context) error {
	l.device = l.cfg.Recover

	for {
		err := l.cfg.Control.StartUserRecovery(ctx, l.device)
		if err == nil {
			break
		}

		if !errors.Is(err, unix.EBUSY) {
			return err
		}

		select {
		case <-time.After(coarse):
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		}
	}

	info, err := l.cfg.Control.DevInfo(ctx, l.device)
	if err != nil {
		return err
	}

	l.info = info

	return l.open(ctx)
}

func (l *Loop) open(ctx context.Context) error {
	server, err := ublk.OpenDevice(ctx, l.info)
	if err != nil {
		return err
	}

	l.server = server

	return nil
}

// params describe the array to the block layer.
func (l *Loop) params() ublk.Params {
	block := raid.Sectors(l.cfg.Block / raid.SectorSize)

	p := ublk.Params{
		Sectors:      uint64(l.cfg.Geometry.ArraySectors() / block * block),
		LogicalBlock: l.cfg.Block, PhysicalBlock: max(4096, l.cfg.Block),
		MinimumIO: max(4096, l.cfg.Block), OptimalIO: max(4096, l.cfg.Block),
		MaxSectors: MaxIO / raid.SectorSize,
	}

	if chunk := l.cfg.Chunk.Bytes(); powerOfTwo(chunk) {
		p.MinimumIO = int(chunk)
		p.OptimalIO = int(chunk)

		if row := l.cfg.Geometry.StripeSectors().Bytes(); powerOfTwo(row) {
			p.OptimalIO = int(row)
		}
	}

	// A large write is cut at the ends of rows: cut elsewhere, its pieces would
	// each be a part of a row, whose rest has to be read for the parity.
	if row := l.cfg.Geometry.RowSectors(); l.cfg.Setup.Level.HasParity() && row.Bytes() <= MaxIO {
		p.ChunkSectors = uint32(row)
	}

	p.Discard = l.discard()

	return p
}

const (
	// zeroMax and discardMax bound how long one request holds its range.
	zeroMax    = 4 << 20 / raid.SectorSize
	discardMax = 64 << 20 / raid.SectorSize
)

// discard describes requests without data. Parity would have to be made of what
// is given up; and a member that cannot unmap would be written as a whole.
func (l *Loop) discard() *ublk.DiscardParams {
	p := &ublk.DiscardParams{Granularity: uint32(max(4096, l.cfg.Block)), MaxWriteZeroesSectors: zeroMax}
	if l.cfg.Setup.Level.HasParity() {
		return p
	}

	for _, d := range l.disks {
		if !d.Unmaps {
			return p
		}
	}

	p.MaxSectors = discardMax

	return p
}

func powerOfTwo(n int64) bool { return n > 0 && n&(n-1) == 0 }

// announce makes the block device appear. The thread serves already: whoever
// hears of the device reads it at once.
func (l *Loop) announce(ctx context.Context) error {
	ctl := l.cfg.Control

	if l.recovers() {
		// It has begun, and may take effect whoever waits for it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), TakeOverMax)
		defer cancel()

		return ctl.EndUserRecovery(ctx, l.device, os.Getpid())
	}

	if l.cfg.Claim != nil {
		if err := l.cfg.Claim(l.device); err != nil {
			return err
		}
	}

	if err := ctl.StartDev(ctx, l.device, os.Getpid()); err != nil {
		return err
	}

	// The array is there. What follows freezes its queue, which takes the
	// kernel a while, and helps only when an engine dies.
	l.tuning.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), TakeOverMax)
		defer cancel()

		_ = ctl.SetQueue(ctx, l.device, ublk.QueueAttributes{Scheduler: "none", IOTimeout: time.Second})
	})

	return nil
}

// workersMax is how many operations may wait in threads of the kernel. Those do
// that find the queue of a member full, as one that does not answer soon is, and
// all flushes. The usual few threads would be taken by the one member, and the
// others would look as if they did not answer either.
const workersMax = 512

// completionsMax is the most completions that a ring has room for; the kernel finds memory
// for more.
const completionsMax = 4096

// completions is how many the ring of an array has room for: of all that is in flight, of as
// much that was given up, and of the queue.
func completions(level raid.Level, slots int) int {
	return min(completionsMax, 2*(Depth+core.OperationsMax(level, Depth, slots, recordOps(slots))))
}

// setUp makes the ring, which must be of this thread.
func (l *Loop) setUp() (err error) {
	setup := &l.cfg.Setup

	l.ring, err = uring.New(uring.Config{
		Entries: 512, CQEntries: uint32(completions(setup.Level, len(setup.Members))),
	})
	if err != nil {
		return err
	}

	if err := l.ring.RegisterFiles(2 + core.DeviceMax); err != nil {
		return err
	}

	if _, err := l.ring.RegisterMaxWorkers(uring.Workers{Bounded: workersMax}); err != nil {
		return err
	}

	l.pins = newPins(l.ring, l.arena)

	l.queue, err = ublk.NewQueue(l.server, ublk.QueueConfig{
		Ring: l.ring, Slot: 0, Arena: l.arena, UserData: kindQueue,
		// An engine that dies while the kernel reads partition tables would
		// leave START_DEV, and with it the device, stuck for good on 6.12. Udev
		// reads them instead, later.
		NoScan: true,
	})
	if err != nil {
		return err
	}

	l.own = append(l.own, l.queue.Buffers()...)

	if err := l.server.Close(); err != nil {
		return err
	}

	for id, d := range l.disks {
		if err := l.ring.UpdateFile(fileSlot(id), d.FD()); err != nil {
			return err
		}
	}

	if err := l.ring.WarmUp(Depth); err != nil {
		return err
	}

	if err := l.queue.Fetch(); err != nil {
		return err
	}

	l.armWake()
	l.core.Start(time.Now())

	return l.pump()
}
