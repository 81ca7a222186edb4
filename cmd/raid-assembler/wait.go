package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"raid-assembler/pkg/api"
)

const (
	// lookEvery is how often the arrays are looked at that are waited for.
	lookEvery = 500 * time.Millisecond
	// silenceMax is how often in a row the daemon may fail to answer before
	// that is an answer too: it may be restarted meanwhile.
	silenceMax = 20
)

// await waits until nothing goes on at the arrays named, or at all if there are
// no names, and tells how far it is on the standard error output. Returns the
// arrays as they are then.
func (p *program) await(ctx context.Context, names []string) ([]api.Array, exitCode, error) {
	shown := newMeter(p)
	defer shown.end()

	for silent := 0; ; {
		var status api.Status

		err := p.callAssembler(ctx, "Status", nil, &status)
		if err != nil {
			if silent++; silent > silenceMax || silent == 1 && errors.Is(err, errUnreachable) || ctx.Err() != nil {
				_, err = answer(err)

				return nil, exitUnknown, err
			}
		} else {
			silent = 0

			complete(&status)

			arrays, err := chosen(status, names)
			if err != nil {
				return nil, exitRefused, err
			}

			if !slices.ContainsFunc(arrays, func(a api.Array) bool { return a.Sync != nil }) {
				return arrays, exitDone, nil
			}

			shown.show(arrays)
		}

		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return nil, exitUnknown, errors.New("interrupted; what goes on does so")
		}
	}
}

// chosen returns the arrays with the names or UUIDs given, or all that run.
func chosen(status api.Status, names []string) ([]api.Array, error) {
	if len(names) == 0 {
		return status.Arrays, nil
	}

	var arrays []api.Array

	for _, name := range names {
		i := slices.IndexFunc(status.Arrays, func(a api.Array) bool { return a.Name == name || a.UUID == name })
		if i < 0 {
			return nil, fmt.Errorf("no array is called %q", name)
		}

		arrays = append(arrays, status.Arrays[i])
	}

	return arrays, nil
}

// meter shows progress: on a terminal in one line that changes, elsewhere in a
// line for each tenth.
type meter struct {
	p     *program
	live  bool
	drawn bool
	tenth map[string]string // by array: what was said last
}

func newMeter(p *program) *meter {
	return &meter{p: p, live: isTerminal(p.err), tenth: make(map[string]string)}
}

func (m *meter) show(arrays []api.Array) {
	if m.p.json {
		return
	}

	line := ""

	for _, a := range arrays {
		if a.Sync == nil {
			continue
		}

		text := word(a.Name) + ": " + syncText(*a.Sync)

		switch said := fmt.Sprint(a.Sync.Action, 10*a.Sync.DoneBytes/max(1, a.Sync.TotalBytes)); {
		case m.live && line == "":
			line = text
		case m.live:
			line += "; " + text
		case m.tenth[a.Name] != said:
			m.tenth[a.Name] = said
			m.p.notef("%s\n", text)
		}
	}

	if m.live {
		m.drawn = true
		m.p.notef("\r%s\x1b[K", line)
	}
}

// end leaves the terminal as it was.
func (m *meter) end() {
	if m.drawn {
		m.p.notef("\r\x1b[K")
	}
}
