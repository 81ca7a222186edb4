// Package lab runs Debian guests for tests that need a kernel, disks that come
// and go, and power that fails.
//
// A guest is restored in about a second from the saved state of one that was
// booted when the image was built; see the package's README.md. Nothing of this
// project is in the image: [Guest.Install] puts a build into the running guest.
//
// Everything returns errors. In tests, get the guest from [Start] or [Boot] and
// use the methods whose names begin with Must: they end the test instead.
package lab

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"raid-assembler/lab/internal/image"
	"raid-assembler/lab/internal/qemu"
)

// Limits for what takes as long as the host is slow.
const (
	bootTimeout    = 5 * time.Minute
	restoreTimeout = 2 * time.Minute
	commandTimeout = 2 * time.Minute
)

// Options say what guest New makes. The zero value restores a guest without
// disks.
type Options struct {
	Name  string    // of the directory where things are kept; default "guest"
	Disks []Disk    // present when New returns
	Log   io.Writer // is told what happens; default: nobody
}

// Guest is a running virtual machine. Its methods may be used concurrently,
// except those that plug disks or turn the power on or off.
type Guest struct {
	img   image.Image
	place *run
	log   *log.Logger
	tb    testing.TB // nil outside tests
	keep  bool
	m     *qemu.Machine // nil while the power is off
	disks []*GuestDisk
	names int // of block nodes, used up

	initrd string // the initramfs, if it is not that of the image

	data sync.Mutex // held by the one that uses the data port
}

// New starts a guest. Close ends it.
func New(o Options) (*Guest, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}

	if o.Name == "" {
		o.Name = "guest"
	}

	img, err := Image(context.Background(), o.Log)
	if err != nil {
		return nil, err
	}

	g := &Guest{img: img, log: logger(o.Log)}
	if g.place, err = newRun(o.Name, g.log); err != nil {
		return nil, err
	}

	g.keep = os.Getenv("RAID_LAB_KEEP") != ""

	if err := g.first(o); err != nil {
		g.keep = true

		return nil, fmt.Errorf("%w (see %s)", err, g.Close())
	}

	return g, nil
}

// logger returns a logger that marks its lines as the lab's.
func logger(w io.Writer) *log.Logger { return log.New(w, "lab: ", 0) }

// first starts a new guest as its options say.
func (g *Guest) first(o Options) error {
	disks, err := g.newDisks(o.Disks)
	if err != nil {
		return err
	}

	if err := g.restore(); err != nil {
		return err
	}

	return g.plug(disks)
}

// Keep makes Close leave the guest's console, journal and disks behind.
func (g *Guest) Keep() { g.keep = true }

// Close ends the guest. It returns the directory where its console, journal and
// disks are kept if Keep asked for that, or else "".
func (g *Guest) Close() string {
	if g.keep && g.m != nil {
		g.saveJournal()
	}

	g.kill()

	dir, err := g.place.close(g.keep)
	if err != nil {
		g.log.Print(err)
	}

	if g.keep {
		g.log.Print("console, journal and disks are kept in ", dir)
	}

	return dir
}

func (g *Guest) saveJournal() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	for name, argv := range map[string][]string{
		"journal.txt":    {"journalctl", "--no-pager", "-o", "short-monotonic"},
		"journal.export": {"journalctl", "--no-pager", "-o", "export", "-b"},
	} {
		r, err := g.Run(ctx, argv...)
		if err == nil {
			err = os.WriteFile(filepath.Join(g.place.dir, name), []byte(r.Stdout), 0o644)
		}

		if err != nil {
			g.log.Print("the journal is not kept: ", err)
		}
	}
}

// kill ends QEMU, and with it what it had of the disks.
func (g *Guest) kill() {
	if g.m == nil {
		return
	}

	g.m.Kill()
	g.m = nil

	for _, d := range g.disks {
		d.node, d.filter = "", ""
	}
}

// config is what both kinds of start have in common.
func (g *Guest) config() qemu.Config {
	return qemu.Config{
		Dir: g.place.dir, Kernel: g.img.Kernel(), Initrd: cmp.Or(g.initrd, g.img.Initrd()), Root: g.root(),
	}
}

// SetInitrd has the guest boot with another initramfs, a file on the host, when its power
// is turned on.
func (g *Guest) SetInitrd(file string) { g.initrd = file }

func (g *Guest) root() string { return filepath.Join(g.place.dir, "root.qcow2") }

// restore starts the guest from the saved state, with a new root disk.
func (g *Guest) restore() error {
	ctx, cancel := context.WithTimeout(context.Background(), restoreTimeout)
	defer cancel()

	began := time.Now()

	if err := overlay(ctx, g.root(), g.img.BootedRoot(), "qcow2"); err != nil {
		return err
	}

	config := g.config()
	config.RAM, config.Incoming = g.img.RAM(), true

	var err error
	if g.m, err = qemu.Start(config); err != nil {
		return err
	}

	if err := g.m.Restore(ctx, g.img.State()); err != nil {
		return err
	}

	if err := g.m.Continue(); err != nil {
		return err
	}

	if err := g.m.Agent.Sync(ctx); err != nil {
		return err
	}

	// The guest's clock still shows when it was saved.
	now := time.Now()
	if _, err := g.Run(ctx, "date", "-s", fmt.Sprintf("@%d.%09d", now.Unix(), now.Nanosecond())); err != nil {
		return err
	}

	g.log.Printf("restored in %.1fs", time.Since(began).Seconds())

	return nil
}

// overlay makes a qcow2 image that shows what backing holds and keeps changes
// to itself.
func overlay(ctx context.Context, path, backing, format string) error {
	cmd := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", format, "-b", backing, path)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("lab: qemu-img create: %w: %s", err, out)
	}

	return nil
}
