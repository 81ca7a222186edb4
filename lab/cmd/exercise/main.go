// Exercise writes to a device in a guest all the time, and knows what may be
// read back: in normal service, and after the power was cut.
//
//	exercise fill    -model FILE DEVICE     writes all of it
//	exercise run     -model FILE DEVICE     reads, writes, flushes, discards and checks what it reads
//	exercise check   -model FILE DEVICE     reads all of it
//	exercise crashed -model FILE DEVICE     says whether a run that the power cut ended lost what it may not
//	exercise fsx     FILE                   does to a file what fsx does
//	exercise halt    THREAD                 holds a thread until its process is killed
//	exercise hog     MIB                    takes memory
//	exercise progress DEVICE                says how long its requests waited at most with none completed
//
// The model is a file that says what is on the device. It must not be on it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"raid-assembler/lab/internal/exercise"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// options are the flags of all verbs.
type options struct {
	model   string
	log     string
	pattern uint64
	mix     string
	seed    uint64
	row     int64
	without string
	depth   int
	ops     int
	period  time.Duration
	path    string
}

// verbs do what their names say, and return a line about it.
var verbs = map[string]func(options) (string, error){
	"fill": fill, "run": exert, "check": check, "crashed": crashed, "fsx": fsx, "halt": halt,
	"hog": hog, "progress": progress,
}

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 || verbs[args[0]] == nil {
		fmt.Fprintln(stderr, "usage: exercise fill|run|check|crashed|fsx|halt|hog|progress [FLAGS] PATH")

		return 2
	}

	var o options

	f := flag.NewFlagSet("exercise "+args[0], flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.model, "model", "", "file with what is on the device")
	f.StringVar(&o.log, "log", "", "file that survives a power cut, for what was flushed")
	f.Uint64Var(&o.pattern, "pattern", 0, "seed of the golden pattern that the device holds already")
	f.StringVar(&o.mix, "mix", "mixed", fmt.Sprint("workload: one of ", exercise.Mixes()))
	f.Uint64Var(&o.seed, "seed", 1, "of the operations")
	f.Int64Var(&o.row, "row", 0, "of crashed: sectors of a row, all of which may be lost while a part of it is written")
	f.StringVar(&o.without, "without", "", "of check: the sectors that cannot be read, which are these and no others")
	f.IntVar(&o.depth, "depth", 8, "operations at a time")
	f.IntVar(&o.ops, "ops", 0, "operations to do; 0: until the time is over")
	f.DurationVar(&o.period, "for", 0, "time to run; 0: until the operations are done")

	if err := f.Parse(args[1:]); err != nil {
		return 2
	}

	if f.NArg() != 1 {
		fmt.Fprintln(stderr, "exercise: want one path")

		return 2
	}

	o.path = f.Arg(0)

	said, err := verbs[args[0]](o)
	if err != nil {
		fmt.Fprintf(stderr, "exercise: %s %s (seed %d): %v\n", args[0], o.path, o.seed, err)

		return 1
	}

	fmt.Fprintf(stdout, "%s %s: %s\n", args[0], o.path, said)

	return 0
}

// fill writes the first generation, or takes a pattern for it.
func fill(o options) (string, error) {
	d, err := openDevice(o.path)
	if err != nil {
		return "", err
	}
	defer d.close()

	m, err := exercise.NewModel(d.sectors, o.pattern)
	if err != nil {
		return "", err
	}

	if o.pattern != 0 {
		return "taken as it is", saveModel(o.model, m)
	}

	err = d.walk(func(first int64, p []byte) error {
		exercise.Fill(p, first, exercise.First, 0)

		return d.writeAt(p, first)
	})
	if err != nil {
		return "", err
	}

	return fmt.Sprintf("%d sectors", d.sectors), errors.Join(d.flush(), saveModel(o.model, m))
}

// check compares all of the device with its model.
func check(o options) (string, error) {
	d, m, err := openBoth(o)
	if err != nil {
		return "", err
	}
	defer d.close()

	var unreadable []string

	err = d.walk(func(first int64, p []byte) error {
		bad, err := d.checkPiece(m, p, first, o.without != "")
		unreadable = append(unreadable, bad...)

		return err
	})

	if got := strings.Join(unreadable, " "); err == nil && got != o.without {
		return "", fmt.Errorf("sectors that cannot be read: %q, want %q", got, o.without)
	}

	return fmt.Sprintf("%d sectors are right", d.sectors-int64(len(unreadable))), err
}

// checkPiece compares sectors with a model. It returns those that cannot be read,
// if some may be like that: it halves what cannot be read until it has found them.
func (d *device) checkPiece(m *exercise.Model, p []byte, first int64, without bool) ([]string, error) {
	err := d.readAt(p, first)
	if err == nil {
		return nil, m.Check(p, first)
	}

	count := int64(len(p)) / exercise.SectorSize

	switch {
	case !without || !errors.Is(err, unix.EIO):
		return nil, err
	case count == d.unit:
		return []string{strconv.FormatInt(first, 10)}, nil
	}

	half := max(count/2/d.unit, 1) * d.unit
	left, leftErr := d.checkPiece(m, p[:half*exercise.SectorSize], first, true)
	right, rightErr := d.checkPiece(m, p[half*exercise.SectorSize:], first+half, true)

	return append(left, right...), errors.Join(leftErr, rightErr)
}

// crashed judges a device after a power cut.
func crashed(o options) (string, error) {
	d, m, err := openBoth(o)
	if err != nil {
		return "", err
	}
	defer d.close()

	stream, err := exercise.NewStream(o.mix, o.seed, d.sectors, d.unit)
	if err != nil {
		return "", err
	}

	promise, err := readLog(o.log)
	if err != nil {
		return "", err
	}

	c := exercise.NewCrash(m, o.row)

	err = d.walk(func(first int64, p []byte) error {
		if err := d.readAt(p, first); err != nil {
			return err
		}

		c.See(p)

		return nil
	})
	if err != nil {
		return "", err
	}

	base := m.Last

	out, err := c.Judge(stream, promise)
	if err != nil {
		return "", err
	}

	return fmt.Sprintf("flushed %d of %d operations, %d single ones durable, %d sectors hold what was not, %d are lost",
			max(promise.Flushed, base)-base, max(out.Last, base)-base, len(promise.Durable), out.Kept, out.Lost),
		saveModel(o.model, m)
}
