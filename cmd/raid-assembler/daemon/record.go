package daemon

import (
	"context"
	"fmt"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/api/varlink"
	"raid-assembler/pkg/config"
	"raid-assembler/pkg/journal"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/recording"
	"raid-assembler/pkg/scan"
)

// replyBytesMax is how much of a recording one reply has: it is a third longer there.
const replyBytesMax = 256 << 10

// record keeps what was decided, and from what.
func (d *Daemon) record(view policy.View) {
	if err := d.recording.Add(d.decided, recording.StateOf(view, d.policy, d.decisions)); err != nil {
		d.cfg.Warn(fmt.Sprintf("what is decided is not recorded: %v", err))
	}
}

func (d *Daemon) serveRecording(ctx context.Context, call *varlink.Call) (any, error) {
	var (
		p   api.RecordingParameters
		out api.RecordingReply
		bad error
	)

	if err := call.Parameters(&p); err != nil {
		return nil, err
	}

	err := d.do(ctx, func() {
		var next int64

		out.Dropped = d.recording.Dropped()
		if out.Entries, next, bad = d.recording.From(p.Number, replyBytesMax); next >= 0 {
			out.Next = &next
		}
	})
	out.Entries = append([][]byte{}, out.Entries...)

	return out, reply(firstError(err, bad))
}

// Snapshot looks at this host once, as a daemon that starts would, and returns what
// that would decide. It changes nothing.
func Snapshot(ctx context.Context, opts Options) (recording.State, error) {
	cfg := hostConfig(opts)
	cfg.Host, cfg.Engine = newHost(), engineClient{opts.EngineSocket}

	return snapshot(ctx, cfg)
}

func snapshot(ctx context.Context, cfg Config) (recording.State, error) {
	cfg.Log = func(journal.Event) {}

	d, err := New(cfg)
	if err != nil {
		return recording.State{}, err
	}

	disks, err := cfg.Host.Disks(func(string) bool { return true })
	if err != nil {
		return recording.State{}, fmt.Errorf("the devices cannot be listed: %w", err)
	}

	listing, cancel := context.WithTimeout(ctx, listMax)
	defer cancel()

	// Without an engine nothing runs.
	if list, err := cfg.Engine.List(listing); err == nil {
		d.arrays, d.told = list.Arrays, list.Told
	}

	d.disks = probeAll(cfg.Host, disks)
	how, beside := d.attachments()
	for path, dk := range d.disks {
		dk.attached, dk.beside = how[path], beside[path]
	}

	// It is advice, and there may be none.
	_ = d.members.takeCopy(cfg.RosterCopy)

	if known, _, err := readRoster(cfg.Roster); err == nil {
		d.members.roster.Merge(known)
	}

	view := d.view(time.Now())

	return recording.StateOf(view, d.policy, policy.Decide(view, d.policy)), nil
}

// probeAll probes disks at once, and waits for none longer than decisions do.
func probeAll(host Host, disks []Disk) map[string]*disk {
	type answer struct {
		path  string
		found Finding
	}

	answers := make(chan answer, len(disks))
	all := make(map[string]*disk, len(disks))
	asked := 0

	for _, seen := range disks {
		all[seen.Path] = &disk{Disk: seen}

		if seen.Ignored == "" {
			asked++
			all[seen.Path].found = Finding{Unreadable: fmt.Sprintf("no answer within %v", patience)}
			all[seen.Path].probed = true

			go func() { answers <- answer{seen.Path, host.Probe(seen)} }()
		}
	}

	timeout := time.After(patience)

	for range asked {
		select {
		case a := <-answers:
			all[a.path].found, all[a.path].doubts = a.found, a.found.Conflicts
		case <-timeout:
			return all
		}
	}

	return all
}

// Plugged returns a device or an image file as policy would see it if it were plugged
// in.
func Plugged(path string, src metadata.Source, result scan.Result, settings config.Config) []policy.Device {
	d := &Daemon{settings: settings}

	return d.devices(&disk{
		Disk:  Disk{Path: path, Serial: src.Serial, Size: src.Size, Block: src.Block, Whole: true},
		found: finding(result), probed: true,
	})
}
