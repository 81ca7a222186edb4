package lab

import (
	"context"
	"fmt"
	"io/fs"
	"testing"
	"time"
)

// Start restores a guest for a test and plugs disks in. The test's end closes
// it; when the test failed, console, journal and disks are kept.
func Start(t testing.TB, disks ...Disk) *Guest {
	t.Helper()

	g, err := New(Options{Name: t.Name(), Log: t.Output(), Disks: disks})
	if err != nil {
		t.Fatal(err)
	}

	g.tb = t

	t.Cleanup(func() {
		if t.Failed() {
			g.Keep()
		}

		g.Close()
	})

	return g
}

// must ends the test, or panics where there is none.
func (g *Guest) must(err error) {
	if err == nil {
		return
	}

	if g.tb == nil {
		panic(err)
	}

	g.tb.Helper()
	g.tb.Fatal(err)
}

func (g *Guest) helper() {
	if g.tb != nil {
		g.tb.Helper()
	}
}

// MustShell is [Guest.Shell] for a script that must succeed. It returns what the
// script printed to its standard output.
func (g *Guest) MustShell(script string) string {
	g.helper()

	r, err := g.Shell(script)
	g.must(checked(append(shell, script), r, err))

	return r.Stdout
}

// MustRun is [Guest.Run] for a program that must succeed. It returns what the
// program printed to its standard output.
func (g *Guest) MustRun(argv ...string) string {
	g.helper()

	out, err := g.output(argv)
	g.must(err)

	return out
}

// MustGo is [Guest.Go].
func (g *Guest) MustGo(script string) *Job {
	g.helper()

	j, err := g.Go(script)
	g.must(err)

	return j
}

// MustWait is [Job.Wait] for a script that must succeed within timeout. It
// returns what the script printed to its standard output.
func (j *Job) MustWait(timeout time.Duration) string {
	j.g.helper()

	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()

	r, err := j.Wait(ctx)
	j.g.must(checked(j.argv, r, err))

	return r.Stdout
}

// MustWaitFor is [Guest.WaitFor].
func (g *Guest) MustWaitFor(timeout time.Duration, script string) {
	g.helper()
	g.must(g.WaitFor(timeout, script))
}

// MustJournal is [Guest.Journal].
func (g *Guest) MustJournal(args ...string) string {
	g.helper()

	out, err := g.Journal(args...)
	g.must(err)

	return out
}

// MustMonotonicNow is [Guest.MonotonicNow].
func (g *Guest) MustMonotonicNow() int64 {
	g.helper()

	now, err := g.MonotonicNow()
	g.must(err)

	return now
}

// MustInstall is [Guest.Install].
func (g *Guest) MustInstall(trees ...string) {
	g.helper()
	g.must(g.Install(trees...))
}

// MustWriteFile is [Guest.WriteFile].
func (g *Guest) MustWriteFile(name, data string, mode fs.FileMode) {
	g.helper()
	g.must(g.WriteFile(name, []byte(data), mode))
}

// MustReadFile is [Guest.ReadFile].
func (g *Guest) MustReadFile(name string) string {
	g.helper()

	data, err := g.ReadFile(name)
	g.must(err)

	return string(data)
}

// MustPlug is [Guest.Plug].
func (g *Guest) MustPlug(disk Disk) *GuestDisk {
	g.helper()

	d, err := g.Plug(disk)
	g.must(err)

	return d
}

// MustPlugAll is [Guest.PlugAll].
func (g *Guest) MustPlugAll(disks ...Disk) []*GuestDisk {
	g.helper()

	plugged, err := g.PlugAll(disks...)
	g.must(err)

	return plugged
}

// MustDisks plugs n disks of the same size in, with the serial numbers
// prefix0, prefix1 and so on.
func (g *Guest) MustDisks(n int, size int64, prefix string) []*GuestDisk {
	g.helper()

	disks := make([]Disk, n)
	for i := range disks {
		disks[i] = Disk{Serial: fmt.Sprintf("%s%d", prefix, i), Size: size}
	}

	return g.MustPlugAll(disks...)
}

// MustDev is [GuestDisk.Dev].
func (d *GuestDisk) MustDev() string {
	d.g.helper()

	dev, err := d.Dev()
	d.g.must(err)

	return dev
}

// MustUnplug is [GuestDisk.Unplug].
func (d *GuestDisk) MustUnplug() {
	d.g.helper()
	d.g.must(d.Unplug())
}

// MustReplug is [GuestDisk.Replug].
func (d *GuestDisk) MustReplug() {
	d.g.helper()
	d.g.must(d.Replug())
}

// MustUnplugAll is [Guest.UnplugAll].
func (g *Guest) MustUnplugAll(disks ...*GuestDisk) {
	g.helper()
	g.must(g.UnplugAll(disks...))
}

// MustReplugAll is [Guest.ReplugAll].
func (g *Guest) MustReplugAll(disks ...*GuestDisk) {
	g.helper()
	g.must(g.ReplugAll(disks...))
}

// MustReboot is [Guest.Reboot].
func (g *Guest) MustReboot() {
	g.helper()
	g.must(g.Reboot())
}

// MustPowerOff is [Guest.PowerOff].
func (g *Guest) MustPowerOff() {
	g.helper()
	g.must(g.PowerOff())
}

// MustPowerOn is [Guest.PowerOn].
func (g *Guest) MustPowerOn() {
	g.helper()
	g.must(g.PowerOn())
}

// MustPowerCut is [Guest.PowerCut].
func (g *Guest) MustPowerCut(cut PowerCut) {
	g.helper()
	g.must(g.PowerCut(cut))
}

// MustInjectReadError is [GuestDisk.InjectReadError].
func (d *GuestDisk) MustInjectReadError(s Sectors) {
	d.g.helper()
	d.g.must(d.InjectReadError(s))
}

// MustInjectWriteError is [GuestDisk.InjectWriteError].
func (d *GuestDisk) MustInjectWriteError(s Sectors) {
	d.g.helper()
	d.g.must(d.InjectWriteError(s))
}

// MustInjectFlushError is [GuestDisk.InjectFlushError].
func (d *GuestDisk) MustInjectFlushError() {
	d.g.helper()
	d.g.must(d.InjectFlushError())
}

// MustClearErrors is [GuestDisk.ClearErrors].
func (d *GuestDisk) MustClearErrors() {
	d.g.helper()
	d.g.must(d.ClearErrors())
}

// MustThrottle is [GuestDisk.Throttle].
func (d *GuestDisk) MustThrottle(s Speed) {
	d.g.helper()
	d.g.must(d.Throttle(s))
}
