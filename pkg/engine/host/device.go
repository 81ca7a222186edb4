package host

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"raid-assembler/pkg/engine/member"
	"raid-assembler/pkg/engine/ublk"
	"raid-assembler/pkg/journal"
	"raid-assembler/pkg/raid"
	"raid-assembler/pkg/scan/sysfs"
)

// claimDir is below Config.RunDir: one file for each block device of ours,
// which udev imports and the next engine finds its devices by.
const claimDir = "by-device"

// claimFile returns the function that says which array a block device is,
// before the kernel announces it.
func (h *Host) claimFile(uuid raid.UUID, name string, level raid.Level) func(ublk.DeviceID) error {
	return func(id ublk.DeviceID) error {
		dir := filepath.Join(h.cfg.RunDir, claimDir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("host: %w", err)
		}

		text := fmt.Sprintf("RAID_NAME=%s\nRAID_UUID=%s\nRAID_LEVEL=%s\n", name, uuid, level)
		path := filepath.Join(dir, blockName(id))

		if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
			return fmt.Errorf("host: %w", err)
		}

		if err := os.Rename(path+".new", path); err != nil {
			return fmt.Errorf("host: %w", err)
		}

		return nil
	}
}

// unclaim removes what claimFile wrote.
func (h *Host) unclaim(id ublk.DeviceID) error {
	return os.Remove(filepath.Join(h.cfg.RunDir, claimDir, blockName(id)))
}

// blockName is what the kernel calls a block device.
func blockName(id ublk.DeviceID) string { return filepath.Base(id.BlockPath()) }

// abandoned returns the block device of the array that an engine left behind
// when it died or handed over: its requests wait for a server.
func (h *Host) abandoned(ctx context.Context, uuid raid.UUID) ublk.DeviceID {
	files, err := filepath.Glob(filepath.Join(h.cfg.RunDir, claimDir, "ublkb*"))
	if err != nil {
		return ublk.AnyDevice
	}

	h.mu.Lock()
	noted := h.served[uuid].Block
	h.mu.Unlock()

	// Which it is the engine before has said. The files may have been swapped out to it.
	isNoted := func(file string) bool { return filepath.Base(file) == noted }
	if at := slices.IndexFunc(files, isNoted); at >= 0 {
		files[0], files[at] = files[at], files[0]
	}

	for _, file := range files {
		var id ublk.DeviceID

		if _, err := fmt.Sscanf(filepath.Base(file), "ublkb%d", &id); err != nil {
			continue
		}

		if !isNoted(file) && !claims(file, uuid) {
			continue
		}

		info, err := h.cfg.Control.DevInfo(ctx, id)

		switch {
		case err != nil: // it is gone, and the claim is a relic
		case info.State == ublk.Dead:
			// Its engine died before the device had started, so there is
			// nothing in it to be taken over, and no way to.
			_ = h.cfg.Control.StopDev(ctx, id)
			_ = h.cfg.Control.DelDevAsync(ctx, id)
		default:
			return id
		}
	}

	return ublk.AnyDevice
}

// claims reports whether a file says that a block device is an array.
func claims(file string, uuid raid.UUID) bool {
	text, err := os.ReadFile(file)

	return err == nil && strings.Contains(string(text), "RAID_UUID="+uuid.String()+"\n")
}

// hidePartitions keeps the partitions of a device from everyone.
func (h *Host) hidePartitions(r *running, uuid raid.UUID, d *member.Device) {
	if err := d.HidePartitions(); err != nil {
		h.cfg.Tell(journal.Event{
			Kind: journal.PartitionsInUse, Array: r.name, UUID: uuid.String(), Member: d.Path, Serial: d.Serial,
			Reason:  err.Error(),
			Message: fmt.Sprintf("a partition of %s, a member of %s, is in use by somebody", d.Path, r.name),
		})
	}
}

// resolve returns the path of the device node that name leads to, and its
// serial as udev tells it.
func resolve(name string) (path, serial string) {
	path = name
	if !strings.Contains(name, "/") {
		path = "/dev/" + name
	}

	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}

	return path, sysfs.Serial(sysfs.Host(), filepath.Base(path)) // opening it will tell what is the matter
}

// refusesWrites reports whether the kernel lets nobody write to a block device.
func refusesWrites(id ublk.DeviceID) bool {
	text, err := os.ReadFile(filepath.Join("/sys/class/block", blockName(id), "ro"))

	return err == nil && strings.TrimSpace(string(text)) == "1"
}

// inUse says who uses a block device or its partitions, or nothing.
func inUse(id ublk.DeviceID) string { return userOf(os.DirFS("/"), blockName(id)) }

// userOf is inUse for the disk called name, by what the kernel tells below root.
func userOf(root fs.FS, name string) string {
	sys := path.Join("sys/class/block", name)
	users := make(sysfs.Users)

	if proc, err := fs.Sub(root, "proc"); err == nil {
		users = sysfs.ReadUsers(proc)
	}

	nodes, _ := fs.Glob(root, path.Join(sys, name+"p*"))
	for _, node := range append(nodes, sys) {
		base := path.Base(node)

		if held, _ := fs.ReadDir(root, path.Join(node, "holders")); len(held) > 0 {
			return fmt.Sprintf("%s is held by %s", base, held[0].Name())
		}

		// Its mounts have numbers of their own.
		if volumes, _ := fs.Glob(root, path.Join("sys/fs/btrfs/*/devices", base)); len(volumes) > 0 {
			return base + " is part of a btrfs"
		}

		dev, err := fs.ReadFile(root, path.Join(node, "dev"))
		if user := users.Of(base, strings.TrimSpace(string(dev))); err == nil && user != "" {
			return fmt.Sprintf("%s is used by %s", base, user)
		}
	}

	return ""
}
