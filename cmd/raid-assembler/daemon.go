package main

import (
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
	o := daemon.Options{
		Version: version, EngineSocket: opts.engineSocket, AssemblerSocket: opts.assemblerSocket,
		StateDir: opts.stateDir, Roster: opts.roster, Deadline: opts.deadline,
	}

	if o.EngineSocket == "" {
		o.EngineSocket = api.EngineSocket
	}

	if o.AssemblerSocket == "" {
		o.AssemblerSocket = api.AssemblerSocket
	}

	if o.StateDir == "" {
		o.StateDir = daemonStateDir
	}

	if o.Roster == "" {
		o.Roster = daemonRoster
	}

	if o.Deadline == 0 {
		o.Deadline = policy.DefaultDeadline
	}

	return daemon.Run(ctx, o)
}
