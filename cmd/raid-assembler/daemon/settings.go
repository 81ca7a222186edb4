package daemon

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"raid-assembler/pkg/config"
	"raid-assembler/pkg/journal"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
)

// configure lets settings hold, whatever is wrong with them: policy starts
// nothing of which they do not tell what is wanted.
func (d *Daemon) configure(settings config.Config) {
	d.settings = settings
	d.policy = d.settings.Policy(d.cfg.Policy, d.cfg.Hostname)

	for _, fault := range settings.Faults {
		d.cfg.Log(journal.Event{
			Kind: journal.ConfigFaulty, Reason: fault.Error(),
			Message: fmt.Sprintf("the configuration is wrong, and what it may be about is not started: %v", fault),
		})
	}
}

// Reconfigure has the daemon work by other settings from now on. If anything is
// wrong with them, those that there were go on to hold.
func (d *Daemon) Reconfigure(settings config.Config) {
	d.post(func() {
		if len(settings.Faults) == 0 {
			d.configure(settings)
			d.cfg.Log(journal.Event{
				Kind: journal.ConfigLoaded, Message: fmt.Sprintf("the configuration was read: %d settings",
					len(settings.Settings)),
			})
			d.look()

			return
		}

		for _, fault := range settings.Faults {
			d.cfg.Log(journal.Event{
				Kind: journal.ConfigFaulty, Reason: fault.Error(),
				Message: fmt.Sprintf("the configuration is wrong, and what was read before goes on to hold: %v", fault),
			})
		}
	})
}

// reloads reads the configuration again at each SIGHUP, until ctx ends.
func (d *Daemon) reloads(ctx context.Context) {
	hups := make(chan os.Signal, 1)

	signal.Notify(hups, syscall.SIGHUP)
	defer signal.Stop(hups)

	for {
		select {
		case <-hups:
			d.Reconfigure(config.Read(os.DirFS("/")))
		case <-ctx.Done():
			return
		}
	}
}

// domains returns the domains that a disk is in.
func (d *Daemon) domains(dk *disk) []string {
	at := config.Disk{
		Path: dk.Port, Model: dk.Model, Serial: dk.Serial, WWN: dk.WWN, Rotational: dk.Rotational,
	}

	for _, sb := range dk.all() {
		at.Arrays = append(at.Arrays, identity(sb))
	}

	return d.settings.Domains(at)
}

func identity(sb *metadata.Superblock) policy.Identity {
	return policy.Identity{UUID: sb.Array, Name: sb.Name, Format: sb.Format, Host: sb.Host}
}

// noteWritable notes which arrays can be written to. If the engine dies, they are
// to be so again.
func (d *Daemon) noteWritable() {
	for _, a := range d.arrays {
		uuid, err := raid.ParseUUID(a.UUID)
		if _, stopped := d.held.arrays[uuid]; err == nil && !stopped {
			d.writable[uuid] = a.State != string(raid.ReadOnly)
		}
	}
}
