// Package image builds the guest's root file system and finds it again.
//
// An image is cached under a key made of everything that went into it, so that
// a change of the recipe or of QEMU makes a new one. The saved state of a guest
// that has been booted from it lies beside it; the caller makes that.
package image

import (
	"context"
	"crypto/sha256"
	_ "embed" // for the recipe
	"encoding/hex"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

//go:embed build.sh
var recipe string

// Kernel says which kernel the guest runs.
type Kernel string

// The kernels.
const (
	Stock     Kernel = "stock"     // of Debian 13
	Backports Kernel = "backports" // of trixie-backports
)

// ParseKernel returns the kernel of that name, the stock one for none.
func ParseKernel(name string) (Kernel, error) {
	switch k := Kernel(name); k {
	case "":
		return Stock, nil
	case Stock, Backports:
		return k, nil
	default:
		return "", fmt.Errorf("image: kernel %q is neither %q nor %q", name, Stock, Backports)
	}
}

// Image is a directory with all that a guest is started from.
type Image struct{ dir string }

// Dir is where the image lies.
func (i Image) Dir() string { return i.dir }

// Root is the root disk of a guest that has never been booted.
func (i Image) Root() string { return filepath.Join(i.dir, "root.img") }

// Kernel is the kernel, unpacked.
func (i Image) Kernel() string { return filepath.Join(i.dir, "vmlinux") }

// Initrd is the initramfs.
func (i Image) Initrd() string { return filepath.Join(i.dir, "initrd") }

// State is the saved state of the booted guest's devices.
func (i Image) State() string { return filepath.Join(i.dir, "state") }

// RAM is the memory of the booted guest.
func (i Image) RAM() string { return filepath.Join(i.dir, "ram") }

// BootedRoot is the root disk of the booted guest, an overlay over Root.
func (i Image) BootedRoot() string { return filepath.Join(i.dir, "booted.qcow2") }

// CacheDir is where the lab keeps what it can make again.
func CacheDir() (string, error) {
	if dir := os.Getenv("RAID_LAB_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}

	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("image: %w", err)
	}

	return filepath.Join(dir, "raid-assembler", "lab"), nil
}

// Finish makes what is missing in a new image's directory.
type Finish func(ctx context.Context, img Image) error

// Ensure returns the image with the given kernel, and builds it where it is
// absent: the root disk here, the rest by finish. machine identifies the
// virtual machine that finish boots. It installs missing packages on the host,
// and tells log what it does.
func Ensure(ctx context.Context, kernel Kernel, machine string, finish Finish, log *log.Logger) (Image, error) {
	cache, err := CacheDir()
	if err != nil {
		return Image{}, err
	}

	if err := os.MkdirAll(cache, 0o755); err != nil {
		return Image{}, fmt.Errorf("image: %w", err)
	}

	// One builder at a time; the others then find what it built.
	unlock, err := lock(filepath.Join(cache, "build.lock"))
	if err != nil {
		return Image{}, err
	}
	defer unlock()

	if err := installTools(ctx, log); err != nil {
		return Image{}, err
	}

	key, err := key(ctx, kernel, machine)
	if err != nil {
		return Image{}, err
	}

	img := Image{filepath.Join(cache, string(kernel)+"-"+key)}
	if _, err := os.Stat(img.dir); err == nil {
		return img, nil
	}

	if err := build(ctx, img, kernel, finish, log); err != nil {
		return Image{}, err
	}

	return img, removeOld(cache, kernel, img)
}

// key names an image after what it is made of.
func key(ctx context.Context, kernel Kernel, machine string) (string, error) {
	version, err := exec.CommandContext(ctx, "qemu-system-x86_64", "--version").Output()
	if err != nil {
		return "", fmt.Errorf("image: qemu-system-x86_64 --version: %w", err)
	}

	sum := sha256.Sum256([]byte(strings.Join([]string{recipe, string(kernel), machine, string(version)}, "\x00")))

	return hex.EncodeToString(sum[:8]), nil
}

// build makes the image in a directory of its own, which gets its real name
// when it is complete. So an image is there entirely or not at all.
func build(ctx context.Context, img Image, kernel Kernel, finish Finish, log *log.Logger) error {
	if err := installKeyring(ctx, log); err != nil {
		return err
	}

	tmp := Image{img.dir + ".new"}
	if err := os.RemoveAll(tmp.dir); err != nil {
		return fmt.Errorf("image: %w", err)
	}

	if err := os.MkdirAll(tmp.dir, 0o755); err != nil {
		return fmt.Errorf("image: %w", err)
	}

	mirror := mirror("/etc/apt")
	log.Printf("building the guest (Debian 13, %s kernel) from %s in %s", kernel, mirror, img.dir)

	script := filepath.Join(tmp.dir, "build.sh")
	if err := os.WriteFile(script, []byte(recipe), 0o644); err != nil {
		return fmt.Errorf("image: %w", err)
	}

	argv := []string{"sh", script, tmp.dir, mirror, string(kernel)}
	if os.Geteuid() != 0 {
		// Within a user namespace the builder is root enough for a chroot.
		argv = append([]string{"unshare", "--map-auto", "--map-root-user", "--mount", "--pid", "--fork"}, argv...)
	}

	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log.Writer(), log.Writer()

	if err := cmd.Run(); err != nil {
		return fmt.Errorf("image: building the root file system: %w", err)
	}

	log.Print("booting the guest once, to save its state")

	if err := finish(ctx, tmp); err != nil {
		return err
	}

	if err := os.Rename(tmp.dir, img.dir); err != nil {
		return fmt.Errorf("image: %w", err)
	}

	return nil
}

// removeOld deletes the images of the same kernel that keep replaced.
func removeOld(cache string, kernel Kernel, keep Image) error {
	dirs, err := filepath.Glob(filepath.Join(cache, string(kernel)+"-*"))
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}

	var errs []error

	for _, dir := range dirs {
		if dir != keep.dir {
			errs = append(errs, os.RemoveAll(dir))
		}
	}

	return errors.Join(errs...)
}

// lock takes the lock file at path, waiting for whoever has it.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}

	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("image: lock %s: %w", path, err), f.Close())
	}

	return func() { _ = f.Close() }, nil // which unlocks it, whatever it says
}
