package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"raid-assembler/lab/internal/image"
	"raid-assembler/lab/internal/qemu"
)

// found remembers the image, which a process looks up for every guest.
var found struct {
	sync.Mutex
	img image.Image
	ok  bool
}

// Image returns the image that guests are started from. It builds the image
// when that is absent, which takes minutes, and tells log so. The environment
// variable RAID_LAB_KERNEL chooses the kernel: "stock" or "backports".
func Image(ctx context.Context, log io.Writer) (image.Image, error) {
	found.Lock()
	defer found.Unlock()

	if found.ok {
		return found.img, nil
	}

	kernel, err := image.ParseKernel(os.Getenv("RAID_LAB_KERNEL"))
	if err != nil {
		return image.Image{}, err
	}

	img, err := image.Ensure(ctx, kernel, qemu.Fingerprint()+warmUp, saveBooted, logger(log))
	if err != nil {
		return image.Image{}, err
	}

	found.img, found.ok = img, true

	return img, nil
}

// warmUp brings what every test uses into the page cache.
const warmUp = `
udevadm settle
modprobe sd_mod
for f in bash head tar mdadm fio lsblk blkid journalctl udevadm systemctl dd sha256sum stat date; do
	cat "$(command -v $f)" >/dev/null
done
mdadm --version
systemctl show -p Version
sync`

// saveBooted boots a new image and saves the booted guest in it.
func saveBooted(ctx context.Context, img image.Image) error {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()

	// The name is relative, because the directory is renamed later.
	if err := overlay(ctx, img.BootedRoot(), filepath.Base(img.Root()), "raw"); err != nil {
		return err
	}

	m, err := qemu.Start(qemu.Config{
		Dir: img.Dir(), Kernel: img.Kernel(), Initrd: img.Initrd(), Root: img.BootedRoot(),
		RAM: img.RAM(), ShareRAM: true,
	})
	if err != nil {
		return err
	}
	defer m.Kill()

	if err := m.Continue(); err != nil {
		return err
	}

	g := &Guest{m: m, log: logger(io.Discard)}
	if err := g.booted(ctx); err != nil {
		return err
	}

	if r, err := g.Run(ctx, "bash", "-euc", warmUp); err != nil || r.ExitCode != 0 {
		return fmt.Errorf("lab: warming up: %w: %s", err, r.Stderr)
	}

	return m.Save(ctx, img.State())
}
