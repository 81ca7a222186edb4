package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"raid-assembler/pkg/engine/member"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
	"raid-assembler/pkg/scan"
	"raid-assembler/pkg/scan/sysfs"
)

// realHost is the devices of this host.
type realHost struct {
	tree  sysfs.Tree
	proc  fs.FS
	known map[string]sysfs.Device // by name, as they were at the last look
}

func newHost() *realHost {
	return &realHost{tree: sysfs.Host(), proc: os.DirFS("/proc")}
}

// read reads a device, or of one that is known only what may have changed.
func (h *realHost) read(name string, news func(path string) bool) (sysfs.Device, error) {
	if dev, ok := h.known[name]; ok && !news(dev.Node) && (dev.Parent == "" || !news("/dev/"+dev.Parent)) {
		if dev, ok = sysfs.Again(h.tree, dev); ok {
			return dev, nil
		}
	}

	return sysfs.Read(h.tree, name)
}

// Disks implements [Host].
func (h *realHost) Disks(news func(path string) bool) ([]Disk, error) {
	entries, err := fs.ReadDir(h.tree.Sys, "class/block")
	if err != nil {
		return nil, err
	}

	users := sysfs.ReadUsers(h.proc)
	seen := make(map[string]sysfs.Device, len(entries))

	var disks []Disk

	for _, entry := range entries {
		dev, err := h.read(entry.Name(), news)
		if err == nil {
			seen[entry.Name()] = dev
		}

		switch {
		case errors.Is(err, sysfs.ErrGone):
		case err != nil:
			// It is there, and that is all that is known.
			path := "/dev/" + strings.ReplaceAll(entry.Name(), "!", "/")
			disks = append(disks, Disk{Path: path, Ignored: err.Error()})
		case dev.Sectors > 0: // no medium, or none any longer
			disks = append(disks, Disk{
				Path: dev.Node, Serial: dev.Serial, Seq: dev.DiskSeq, Size: dev.Sectors, Block: dev.LogicalBlock,
				Claimed: claimedBy(dev, users), Ignored: dev.IgnoreReason(),
				Model: dev.Model, WWN: dev.WWN, Port: dev.Location, Rotational: dev.Rotational,
				Whole: dev.Parent == "",
			})
		}
	}

	h.known = seen

	return disks, nil
}

// claimedBy returns who uses dev or a partition of it, or nothing.
func claimedBy(dev sysfs.Device, users sysfs.Users) string {
	if len(dev.Holders) > 0 {
		return strings.Join(dev.Holders, ", ")
	}

	if user := users.Of(dev.Name, fmt.Sprintf("%d:%d", dev.Major, dev.Minor)); user != "" {
		return user
	}

	for _, name := range dev.Partitions {
		if user := users.Of(name, ""); user != "" {
			return user
		}
	}

	return ""
}

// Probe implements [Host].
func (h *realHost) Probe(disk Disk) Finding {
	r, err := openDirect(disk.Path, unix.O_RDONLY|unix.O_NONBLOCK, disk.Size)
	if err != nil {
		return Finding{Unreadable: err.Error()}
	}

	defer func() { _ = r.Close() }()

	return finding(scan.Scan(metadata.Source{
		ReaderAt: r, Size: disk.Size, Block: disk.Block, Serial: disk.Serial,
	}, scan.Formats()...))
}

// Content implements [Host].
func (h *realHost) Content(
	ctx context.Context, disk Disk, sample bool, progress func(done int64),
) (int64, error) {
	r, err := openDirect(disk.Path, unix.O_RDONLY|unix.O_NONBLOCK, disk.Size)
	if err != nil {
		return -1, err
	}

	defer func() { _ = r.Close() }()

	src := metadata.Source{ReaderAt: r, Size: disk.Size, Block: disk.Block, Serial: disk.Serial}
	if sample {
		return scan.Sample(ctx, src)
	}

	return scan.Content(ctx, src, progress)
}

// finding translates what a scan found.
func finding(result scan.Result) Finding {
	lighten(result.Superblock)

	for _, sb := range result.Beside {
		lighten(sb)
	}

	f := Finding{Superblock: result.Superblock, Conflicts: result.Conflicts}
	if n := len(result.Beside); n > 0 && n == len(result.Conflicts) {
		f.Readings = append(f.Readings, result.Superblock)
		f.Readings = append(f.Readings, result.Beside...)
	}

	switch {
	case result.Err == nil:
	case errors.Is(result.Err, metadata.ErrCorrupt):
		f.Corrupt = result.Err.Error()
	default:
		f.Unreadable = result.Err.Error()
	}

	partitioned := false

	for _, s := range result.Signatures {
		f.Others = append(f.Others, s.String())
		partitioned = partitioned || s.Kind == "gpt" || s.Kind == "mbr"
	}

	// The superblock of the last partition is seen from the whole disk as well.
	if f.Superblock == nil && !partitioned {
		for _, s := range result.Signatures {
			if slices.Contains(foreign, s.Kind) {
				f.Foreign = s.String()
			}
		}
	}

	return f
}

// lighten takes the format's own form from what is kept of a device, by which nothing is
// decided: with DDF it is all of the metadata, 600 KiB of each disk.
func lighten(sb *metadata.Superblock) {
	if sb == nil {
		return
	}

	sb.Raw = nil

	for _, other := range sb.Others {
		other.Raw = nil
	}
}

// foreign are the kinds of signatures that say that a device is, or was, part
// of an array.
var foreign = []string{"md superblock of another device", "md 0.90", "ddf", "imsm"}

// Claim implements [Host].
func (h *realHost) Claim(disk Disk) (Claimed, error) {
	r, err := openDirect(disk.Path, unix.O_RDWR|unix.O_EXCL, disk.Size)
	if errors.Is(err, unix.EBUSY) {
		return nil, errors.New("somebody else has it open for himself")
	}

	if err != nil {
		return nil, err
	}

	// udevd holds this lock while it looks at a device, on a busy machine for seconds,
	// and looks away while somebody else has it.
	for range 100 {
		if err = unix.Flock(r.FD, unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
			break
		}

		time.Sleep(100 * time.Millisecond)
	}

	if err != nil {
		return nil, errors.Join(fmt.Errorf("somebody else has it locked: %w", err), r.Close())
	}

	return r, nil
}

// Somebody who has a device for himself is asked so often.
const (
	findTries = 50
	findPause = 100 * time.Millisecond
)

// FindPartitions implements [Host]. The engine may say that an array has ended a moment
// before it closes the devices, which it has for itself.
func (h *realHost) FindPartitions(disk Disk) error {
	r, err := openDirect(disk.Path, unix.O_RDONLY|unix.O_NONBLOCK, disk.Size)
	if err != nil {
		return err
	}

	for range findTries {
		if err = unix.IoctlSetInt(r.FD, unix.BLKRRPART, 0); !errors.Is(err, unix.EBUSY) {
			break
		}

		time.Sleep(findPause)
	}

	return errors.Join(err, r.Close())
}

// SetReadOnly implements [Host].
func (h *realHost) SetReadOnly(device string, on bool) error {
	fd, err := unix.Open(device, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", device, err)
	}

	value := 0
	if on {
		value = 1
	}

	if err := unix.IoctlSetPointerInt(fd, unix.BLKROSET, value); err != nil {
		return errors.Join(fmt.Errorf("set %s read-only to %v: %w", device, on, err), unix.Close(fd))
	}

	return unix.Close(fd)
}

// direct is a device that is read and written past the page cache: the engine
// writes so, and what a cache has kept would be old.
type direct struct {
	member.Direct

	written bool
}

func openDirect(path string, flags int, size raid.Sectors) (*direct, error) {
	fd, err := unix.Open(path, flags|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}

	return &direct{Direct: member.Direct{FD: fd, Size: size.Bytes()}}, nil
}

// WriteAt writes whole logical blocks.
func (r *direct) WriteAt(p []byte, off int64) (int, error) {
	r.written = true

	return r.Direct.WriteAt(p, off)
}

// Sync makes what was written durable.
func (r *direct) Sync() error { return unix.Fsync(r.FD) }

// Close lets go of the device. If it was written to, the kernel forgets the
// partitions that it had.
func (r *direct) Close() error {
	if r.written {
		// A partition has none, and one that is in use cannot be forgotten.
		_ = unix.IoctlSetInt(r.FD, unix.BLKRRPART, 0)
	}

	return unix.Close(r.FD)
}
