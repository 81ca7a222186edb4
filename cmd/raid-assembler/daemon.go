package main

import (
	"cmp"
	"context"
	"time"

	"raid-assembler/cmd/raid-assembler/daemon"
	"raid-assembler/pkg/api"
	"raid-assembler/pkg/policy"
)

// daemonStateDir is where the daemon keeps what must survive its restart, and
// no boot.
const daemonStateDir = "/run/raid-assembler"

// daemonRoster is where the daemon writes down what it knows of members that may
// be gone: that is to survive a boot.
const daemonRoster = "/var/lib/raid-assembler/roster.json"

// daemonRosterCopy is where the initramfs leaves its copy of that: until /var/lib is
// mounted there is no other.
const daemonRosterCopy = daemonStateDir + "/roster.json"

// daemonOptions are what the daemon can be told on its command line. What is
// left empty is as on any host.
type daemonOptions struct {
	engineSocket    string
	assemblerSocket string
	stateDir        string
	roster          string
	deadline        time.Duration // how long arrays may lack members; 0 for the default
}

// runDaemon runs the daemon until ctx ends.
func runDaemon(ctx context.Context, opts daemonOptions) error {
	return daemon.Run(ctx, opts.complete())
}

// complete fills in what was left empty.
func (opts daemonOptions) complete() daemon.Options {
	return daemon.Options{
		Version:         version,
		EngineSocket:    cmp.Or(opts.engineSocket, api.EngineSocket),
		AssemblerSocket: cmp.Or(opts.assemblerSocket, api.AssemblerSocket),
		StateDir:        cmp.Or(opts.stateDir, daemonStateDir),
		Roster:          cmp.Or(opts.roster, daemonRoster),
		RosterCopy:      daemonRosterCopy,
		Deadline:        cmp.Or(opts.deadline, policy.DefaultDeadline),
	}
}
