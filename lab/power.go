package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"time"

	"raid-assembler/lab/internal/logwrites"
	"raid-assembler/lab/internal/qemu"
)

// PowerOn boots a guest whose power is off, with all disks that are plugged in,
// and returns when it has booted and udev has dealt with them.
func (g *Guest) PowerOn() error {
	if g.m != nil {
		return errors.New("lab: the guest's power is on")
	}

	ctx, cancel := context.WithTimeout(context.Background(), bootTimeout)
	defer cancel()

	began := time.Now()

	if _, err := os.Stat(g.root()); err != nil {
		if err := overlay(ctx, g.root(), g.img.Root(), "raw"); err != nil {
			return err
		}
	}

	var err error
	if g.m, err = qemu.Start(g.config()); err != nil {
		return err
	}

	for _, d := range g.plugged() {
		if err := d.attach(); err != nil {
			return err
		}
	}

	if err := g.m.Continue(); err != nil {
		return err
	}

	if err := g.booted(ctx); err != nil {
		return err
	}

	g.log.Printf("booted in %.1fs", time.Since(began).Seconds())

	return g.appeared(g.plugged())
}

// errStaleCode says that QEMU ran an instruction which the kernel had replaced
// by then: a breakpoint that it sets while another CPU may run the code it
// changes. The kernel patches itself most while it boots.
var errStaleCode = errors.New("the emulator ran code that the guest's kernel had replaced")

// booted waits until systemd has nothing left to start. Units may have failed.
// What the emulator broke is booted again.
func (g *Guest) booted(ctx context.Context) error {
	for {
		before, err := g.m.Console()
		if err != nil {
			return err
		}

		err = g.boots(ctx, len(before))
		if !errors.Is(err, errStaleCode) {
			return err
		}

		g.log.Print(err, "; it is reset")

		if err := g.m.Execute("system_reset", nil, nil); err != nil {
			return err
		}
	}
}

// boots waits for one boot, whose messages begin at an offset of the console.
func (g *Guest) boots(ctx context.Context, from int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	go func() {
		for ctx.Err() == nil {
			if err := g.panicked(from); err != nil {
				cancel(err)
			}

			time.Sleep(200 * time.Millisecond)
		}
	}()

	err := g.m.Agent.Sync(ctx)
	if err == nil {
		_, err = g.Run(ctx, "systemctl", "is-system-running", "--wait")
	}

	if cause := context.Cause(ctx); err != nil && cause != nil {
		return fmt.Errorf("%w (%w)", cause, err)
	}

	return err
}

// panicked returns an error if the kernel has panicked since an offset of the
// console.
func (g *Guest) panicked(from int) error {
	said, err := g.m.Console()
	if err != nil {
		return err
	}

	switch said = said[from:]; {
	case !bytes.Contains(said, []byte("end Kernel panic")):
		return nil
	case bytes.Contains(said, []byte("Oops: int3")):
		return fmt.Errorf("lab: the guest's kernel panicked: %w", errStaleCode)
	default:
		return errors.New("lab: the guest's kernel panicked")
	}
}

// Reboot has the guest's systemd reboot, and returns when it has booted.
func (g *Guest) Reboot() error {
	ctx, cancel := context.WithTimeout(context.Background(), bootTimeout)
	defer cancel()

	if g.m == nil {
		return errOff
	}

	began := time.Now()

	events, unsubscribe := g.m.Events()
	defer unsubscribe()

	// The agent is told to stop before it could say how the command ended.
	if _, err := g.start(ctx, []string{"systemctl", "reboot"}, nil); err != nil {
		return err
	}

	for reset := false; !reset; {
		select {
		case event, ok := <-events:
			if !ok {
				return errors.New("lab: QEMU ended during a reboot")
			}

			reset = event == "RESET"
		case <-ctx.Done():
			return fmt.Errorf("lab: the guest does not reboot: %w", ctx.Err())
		}
	}

	if err := g.booted(ctx); err != nil {
		return err
	}

	g.log.Printf("rebooted in %.1fs", time.Since(began).Seconds())

	return g.appeared(g.plugged())
}

// PowerOff has the guest's systemd power off, and returns when it has.
func (g *Guest) PowerOff() error {
	ctx, cancel := context.WithTimeout(context.Background(), bootTimeout)
	defer cancel()

	if _, err := g.start(ctx, []string{"systemctl", "poweroff"}, nil); err != nil {
		return err
	}

	if err := g.m.Wait(ctx); err != nil {
		return fmt.Errorf("lab: the guest does not power off: %w", err)
	}

	g.kill()

	return nil
}

// PowerCut says how to cut the power.
type PowerCut struct {
	Seed    uint64       // chooses the writes that are lost; 0 for a new one, which is logged
	Lost    []*GuestDisk // are not in their bays afterwards; [GuestDisk.Replug] pushes them in again
	Restore bool         // restore the saved state afterwards, instead of booting
	// Restored prepares a guest that was restored, before it sees its disks.
	Restored func() error
}

// PowerCut cuts the power and turns it on again. Each disk with [Disk].Log loses
// a random choice of what it had not flushed. With [PowerCut].Restore the root
// disk is new as well, without what was installed; else it keeps everything.
func (g *Guest) PowerCut(cut PowerCut) error {
	if g.m == nil {
		return errOff
	}

	if err := g.settleLogs(); err != nil {
		return err
	}

	g.kill()

	if cut.Seed == 0 {
		cut.Seed = rand.Uint64()
	}

	in := g.plugged()

	for _, d := range in {
		if err := d.loseWrites(cut.Seed); err != nil {
			return err
		}
	}

	for _, d := range cut.Lost {
		d.in = false
	}

	in = g.plugged()

	if !cut.Restore {
		return g.PowerOn()
	}

	if err := g.restore(); err != nil {
		return err
	}

	if cut.Restored != nil {
		if err := cut.Restored(); err != nil {
			return err
		}
	}

	for _, d := range in {
		d.in = false
	}

	return g.plug(in)
}

// settleLogs brings all logs to a state in which they have no holes: a request
// that QEMU was killed in would leave one, and hide what the disk had already
// done after it. So writes are made to wait, which flushes need not. (To stop
// the guest first would not do: QEMU then flushes the disks.)
func (g *Guest) settleLogs() error {
	const (
		stableFor = 3 // looks
		pause     = 20 * time.Millisecond
		limit     = 30 * time.Second
	)

	stopped := Speed{BytesPerSecond: 1}

	for _, d := range g.plugged() {
		// A new limit lets a request through, even if it is the same.
		if !d.d.Log || d.speed == stopped {
			continue
		}

		if err := d.limit(stopped); err != nil {
			return err
		}
	}

	last, stable := int64(-1), 0

	for deadline := time.Now().Add(limit); stable < stableFor; time.Sleep(pause) {
		size, whole, err := g.logSizes()

		switch {
		case err != nil:
			return err
		case time.Now().After(deadline):
			return errors.New("lab: the logs of writes do not come to rest")
		case size == last && whole:
			stable++
		default:
			last, stable = size, 0
		}
	}

	return nil
}

// logSizes returns the size of all logs, and whether all are whole.
func (g *Guest) logSizes() (size int64, whole bool, err error) {
	whole = true

	for _, d := range g.plugged() {
		if !d.d.Log {
			continue
		}

		err := d.withLog(func(log *logwrites.Log, n int64) error {
			size += n
			whole = whole && log.Whole()

			return nil
		})
		if err != nil {
			return 0, false, err
		}
	}

	return size, whole, nil
}

// withLog calls f with the disk's log and the size of its file.
func (d *GuestDisk) withLog(f func(log *logwrites.Log, size int64) error) error {
	file, err := os.Open(d.logPath())
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer func() { _ = file.Close() }()

	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}

	log, err := logwrites.Read(file, info.Size())
	if err != nil {
		return fmt.Errorf("lab: disk %s: %w", d.d.Serial, err)
	}

	return f(log, info.Size())
}

// loseWrites makes the disk what it is after a power cut.
func (d *GuestDisk) loseWrites(seed uint64) error {
	if !d.d.Log {
		return nil
	}

	return d.withLog(func(log *logwrites.Log, _ int64) error {
		if !log.Whole() {
			return fmt.Errorf("lab: the log of disk %s has a hole", d.d.Serial)
		}

		return d.replay(log, seed)
	})
}

// replay makes the disk of its log.
func (d *GuestDisk) replay(log *logwrites.Log, seed uint64) error {
	if err := copySparse(d.Path(), d.basePath()); err != nil {
		return err
	}

	disk, err := os.OpenFile(d.Path(), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer func() { _ = disk.Close() }()

	// Each disk loses other writes.
	h := fnv.New64a()
	h.Write([]byte(d.d.Serial))

	cut, err := log.Replay(disk, int64(d.d.SectorSize), rand.New(rand.NewPCG(seed, h.Sum64())))
	if err != nil {
		return fmt.Errorf("lab: disk %s: %w", d.d.Serial, err)
	}

	torn := ""
	if cut.Torn > 0 {
		torn = fmt.Sprintf(", of the last one %d sectors", cut.Torn)
	}

	d.g.log.Printf("power cut, seed %d: disk %s had done %d requests; of %d unflushed writes %d survive%s",
		seed, d.d.Serial, cut.Requests, cut.Unflushed, cut.Kept, torn)

	return nil
}

// logPath is the log of the disk's writes since it was attached.
func (d *GuestDisk) logPath() string { return d.Path() + ".log" }

// basePath is what the disk held when the log began.
func (d *GuestDisk) basePath() string { return d.Path() + ".base" }

// addLog adds a node that logs writes above the disk's file.
func (d *GuestDisk) addLog(node string, file func(name, path string) args) error {
	if err := copySparse(d.basePath(), d.Path()); err != nil {
		return err
	}

	if err := os.WriteFile(d.logPath(), nil, 0o644); err != nil {
		return fmt.Errorf("lab: %w", err)
	}

	if err := d.g.m.Execute("blockdev-add", file(node+"-logfile", d.logPath()), nil); err != nil {
		return err
	}

	return d.g.m.Execute("blockdev-add", args{
		"driver": "blklogwrites", "node-name": node + "-log", "file": node + "-file", "log": node + "-logfile",
		"log-sector-size": 512,
	}, nil)
}
