// Package recording is what policy was shown and what it decided, as text: it can
// be attached to a report, and replayed where the disks are not.
//
// Policy is a function of what it is shown, so that a view with its settings is all
// that a decision comes from. A recording is lines of JSON: a [Header], then the
// [Entry] of each view that was not like the one before.
package recording

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
)

// Version is the version of the form. Another is not read.
const Version = 1

// BytesMax is the most that is read of a recording.
const BytesMax = 256 << 20

// Header is the first line.
type Header struct {
	Version int    `json:"recording"`
	Program string `json:"program"` // that recorded it, with its version
	Dropped int64  `json:"dropped"` // entries before the first, that were too many to keep
	Hashed  bool   `json:"hashed"`  // serial numbers and the like are not what they were
}

// Entry is what was decided once, and again while nothing changed.
type Entry struct {
	Time  time.Time `json:"time"`  // of the view
	Until time.Time `json:"until"` // when a view was last like it, but for the time
	Times int       `json:"times"` // that it was decided
	State State     `json:"state"`
}

// State is what policy was shown, and what it decided.
type State struct {
	View      policy.View       `json:"view"`
	Settings  Settings          `json:"settings"`
	Decisions []policy.Decision `json:"decisions"`
}

// Settings are a [policy.Config] as values, for the arrays of one view.
type Settings struct {
	Deadline time.Duration `json:"deadline"`
	Readd    bool          `json:"readd"`
	Choices  []Chosen      `json:"choices"`
}

// Chosen is what was chosen for one array.
type Chosen struct {
	Array  policy.Identity `json:"array"`
	Choice policy.Choice   `json:"choice"`
}

// StateOf returns what there is to record of a decision.
func StateOf(v policy.View, cfg policy.Config, ds []policy.Decision) State {
	s := State{View: v, Settings: Settings{Deadline: cfg.Deadline, Readd: cfg.Readd}, Decisions: ds}
	known := make(map[policy.Identity]bool)
	s.View.Devices = slices.Clone(v.Devices)

	for i := range s.View.Devices {
		d := &s.View.Devices[i]
		if d.Superblock == nil {
			continue
		}

		d.Superblock = brief(*d.Superblock)

		if id := v.Identity(d.Superblock); cfg.For != nil && !known[id] {
			known[id] = true
			s.Settings.Choices = append(s.Settings.Choices, Chosen{id, cfg.For(id)})
		}
	}

	return s
}

// brief leaves out the places at the end of a role table that are free: what is not
// there is.
func brief(sb policy.Superblock) *policy.Superblock {
	end := len(sb.Roles)
	for end > 0 && sb.Roles[end-1] == raid.RoleSpare {
		end--
	}

	sb.Roles = sb.Roles[:end]

	return &sb
}

// Config returns the settings as policy takes them. What was chosen for arrays that
// they do not name is what base has for them.
func (s Settings) Config(base policy.Config) policy.Config {
	cfg := policy.Config{Deadline: s.Deadline, Readd: s.Readd, Served: base.Served}

	cfg.For = func(id policy.Identity) policy.Choice {
		for _, c := range s.Choices {
			if c.Array == id {
				return c.Choice
			}
		}

		if base.For != nil {
			return base.For(id)
		}

		return policy.Choice{Deadline: s.Deadline}
	}

	return cfg
}

// Replay has policy decide anew, and returns what it decides and how that differs
// from what was recorded, a sentence a line.
func (s State) Replay() (ds []policy.Decision, differences []string) {
	ds = policy.Decide(s.View, s.Settings.Config(policy.DefaultConfig()))

	for i := range max(len(ds), len(s.Decisions)) {
		was, is := "nothing", "nothing"
		if i < len(s.Decisions) {
			was = text(s.Decisions[i])
		}

		if i < len(ds) {
			is = text(ds[i])
		}

		if was != is {
			differences = append(differences, fmt.Sprintf("decision %d was %s, and is %s", i+1, was, is))
		}
	}

	return ds, differences
}

// text is all of a decision, on one line.
func text(d policy.Decision) string {
	b, err := json.Marshal(d)
	if err != nil {
		return err.Error()
	}

	return string(b)
}

// Write writes a recording.
func Write(w io.Writer, h Header, entries []Entry) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)

	if err := e.Encode(h); err != nil {
		return err
	}

	for _, entry := range entries {
		if err := e.Encode(entry); err != nil {
			return err
		}
	}

	return nil
}

// Read reads what Write wrote. What else there is is not trusted.
func Read(r io.Reader) (Header, []Entry, error) {
	var h Header

	limited := &io.LimitedReader{R: r, N: BytesMax}
	d := json.NewDecoder(limited)

	if err := d.Decode(&h); err != nil {
		return h, nil, fmt.Errorf("recording: it does not begin as one: %w", err)
	}

	if h.Version != Version {
		return h, nil, fmt.Errorf("recording: it is of version %d, and only %d is known", h.Version, Version)
	}

	d.DisallowUnknownFields()

	var entries []Entry

	for {
		var entry Entry

		err := d.Decode(&entry)

		switch {
		case errors.Is(err, io.EOF) && limited.N > 0:
			return h, entries, nil
		case limited.N <= 0:
			return h, nil, fmt.Errorf("recording: more than %d MiB", BytesMax>>20)
		case err != nil:
			return h, nil, fmt.Errorf("recording: entry %d: %w", len(entries)+1, err)
		}

		entries = append(entries, entry)
	}
}
