// Command raid-engine is the RAID engine: the process that is the arrays.
//
// Started by systemd, it is the guardian: a small process that holds the
// socket, issues the ublk control commands, and runs the engine proper as a
// child ("raid-engine serve"). Control commands can wait for I/O that only the
// engine could complete; issued by the engine itself, they could leave it
// beyond kill -9.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"raid-assembler/pkg/journal"
)

// version is set when the program is built.
var version = "unknown"

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 2
	exitUsage  = 64
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("raid-engine", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		_, _ = fmt.Fprint(stderr, "usage: raid-engine [--run-dir DIR] [--standby WHEN] [--version]\n\n"+
			"The RAID engine. systemd starts it when something connects to its socket;\n"+
			"raid-assembler(8) tells it what to do. See raid-engine(8).\n")
	}

	runDir := flags.String("run-dir", "/run/raid-engine", "where sockets and claims are kept")
	standby := standbyAuto
	flags.Var(&standby, "standby", "have an engine stand by that takes over at once: auto (if the host swaps to\n"+
		"a disk), always or never")

	showVersion := flags.Bool("version", false, "print the version")

	if err := flags.Parse(args); err != nil {
		return exitUsage
	}

	var err error

	switch rest := flags.Args(); {
	case *showVersion:
		_, err = fmt.Fprintln(stdout, "raid-engine", version)
	case len(rest) == 0:
		err = guard(*runDir, standby)
	case rest[0] == "serve" && len(rest) == 1:
		err = serve(*runDir)
	default:
		flags.Usage()

		return exitUsage
	}

	if err != nil {
		_, _ = fmt.Fprintln(stderr, "raid-engine:", err)

		return exitFailed
	}

	return exitDone
}

// closeLog delivers what waits for the journal, for a moment: a journal that
// does not listen must not keep an engine from ending.
func closeLog(log *journal.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()

	_ = log.Close(ctx) // there is nowhere else to tell it
}
