package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/crashlog"
	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/engine/loop"
	"raid-assembler/pkg/engine/member"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/engine/ublk"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// candidate is a device that is claimed for an array about to start.
type candidate struct {
	dev    *member.Device
	format metadata.Format
	sb     *metadata.Superblock
	asked  api.StartMember
}

// Start starts an array. Returns an error wrapping [ErrRefused] if what the
// members say forbids it; then nothing was written.
func (h *Host) Start(ctx context.Context, p api.StartParameters) (api.Array, error) {
	return h.begin(ctx, p, false)
}

// begin starts an array: as it was asked for, or as an engine before has left it.
func (h *Host) begin(ctx context.Context, p api.StartParameters, inherited bool) (api.Array, error) {
	uuid, err := raid.ParseUUID(p.UUID)
	if err != nil {
		return api.Array{}, fmt.Errorf("%w: %w", err, ErrRefused)
	}

	r, err := h.reserve(uuid, p)
	if err != nil {
		return api.Array{}, err
	}

	defer close(r.started)

	r.inherited = inherited

	if err := h.start(ctx, uuid, r, p); err != nil {
		h.mu.Lock()
		delete(h.arrays, uuid)
		h.mu.Unlock()
		r.leave()

		return api.Array{}, err
	}

	h.touch()

	return h.describe(uuid, r)
}

// reserve makes sure that an array is started once.
func (h *Host) reserve(uuid raid.UUID, p api.StartParameters) (*running, error) {
	h.mu.Lock()
	defer h.mu.Unlock()

	name := p.Name

	if h.ending {
		return nil, fmt.Errorf("raid-engine is ending: %w", ErrRefused)
	}

	if _, ok := h.arrays[uuid]; ok {
		return nil, fmt.Errorf("array %s runs already, or is being started: %w", uuid, ErrRefused)
	}

	for _, r := range h.arrays {
		if r.name == name {
			return nil, fmt.Errorf("another array is called %q: %w", name, ErrRefused)
		}
	}

	if !api.ValidName(name) {
		return nil, fmt.Errorf("%q cannot be the name of an array: %w", name, ErrRefused)
	}

	r := &running{
		name: name, devices: make(map[engine.DeviceID]*member.Device), mostly: make(map[engine.DeviceID]bool),
		notices: make(chan loop.Notice, 64), asked: p.Members, started: make(chan struct{}),
	}

	for _, other := range h.arrays {
		if other.loop == nil && overlaps(other.asked, r.asked) {
			r.earlier = append(r.earlier, other)
		}
	}

	h.arrays[uuid] = r

	if h.cfg.Threads != nil {
		h.cfg.Threads(len(h.arrays))
	}

	return r, nil
}

func (h *Host) start(ctx context.Context, uuid raid.UUID, r *running, p api.StartParameters) error {
	if err := r.wait(ctx); err != nil {
		return err
	}

	all, cfg, err := h.prepare(ctx, uuid, r, p)
	if err != nil {
		return errors.Join(err, closeAll(all))
	}

	cfg.Control = h.cfg.Control
	cfg.Notify = func(n loop.Notice) {
		select {
		case r.notices <- n:
		default: // the array must not wait for whoever listens
		}
	}
	cfg.Keep, cfg.Left = h.keepLog(uuid), h.leftBy(uuid)
	cfg.Claim = h.claimFile(uuid, r.name, cfg.Setup.Level)
	cfg.Recover = h.abandoned(ctx, uuid)

	if r.inherited && cfg.Recover == ublk.AnyDevice {
		return errors.Join(fmt.Errorf("its block device is gone: %w", ErrRefused), closeAll(all))
	}

	cfg.Turns = h.turnsOf(r)
	cfg.Container = r.turns

	if cfg.Recover != ublk.AnyDevice && refusesWrites(cfg.Recover) {
		cfg.Setup.ReadOnly = true // as it was with the engine before
	}

	for _, d := range cfg.Devices {
		h.turns.has(r, d.Member.Path)
	}

	l, err := loop.Start(ctx, cfg)
	if err != nil {
		h.turns.forget(r)
		h.readAgain(uuid)

		return errors.Join(err, closeAll(all))
	}

	h.mu.Lock()
	for _, d := range cfg.Devices {
		r.devices[d.ID], r.mostly[d.ID] = d.Member, d.WriteMostly

		go h.hidePartitions(r, uuid, d.Member)
	}

	r.first, r.format, r.size, r.loop = all[0].sb, all[0].format.Name(), cfg.Geometry.ArraySectors(), l
	h.mu.Unlock()

	h.tellStarted(uuid, r, cfg)
	h.forgetLeft(uuid)

	go h.watch(uuid, r)

	return nil
}

func closeAll(all []candidate) error {
	var errs []error

	for _, c := range all {
		errs = append(errs, c.dev.Close())
	}

	return errors.Join(errs...)
}

// prepare opens the devices, and makes of what they say how the array is to be
// run.
func (h *Host) prepare(
	ctx context.Context, uuid raid.UUID, r *running, p api.StartParameters,
) ([]candidate, loop.Config, error) {
	all, neighbour, err := h.claim(ctx, r, p.Members)
	if err != nil {
		return all, loop.Config{}, err
	}

	done, err := quiet(ctx, neighbour)
	if err != nil {
		return all, loop.Config{}, err
	}

	defer done()

	if err := h.read(uuid, all); err != nil {
		return all, loop.Config{}, err
	}

	slices.SortStableFunc(all, byFreshness)

	if r.inherited {
		var useless []candidate
		all, useless = inherit(all)

		if err := closeAll(useless); err != nil {
			return all, loop.Config{}, err
		}
	}

	container := all[0].sb.Container
	if neighbour != nil && neighbour.container != container {
		return all, loop.Config{}, fmt.Errorf("array %s has a device of this one, and is of another container: %w",
			neighbour.name, ErrRefused)
	}

	beside, err := h.join(r, container)
	if err != nil {
		return all, loop.Config{}, err
	}

	r.left = h.leftOf(uuid, all[0].sb, neighbour)
	cfg, err := h.plan(all, p, r.left, beside...)
	r.keeper = cfg.Keeper

	return all, cfg, err
}

// claim opens the devices of r, or shares them with an array of the same container,
// which it returns then.
func (h *Host) claim(
	ctx context.Context, r *running, members []api.StartMember,
) (all []candidate, neighbour *running, err error) {
	open := h.open
	if r.inherited {
		open = released(ctx, open)
	}

	for _, m := range members {
		dev, other, err := open(m.Device, m.Serial)
		if err != nil {
			return all, nil, fmt.Errorf("%w: %w", err, ErrRefused)
		}

		if other != nil {
			neighbour = other
		}

		all = append(all, candidate{dev: dev, asked: m})
	}

	if len(all) == 0 {
		return all, nil, fmt.Errorf("no members: %w", ErrRefused)
	}

	return all, neighbour, nil
}

// opener opens a device, or shares it with an array, which it returns then.
type opener func(path, serial string) (*member.Device, *running, error)

// releaseEvery is how often it is looked whether a device was let go of.
const releaseEvery = 5 * time.Millisecond

// released is open for the devices of an engine that died: the kernel has them for as long
// as something of its rings is in flight, which may be after it has gone.
func released(ctx context.Context, open opener) opener {
	return func(path, serial string) (*member.Device, *running, error) {
		for until := time.Now().Add(loop.TakeOverMax); ; {
			dev, r, err := open(path, serial)
			if !errors.Is(err, member.ErrBusy) || time.Now().After(until) {
				return dev, r, err
			}

			select {
			case <-time.After(releaseEvery):
			case <-ctx.Done():
				return nil, nil, errors.Join(err, ctx.Err())
			}
		}
	}
}

// read reads what the devices say of an array, all at a time: clients may be waiting, and
// a disk takes its time for each of many reads.
func (h *Host) read(uuid raid.UUID, all []candidate) error {
	each := make([]func() error, 0, len(all))
	for i := range all {
		each = append(each, func() error { return all[i].read(h.cfg.Formats, uuid) })
	}

	return atOnce(each)
}

// atOnce does all at a time, and returns the first error of theirs.
func atOnce(each []func() error) error {
	var (
		busy sync.WaitGroup
		errs = make([]error, len(each))
	)

	for i, do := range each {
		busy.Go(func() { errs[i] = do() })
	}

	busy.Wait()

	return cmp.Or(errs...)
}

// read reads what c says of an array. Whoever asked for that knows which of several
// formats counts.
func (c *candidate) read(formats []metadata.Format, uuid raid.UUID) error {
	who := fmt.Sprintf("%s (serial %s)", c.dev.Path, c.dev.Serial)

	var found *metadata.Superblock

	for _, f := range formats {
		sb, err := f.Probe(c.dev.Source())
		if errors.Is(err, metadata.ErrNotFound) {
			continue
		}

		if err != nil {
			return fmt.Errorf("%s: %w: %w", c.dev.Path, err, ErrRefused)
		}

		c.format, found = f, sb

		if c.sb = sb.Of(uuid); c.sb != nil {
			break
		}
	}

	switch {
	case found == nil:
		return fmt.Errorf("%s holds no RAID metadata: %w", who, ErrRefused)
	case c.sb == nil:
		return fmt.Errorf("%s belongs to array %s, not %s: %w", who, found.Array, uuid, ErrRefused)
	case c.sb.Unsupported != "":
		return fmt.Errorf("%s: %s: %w", who, c.sb.Unsupported, ErrRefused)
	default:
		return nil
	}
}

// freshness orders superblocks: those that hold a slot by their own word by
// their event counts, then the spares.
func (c candidate) freshness() int64 {
	if _, ok := c.sb.Role(c.sb.Number).Slot(); !ok {
		return -1
	}

	return int64(c.sb.Events)
}

// byFreshness orders candidates, the freshest first.
func byFreshness(a, b candidate) int { return cmp.Compare(b.freshness(), a.freshness()) }

// plan checks the members against each other and against what was asked, and
// describes the array to be run. left is what an engine that died was writing to it,
// nil if that is not known; beside are the keepers of those of its container.
func (h *Host) plan(
	all []candidate, p api.StartParameters, left *crashlog.Left, beside ...metadata.Keeper,
) (loop.Config, error) {
	best := all[0].sb
	setup := engine.Setup{
		Level: best.Level, Layout: best.Layout, Size: best.Size, Resynced: best.ResyncOffset, ReadOnly: p.ReadOnly,
	}

	for range best.Disks {
		setup.Members = append(setup.Members, engine.Member{Device: engine.None, State: raid.Missing})
	}

	cfg := loop.Config{Chunk: best.Chunk, Block: raid.SectorSize}
	attachments := make([]metadata.Attachment, 0, len(all))

	for i, c := range all {
		if c.format.Name() != all[0].format.Name() {
			return cfg, fmt.Errorf("%s has %s metadata and %s has %s: %w", all[0].dev.Path, best.Format,
				c.dev.Path, c.sb.Format, ErrRefused)
		}

		if err := place(&setup, best, c, engine.DeviceID(i)); err != nil {
			return cfg, err
		}

		cfg.Block = max(cfg.Block, c.dev.Block)
		cfg.Devices = append(cfg.Devices, loop.Device{
			ID: engine.DeviceID(i), Member: c.dev, Offset: c.sb.DataOffset,
			WriteMostly: c.sb.WriteMostly, FailFast: c.sb.FailFast, BadBlocks: c.sb.BadBlocks,
		})
		attachments = append(attachments, metadata.Attachment{Superblock: c.sb, Source: c.dev.Source()})
	}

	if err := complete(&setup, best, p, left != nil); err != nil {
		return cfg, err
	}

	g := best.Geometry
	if g.Level == raid.Level0 || g.Level == raid.LevelLinear {
		g.Sizes = make([]raid.Sectors, g.Disks)
		for slot, m := range setup.Members {
			g.Sizes[slot] = all[m.Device].sb.DataSize
		}
	}

	var err error
	if cfg.Geometry, err = geometry.New(g); err != nil {
		return cfg, fmt.Errorf("%w: %w", err, ErrRefused)
	}

	if err := fit(&setup, cfg); err != nil {
		return cfg, err
	}

	if cfg.Keeper, err = all[0].format.Keep(attachments, beside...); err != nil {
		return cfg, fmt.Errorf("%w: %w", err, ErrRefused)
	}

	cfg.Setup = setup

	resynced, err := restore(all, &cfg, left)
	if err != nil {
		return cfg, err
	}

	return enlarge(all, cfg, g, p, resynced)
}

// enlarge has the array use more of each member, if that was asked for. Until it is
// known that it can, nothing is written: the logs of one that grows are emptied, and
// would be missed by whoever starts it as it is.
func enlarge(
	all []candidate, cfg loop.Config, g raid.Geometry, p api.StartParameters, resynced raid.Sectors,
) (loop.Config, error) {
	if p.GrowTo == nil {
		err := closeHole(all, &cfg, p, resynced)

		return cfg, err
	}

	var err error
	if g.Size, err = grow(&cfg, *p.GrowTo); err != nil {
		return cfg, err
	}

	if err := closeHole(all, &cfg, p, resynced); err != nil {
		return cfg, err
	}

	return grown(cfg, g)
}

// place gives a device the slot that the freshest superblock gives it.
func place(setup *engine.Setup, best *metadata.Superblock, c candidate, id engine.DeviceID) error {
	who := fmt.Sprintf("%s (serial %s)", c.dev.Path, c.dev.Serial)
	role := best.Role(c.sb.Number)
	slot, slotted := role.Slot()

	if slotted != (c.asked.Slot != nil) || (slotted && int(slot) != *c.asked.Slot) {
		return fmt.Errorf("%s is %v by the freshest superblock, which is not what was asked for: %w",
			who, role, ErrRefused)
	}

	if !c.sb.Holds(best) {
		return fmt.Errorf("%s has room for %d sectors, the array uses %d: %w",
			who, c.sb.DataSize, best.Size, ErrRefused)
	}

	if !slotted && role != raid.RoleSpare {
		return fmt.Errorf("%s is %v by the freshest superblock: %w", who, role, ErrRefused)
	}

	if !slotted {
		setup.Spares = append(setup.Spares, id)

		return nil
	}

	if err := c.fits(setup, best, slot); err != nil {
		return fmt.Errorf("%s %w", who, err)
	}

	m := c.member(best, id)

	if c.replaces(best, slot) {
		setup.Successor, setup.Heir, setup.HasSuccessor = m, slot, true
	} else {
		setup.Members[slot] = m
	}

	return nil
}

// fits says why c cannot have the slot that the freshest superblock gives it, if
// so.
func (c candidate) fits(setup *engine.Setup, best *metadata.Superblock, slot raid.Slot) error {
	replaces, role := c.replaces(best, slot), best.Role(c.sb.Number)

	switch own := c.sb.Role(c.sb.Number); {
	case own != role:
		// Only its own superblock says how much of its data is right.
		return fmt.Errorf("is %v by its own superblock and %v by the freshest: %w", own, role, ErrRefused)
	case int(slot) >= len(setup.Members):
		return fmt.Errorf("claims slot %d of %d: %w", slot, len(setup.Members), ErrRefused)
	case replaces && setup.HasSuccessor:
		return fmt.Errorf("is to replace the member in slot %d, as another device is in slot %d: %w",
			slot, setup.Heir, ErrRefused)
	case !replaces && setup.Members[slot].Device != engine.None:
		return fmt.Errorf("claims slot %d, as another device does: %w", slot, ErrRefused)
	case c.sb.Events+1 < best.Events:
		return fmt.Errorf("is stale: event count %d, the freshest has %d: %w", c.sb.Events, best.Events, ErrRefused)
	default:
		return nil
	}
}

// replaces reports whether c is to replace the member in a slot.
func (c candidate) replaces(best *metadata.Superblock, slot raid.Slot) bool {
	return c.sb.Replacement && shared(best, slot)
}

// shared reports whether a superblock gives slot to two devices. A replacement
// that has it to itself by then has only not heard of it.
func shared(sb *metadata.Superblock, slot raid.Slot) bool {
	n := 0

	for _, role := range sb.Roles {
		if held, ok := role.Slot(); ok && held == slot {
			n++
		}
	}

	return n > 1
}

// member returns what c is in its slot, by its own word.
func (c candidate) member(best *metadata.Superblock, id engine.DeviceID) engine.Member {
	if c.sb.RecoveryOffset >= best.Size {
		return engine.Member{Device: id, State: raid.InSync}
	}

	recovered := c.sb.RecoveryOffset

	return engine.Member{
		Device: id, State: raid.Recovering, Recovered: recovered - recovered%grain(best.Chunk), ByBitmap: c.sb.ByBitmap,
	}
}

// succeed lets a device that was to replace one which is not here take its
// place. If it does not hold everything yet, that is a degraded start.
func succeed(setup *engine.Setup, degraded bool) error {
	if !setup.HasSuccessor || setup.Members[setup.Heir].Device != engine.None {
		return nil
	}

	if setup.Successor.State != raid.InSync && !degraded {
		return fmt.Errorf("the device that is to replace the member in slot %d is here, without that: %w",
			setup.Heir, ErrRefused)
	}

	setup.Members[setup.Heir] = setup.Successor
	setup.Successor, setup.HasSuccessor = engine.Member{}, false

	return nil
}

// grain is what positions of a sync are multiples of: whole chunks, and whole
// blocks of any device.
func grain(chunk raid.Sectors) raid.Sectors { return max(chunk, 8) }

// fit makes what is synced begin and end on whole chunks and whole blocks. It
// refuses an array whose chunks or data do not: a member with large blocks takes
// nothing else, and would be taken for faulty.
func fit(setup *engine.Setup, cfg loop.Config) error {
	block := raid.Sectors(cfg.Block / raid.SectorSize)

	if cfg.Chunk%block != 0 {
		return fmt.Errorf("chunks of %d sectors on blocks of %d bytes: %w", cfg.Chunk, cfg.Block, ErrRefused)
	}

	for _, d := range cfg.Devices {
		if d.Offset%block != 0 {
			return fmt.Errorf("%s has its data at sector %d, which is not a multiple of blocks of %d bytes: %w",
				d.Member.Path, d.Offset, cfg.Block, ErrRefused)
		}
	}

	// Of a member's end nothing is used that makes no chunk, or, on a RAID10,
	// no row of all sections.
	if used := cfg.Geometry.ComponentSectors(); used > 0 {
		setup.Size = used
	}

	setup.Size -= setup.Size % block // the rest is beyond the end of the array

	if setup.Level == raid.Level10 {
		setup.SyncSize = cfg.Geometry.SyncSectors()
	}

	if setup.Resynced != raid.MaxSectors {
		setup.Resynced -= setup.Resynced % grain(cfg.Chunk)
	}

	return nil
}

// grow has the records say that the array uses more of each member, as much as
// asked for or all there is, and returns how much that is.
func grow(cfg *loop.Config, bytes int64) (raid.Sectors, error) {
	if slices.ContainsFunc(cfg.Setup.Members, notInSync) {
		return 0, fmt.Errorf("an array grows only with all its members in sync: %w", ErrRefused)
	}

	size, err := cfg.Keeper.Grow(raid.Sectors(bytes / raid.SectorSize))
	if err != nil {
		return 0, fmt.Errorf("%w: %w", err, ErrRefused)
	}

	return size, nil
}

// grown returns the array that is as g says, larger than it was. What is new is
// not in sync.
func grown(cfg loop.Config, g raid.Geometry) (loop.Config, error) {
	cfg.Setup.Resynced = min(cfg.Setup.Resynced, cfg.Geometry.SyncSectors())
	cfg.Setup.Size = g.Size

	var err error
	if cfg.Geometry, err = geometry.New(g); err != nil {
		return cfg, fmt.Errorf("%w: %w", err, ErrRefused)
	}

	return cfg, fit(&cfg.Setup, cfg)
}

// complete checks that enough is there, and settles what can be settled then.
func complete(setup *engine.Setup, best *metadata.Superblock, p api.StartParameters, told bool) error {
	if err := succeed(setup, p.Degraded); err != nil {
		return err
	}

	if err := startable(*setup, best, p, told); err != nil {
		return err
	}

	if p.AcceptLoss && best.Level.HasParity() && slices.ContainsFunc(setup.Members, notInSync) {
		setup.Resynced = raid.MaxSectors // there is nothing that could make it right
	}

	return nil
}

func notInSync(m engine.Member) bool { return m.State != raid.InSync }

// startable says why an array cannot be started from what is there, if so.
func startable(setup engine.Setup, best *metadata.Superblock, p api.StartParameters, told bool) error {
	absent, recovering := 0, 0

	for _, m := range setup.Members {
		switch m.State {
		case raid.Recovering:
			recovering++
		case raid.InSync:
		case raid.Missing, raid.Faulty, raid.Spare, raid.Stale:
			absent++
		}
	}

	survives := best.Geometry.Survives(func(slot raid.Slot) bool { return setup.Members[slot].State == raid.InSync })
	lost := absent + recovering

	switch {
	case best.Disks > stripe.MaxDisks:
		return fmt.Errorf("%d slots, at most %d are served: %w", best.Disks, stripe.MaxDisks, ErrRefused)
	case !survives:
		return fmt.Errorf("%d of %d members are missing or not in sync, which a %v does not survive: %w",
			lost, best.Disks, best.Level, ErrRefused)
	case absent > 0 && !p.Degraded:
		return fmt.Errorf("%d of %d members are missing, and a degraded start was not asked for: %w",
			absent, best.Disks, ErrRefused)
	case lost > 0 && best.Level.HasParity() && !best.Clean() && best.PPL == nil && !told && !p.AcceptLoss:
		return fmt.Errorf("dirty and degraded: the parity that the missing data would be computed from cannot be "+
			"trusted; bring the missing member back, or accept the loss with raid-assembler assemble --accept-loss: %w",
			ErrRefused)
	}

	return nil
}
