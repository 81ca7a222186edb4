package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
	"raid-assembler/pkg/scan"
)

const (
	// startMax is how long a new array may take to run.
	startMax = 30 * time.Second
	// wipeBytes at each end of a device hold all that says what it is.
	wipeBytes = 1 << 20
)

// create makes a new array, and waits until it runs.
func (d *Daemon) create(ctx context.Context, p api.CreateParameters) (api.ChangeReply, error) {
	var out api.ChangeReply

	params, err := d.createParams(p)
	if err != nil {
		return out, fmt.Errorf("%w: %w", err, errRefused)
	}

	var (
		disks  []Disk
		beside string
		bad    error
	)

	if err := d.refresh(ctx); err != nil {
		return out, err
	}

	if err := d.do(ctx, func() { disks, beside, bad = d.createOn(p, params.Version) }); err != nil || bad != nil {
		return out, firstError(err, bad)
	}

	claimed, err := d.claimAll(disks)
	defer func() { closeAll(claimed) }()

	if err != nil {
		return out, err
	}

	uuid, stages, err := plan(params, disks, claimed, p.Force)
	if err != nil {
		return out, fmt.Errorf("%w: %w", err, errRefused)
	}

	what := fmt.Sprintf("%s, a %v of %d with metadata %s on %s%s",
		p.Name, params.Level, params.Disks, params.Version, strings.Join(p.Devices, " "), beside)
	if p.DryRun {
		out.Done = []string{"would create " + what}

		return out, nil
	}

	if err := writeAll(stages, disks, claimed, p.Force); err != nil {
		return out, err
	}

	closeAll(claimed)
	claimed = nil

	out.Done = []string{"created " + what}
	out.Array, err = d.awaitArray(ctx, uuid, disks)

	return out, err
}

// createParams checks what is asked for by itself.
func (d *Daemon) createParams(p api.CreateParameters) (metadata.NewArray, error) {
	level, err := raid.ParseLevel(p.Level)
	if err != nil {
		return metadata.NewArray{}, err
	}

	params := metadata.NewArray{
		Name: p.Name, Host: d.cfg.Hostname, AssumeClean: p.AssumeClean, Now: time.Now(),
		Geometry: raid.Geometry{
			Level: level, Disks: p.Disks, Chunk: raid.Sectors(p.ChunkKiB * 2),
			Size: raid.Sectors(p.SizeBytes / raid.SectorSize),
		},
		UsualLayout: p.Layout == "",
	}

	if _, params.Version, err = scan.Creates(p.Metadata); err != nil {
		return metadata.NewArray{}, err
	}

	if params.Layout, err = raid.ParseLayout(level, p.Layout); err != nil {
		return metadata.NewArray{}, err
	}

	if params.Bitmap, err = parseBitmap(p.Bitmap, level); err != nil {
		return metadata.NewArray{}, err
	}

	if params.PPL = p.PPL; p.PPL && (level != raid.Level5 || params.Bitmap == metadata.BitmapInternal) {
		return metadata.NewArray{}, errors.New("partial parity logs: only raid5 has them, and then no bitmap")
	}

	if p.PPL {
		params.Bitmap = metadata.BitmapNone
	}

	if !api.ValidName(p.Name) {
		return metadata.NewArray{}, fmt.Errorf("name %q: 1 to %d letters, digits, dots, dashes or underscores, "+
			"no dot or dash in front", p.Name, api.NameMax)
	}

	if err := possible(params.Geometry); err != nil {
		return metadata.NewArray{}, err
	}

	_, err = rand.Read(params.Array[:])

	return params, err
}

// parseBitmap reads what kind of bitmap is asked for.
func parseBitmap(text string, level raid.Level) (metadata.BitmapChoice, error) {
	switch {
	case text == "none", text == "" && !level.HasRedundancy():
		return metadata.BitmapNone, nil
	case text == "":
		return metadata.BitmapAuto, nil
	case text == "internal" && level.HasRedundancy():
		return metadata.BitmapInternal, nil
	case text == "internal":
		return 0, fmt.Errorf("bitmap: a %v has no redundancy that could be wrong", level)
	default:
		return 0, fmt.Errorf("bitmap %q: none or internal", text)
	}
}

// The chunks that an array may have.
const (
	chunkMin raid.Sectors = 4 << 10 / raid.SectorSize
	chunkMax raid.Sectors = 64 << 20 / raid.SectorSize
)

// possible says why no array can have the geometry given, whatever the devices
// are, if so.
func possible(g raid.Geometry) error {
	if reason := policy.Served(g); reason != "" {
		return errors.New(reason)
	}

	if g.Chunk == 0 && g.Level.HasChunks() {
		g.Chunk = chunkMin // whatever is usual does no worse
	}

	even := g.Chunk&(g.Chunk-1) == 0 || g.Level == raid.Level0 && g.Chunk%chunkMin == 0

	switch {
	case !g.Level.HasChunks() && g.Chunk != 0:
		return fmt.Errorf("chunk: %v has none", g.Level)
	case g.Level.HasChunks() && (g.Chunk < chunkMin || g.Chunk > chunkMax || !even):
		return fmt.Errorf("chunk of %d KiB: a power of two from %d to %d, or at raid0 a multiple of %d",
			g.Chunk.Bytes()>>10, chunkMin.Bytes()>>10, chunkMax.Bytes()>>10, chunkMin.Bytes()>>10)
	}

	// Any size does, for the devices will say.
	g.Size = max(g.Size, chunkMax)
	for range g.Disks {
		g.Sizes = append(g.Sizes, g.Size)
	}

	_, err := geometry.New(g)

	return err
}

// createOn finds the devices for a new array, and checks that nothing is lost
// that was not given up, and that the name is free. In a container that the
// devices are of, it returns in words which arrays the new one is beside.
func (d *Daemon) createOn(p api.CreateParameters, version string) ([]Disk, string, error) {
	for _, uuid := range d.known() {
		if d.nameOf(uuid) == p.Name {
			return nil, "", fmt.Errorf("there is an array called %s (%v): %w", p.Name, uuid, errRefused)
		}
	}

	var found []*disk

	for _, device := range p.Devices {
		dk, err := d.findDisk(device)
		if err != nil {
			return nil, "", err
		}

		if slices.Contains(found, dk) {
			return nil, "", fmt.Errorf("%s is named twice: %w", dk.Path, errRefused)
		}

		if err := free(dk); err != nil {
			return nil, "", err
		}

		found = append(found, dk)
	}

	beside := ""
	if !p.Force {
		beside = d.containerOf(found, version)
	}

	var disks []Disk

	for _, dk := range found {
		if what := contents(dk); what != "" && !p.Force && beside == "" {
			return nil, "", fmt.Errorf("%s holds %s: with --force that is overwritten: %w",
				diskName(dk.Disk), what, errRefused)
		}

		disks = append(disks, dk.Disk)
	}

	return disks, beside, nil
}

// containerOf says in words which arrays lie on devices that are all of one
// container with metadata of the version given, or nothing if they are not.
func (d *Daemon) containerOf(devices []*disk, version string) string {
	var (
		container raid.UUID
		names     []string
	)

	for _, dk := range devices {
		sb := dk.found.Superblock
		if sb == nil || len(dk.found.Conflicts) > 0 || sb.Format != version || sb.Container.IsZero() {
			return ""
		}

		if container.IsZero() {
			container = sb.Container
		}

		if sb.Container != container {
			return ""
		}

		for _, one := range dk.all() {
			if !one.Array.IsZero() {
				names = append(names, d.nameOf(one.Array))
			}
		}
	}

	slices.Sort(names)

	return ", beside " + strings.Join(slices.Compact(names), " and ")
}

// claimAll opens the devices so that nobody else can.
func (d *Daemon) claimAll(disks []Disk) ([]Claimed, error) {
	var claimed []Claimed

	for _, dk := range disks {
		c, err := d.cfg.Host.Claim(dk)
		if err != nil {
			return claimed, fmt.Errorf("%s: %w: %w", diskName(dk), err, errRefused)
		}

		claimed = append(claimed, c)
	}

	return claimed, nil
}

func closeAll(claimed []Claimed) {
	for _, c := range claimed {
		_ = c.Close() // what was written was synced before
	}
}

// blank is a device that holds nothing.
type blank struct{}

func (blank) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)

	return len(p), nil
}

// plan returns what to write to make the array, and its UUID. By force, what the
// devices hold is of no account.
func plan(
	params metadata.NewArray, disks []Disk, claimed []Claimed, force bool,
) (raid.UUID, [][]metadata.Write, error) {
	format, _, err := scan.Creates(params.Version)
	if err != nil {
		return raid.UUID{}, nil, err
	}

	var members []metadata.NewMember

	for i, dk := range disks {
		m := metadata.NewMember{Source: metadata.Source{
			ReaderAt: claimed[i], Size: dk.Size, Block: dk.Block, Serial: dk.Serial,
		}}

		if force {
			m.ReaderAt = blank{}
		}

		if _, err := rand.Read(m.Device[:]); err != nil {
			return raid.UUID{}, nil, err
		}

		members = append(members, m)
	}

	return format.Create(params, members)
}

// writeAll writes the metadata, each stage after the one before is durable. By
// force, what else the devices hold is erased first, so that they are not two
// things afterwards.
func writeAll(stages [][]metadata.Write, disks []Disk, claimed []Claimed, force bool) error {
	if force {
		for i, dk := range disks {
			if err := wipe(claimed[i], dk.Size); err != nil {
				return fmt.Errorf("%s: %w", diskName(dk), err)
			}
		}
	}

	for _, stage := range stages {
		touched := make(map[int]bool)

		for _, w := range stage {
			i := int(w.Member)
			touched[i] = true

			if _, err := claimed[i].WriteAt(w.Data, w.Sector.Bytes()); err != nil {
				return fmt.Errorf("%s: %w", diskName(disks[i]), err)
			}
		}

		for i := range touched {
			if err := claimed[i].Sync(); err != nil {
				return fmt.Errorf("%s: %w", diskName(disks[i]), err)
			}
		}
	}

	return nil
}

// wipe erases both ends of a device.
func wipe(c Claimed, size raid.Sectors) error {
	length := min(wipeBytes, size.Bytes())
	zero := make([]byte, length)

	for _, off := range []int64{0, size.Bytes() - length} {
		if _, err := c.WriteAt(zero, off); err != nil {
			return err
		}
	}

	return c.Sync()
}

// awaitArray waits until the new array runs. It is started like any other.
func (d *Daemon) awaitArray(ctx context.Context, uuid raid.UUID, disks []Disk) (*api.Array, error) {
	ctx, cancel := context.WithTimeout(ctx, startMax)
	defer cancel()

	err := d.do(ctx, func() {
		for _, written := range disks {
			if dk := d.disks[written.Path]; dk != nil && dk.same(written) {
				d.shuns.forget(dk.Seq)
				d.probe(dk)
			}
		}

		d.look()
	})

	for err == nil {
		var (
			a       *api.Array
			changed chan struct{}
			bad     string
		)

		err = d.do(ctx, func() {
			changed = d.changed

			if r := d.running(uuid); r != nil {
				a = new(*r)
			} else if tried := d.retry[uuid]; tried != nil {
				bad = tried.err
			}
		})

		switch {
		case a != nil:
			return a, nil
		case bad != "":
			return nil, fmt.Errorf("it was created, and does not start: %s", bad)
		case err != nil:
			continue
		}

		select {
		case <-changed:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}

	return nil, fmt.Errorf("it was created, and does not run yet: %w", err)
}
