// Command raid-assembler finds the RAID arrays of a host and has raid-engine
// run them. It is the daemon that does so by itself, and the commands to look
// after them.
//
// It parses, calls and prints; what is done is decided in the packages below
// pkg. Each verb is in a file of its own.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"raid-assembler/pkg/api"
)

// version is set when the program is built.
var version = "unknown"

// exitCode is what the program says to scripts.
type exitCode int

// The exit codes. They are a contract.
const (
	exitDone      exitCode = 0  // done, or healthy
	exitAttention exitCode = 1  // degraded, or in need of attention
	exitFailed    exitCode = 2  // failed, or broken
	exitRefused   exitCode = 3  // refused, with the reason on stderr
	exitUnknown   exitCode = 4  // could not tell
	exitUsage     exitCode = 64 // called wrongly
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)

	stop()
	os.Exit(int(code))
}

// run runs the program with the arguments given, without its name.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) exitCode {
	p := &program{out: stdout, err: stderr}
	root := p.command()
	root.SetArgs(args)

	err := root.ExecuteContext(ctx)

	outcome, ran := errors.AsType[*outcome](err)

	switch {
	case err == nil:
		return exitDone
	case !ran:
		// What no verb returned is cobra's: the arguments are wrong.
		p.complain(err)
		_, _ = fmt.Fprintln(stderr, "See raid-assembler --help.")

		return exitUsage
	case outcome.err != nil:
		p.complain(outcome.err)
	}

	return outcome.code
}

// program is what all verbs share.
type program struct {
	out, err io.Writer
	json     bool

	assemblerSocket, engineSocket string
}

// outcome is how a verb ended, other than well.
type outcome struct {
	code exitCode
	err  error // nil if all has been said
}

func (o *outcome) Error() string { return fmt.Sprint(o.err) }

func (o *outcome) Unwrap() error { return o.err }

// verb makes what cobra calls out of what verbs are. An error without a code
// is a failure.
func verb(f func(cmd *cobra.Command, args []string) (exitCode, error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		code, err := f(cmd, args)
		if err != nil && code == exitDone {
			code = exitFailed
		}

		if code == exitDone {
			return nil
		}

		if code == exitUsage {
			return err
		}

		return &outcome{code: code, err: err}
	}
}

// complain prints an error. It may quote what was read from a disk.
func (p *program) complain(err error) {
	_, _ = fmt.Fprintln(p.err, "raid-assembler:", printable(err.Error()))
}

// printf prints to the standard output. Strings among args that come from a
// disk or another program have to be printable.
func (p *program) printf(format string, args ...any) { _, _ = fmt.Fprintf(p.out, format, args...) }

// notef prints to the standard error output, likewise.
func (p *program) notef(format string, args ...any) { _, _ = fmt.Fprintf(p.err, format, args...) }

// printJSON prints v as --json promises: one value, indented, with an end of
// line.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")

	return e.Encode(v)
}

// command returns the root command with all verbs.
func (p *program) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "raid-assembler",
		Short: "find and look after RAID arrays",
		Long: "raid-assembler finds the RAID arrays of a host and has raid-engine run them.\n" +
			"Its verbs show and change what the daemon does; examine, dump and erase need neither\n" +
			"the daemon nor root, and work on image files too.",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: verb(func(*cobra.Command, []string) (exitCode, error) {
			return exitUsage, errors.New("a verb is missing")
		}),
	}
	root.SetOut(p.out)
	root.SetErr(p.err)
	root.SetVersionTemplate("raid-assembler {{.Version}}\n")

	flags := root.PersistentFlags()
	flags.BoolVar(&p.json, "json", false, "print JSON")
	flags.StringVar(&p.assemblerSocket, "assembler-socket", api.AssemblerSocket, "where the daemon listens")
	flags.StringVar(&p.engineSocket, "engine-socket", api.EngineSocket, "where the engine listens")

	for _, internal := range []string{"assembler-socket", "engine-socket"} {
		_ = flags.MarkHidden(internal) // fails only for a flag that is not there
	}

	root.AddCommand(
		p.statusVerb(), p.examineVerb(), p.dumpVerb(), p.probeVerb(),
		p.createVerb(), p.assembleVerb(), p.stopVerb(), p.addVerb(), p.failVerb(), p.removeVerb(),
		p.replaceVerb(), p.checkVerb(), p.repairVerb(), p.idleVerb(), p.waitVerb(), p.limitVerb(),
		p.readonlyVerb(), p.readwriteVerb(), p.growVerb(), p.bitmapVerb(), p.eraseVerb(),
		p.explainVerb(), p.planVerb(), p.recordVerb(), p.replayVerb(), p.doctorVerb(),
		p.guardVerb(), p.configVerb(),
		p.daemonVerb(), p.versionVerb(), p.manVerb(), p.generatorVerb(),
	)

	return root
}
