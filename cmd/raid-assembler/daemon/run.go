package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"raid-assembler/pkg/api/varlink"
	"raid-assembler/pkg/config"
	"raid-assembler/pkg/journal"
	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/scan/uevent"
)

// Options say how a daemon runs on this host.
type Options struct {
	Version         string
	EngineSocket    string        // where the engine listens
	AssemblerSocket string        // where to listen
	StateDir        string        // for what must survive a restart, and no boot
	Roster          string        // the file of what is known of members that may be gone
	RosterCopy      string        // what the initramfs knew of that
	Deadline        time.Duration // how long arrays may lack members, where the configuration does not say
}

// closeMax is how long the journal may take to take what is left.
const closeMax = time.Second

// Run runs the daemon on this host, until ctx ends.
func Run(ctx context.Context, opts Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	log := journal.New(journal.Options{Identifier: "raid-assembler"})
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeMax)
		defer cancel()

		_ = log.Close(ctx) // there is nowhere else to tell it
	}()

	// Hear first, then look, and nothing falls between the two.
	listener, err := listenUevents(ctx)
	if err != nil {
		return err
	}

	defer listener.Close()

	engine := engineClient{opts.EngineSocket}
	cfg := hostConfig(opts)
	cfg.Host, cfg.Engine, cfg.Events = newHost(), engine, listener.Events()
	cfg.Log, cfg.Notify, cfg.Warn, cfg.Run = log.Log, notify, warn, runProgram

	if cfg.Watchdog, err = daemon.SdWatchdogEnabled(false); err != nil {
		return fmt.Errorf("daemon: watchdog: %w", err)
	}

	cfg.Watchdog /= 2

	guarded := newGuarded(log.Log, warn)
	cfg.Protect, cfg.Guarded = guarded.protect, isGuarded

	d, err := New(cfg)
	if err != nil {
		return err
	}

	served := make(chan error, 1)
	if err := d.serve(ctx, opts, served); err != nil {
		return err
	}

	go engine.watch(ctx, d.Hint)
	go d.reloads(ctx)
	go guarded.run(ctx)

	log.Log(journal.Event{
		Kind: journal.AssemblerStarted, Message: fmt.Sprintf("raid-assembler %s listens for devices", opts.Version),
	})

	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()

	// Whichever ends first ends the daemon.
	select {
	case err = <-ended:
	case err = <-served:
		err = errors.Join(errors.New("daemon: the socket is not served any more"), err)
	}

	notify(daemon.SdNotifyStopping)

	if ctx.Err() != nil {
		return nil // as it was asked to
	}

	return errors.Join(err, listener.Err())
}

// hostConfig is what this host and its files say.
func hostConfig(opts Options) Config {
	cfg := Config{
		Policy: policy.DefaultConfig(), Settings: config.Read(os.DirFS("/")),
		HeldDir: filepath.Join(opts.StateDir, "held"), Roster: opts.Roster, RosterCopy: opts.RosterCopy,
		Machine: Machine(os.DirFS("/")),
	}
	cfg.Policy.Deadline = opts.Deadline
	cfg.Hostname, _ = os.Hostname() // without a host in it a name is a name all the same

	return cfg
}

// listenUevents listens to udevd, or where there is none to the kernel.
func listenUevents(ctx context.Context) (*uevent.Listener, error) {
	_, err := os.Stat("/run/udev/control")

	return uevent.Listen(ctx, uevent.Options{Subsystem: "block", Kernel: err != nil})
}

// serve serves d on its socket: for root, and to be asked by the group that the daemon has.
func (d *Daemon) serve(ctx context.Context, opts Options, served chan<- error) error {
	if err := os.MkdirAll(filepath.Dir(opts.AssemblerSocket), 0o755); err != nil {
		return fmt.Errorf("daemon: %w", err)
	}

	server, err := varlink.NewServer(varlink.Service{
		Vendor: "raid-assembler", Product: "raid-assembler", Version: opts.Version,
	}, varlink.Options{Log: warn}, d.Interface())
	if err != nil {
		return err
	}

	l, err := varlink.Listen(opts.AssemblerSocket, 0o660)
	if err != nil {
		return err
	}

	go func() { served <- server.Serve(ctx, l) }()

	return nil
}

// notify tells the service manager, if there is one.
func notify(state string) { _, _ = daemon.SdNotify(false, state) }

// warn tells the administrator about the daemon itself. Under a service
// manager that is the journal.
func warn(text string) { _, _ = fmt.Fprintln(os.Stderr, "raid-assembler:", text) }
