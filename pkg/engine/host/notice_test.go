package host

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/api/varlink"
	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/core"
	"raid-assembler/pkg/engine/loop"
	"raid-assembler/pkg/engine/member"
	"raid-assembler/pkg/journal"
	"raid-assembler/pkg/raid"
)

// notes returns all kinds of notes: those that have a text.
func notes() []engine.Note {
	var all []engine.Note

	named := func(n engine.Note) (ok bool) {
		defer func() { ok = recover() == nil }()

		return n.String() != ""
	}

	for n := engine.Note(0); named(n); n++ {
		all = append(all, n)
	}

	return all
}

// TestEveryNoteHasAStory tells each kind of note, and checks that the journal
// names the array, the member and the slot.
func TestEveryNoteHasAStory(t *testing.T) {
	if n := len(notes()); n != len(stories) || n <= int(engine.NoteResyncFailed) {
		t.Errorf("%d stories for %d notes", len(stories), n)
	}

	for _, note := range notes() {
		var told []journal.Event

		h := New(Config{Tell: func(ev journal.Event) { told = append(told, ev) }})
		changed := h.Changed()

		h.notice(raid.UUID{1}, &running{name: "data"}, loop.Notice{
			Report: engine.Report{Note: note, Device: 2, Slot: 1},
			Member: &member.Device{Path: "/dev/sdc", Serial: "S2"},
			Offset: 5 << 11, Cause: "a cause",
		})

		if len(told) != 1 {
			t.Fatalf("%v: %d events, want 1", note, len(told))
		}

		ev := told[0]
		if ev.Kind.Name == "" || ev.Array != "data" || ev.UUID == "" || ev.Reason != "a cause" ||
			ev.Member != "/dev/sdc" || ev.Serial != "S2" || ev.Slot == nil || *ev.Slot != 1 {
			t.Errorf("%v: event %+v lacks something", note, ev)
		}

		if !strings.Contains(ev.Message, "data") {
			t.Errorf("%v: message %q does not name the array", note, ev.Message)
		}

		select {
		case <-changed:
		default:
			t.Errorf("%v: those who watch were not told", note)
		}
	}
}

func TestNoticeInWords(t *testing.T) {
	sdc := &member.Device{Path: "/dev/sdc", Serial: "S2"}

	for _, tt := range []struct {
		notice  loop.Notice
		message string
		reason  string
	}{
		{
			loop.Notice{Report: engine.Report{Note: engine.NoteFailed, Device: 2, Slot: 1}, Member: sdc},
			"/dev/sdc (serial S2) in slot 1 of data failed", "input/output error",
		},
		{
			loop.Notice{Report: engine.Report{Note: engine.NoteRecoverStart, Device: 2, Slot: 1}, Member: sdc, Offset: 5 << 11},
			"recovery of data onto /dev/sdc (serial S2) in slot 1 starts at 5 MiB", "",
		},
		{
			loop.Notice{Report: engine.Report{Note: engine.NoteNoSpare, Device: engine.None, Slot: 0}},
			"data is degraded and has no spare", "",
		},
		{
			loop.Notice{Report: engine.Report{Note: engine.NoteResyncStart, Device: engine.None, Slot: raid.NoSlot}},
			"resync of data starts", "the array was not stopped cleanly",
		},
		{
			loop.Notice{
				Report:     engine.Report{Note: engine.NoteResyncDone, Device: engine.None, Slot: raid.NoSlot},
				Mismatched: 16,
			},
			"resync of data is done", "8 KiB were not redundant and are now",
		},
		{
			loop.Notice{
				Report:     engine.Report{Note: engine.NoteCheckDone, Device: engine.None, Slot: raid.NoSlot},
				Mismatched: 16,
			},
			"check of data is done", "8 KiB of each member do not agree with the others",
		},
		{
			loop.Notice{Report: engine.Report{Note: engine.NoteCheckDone, Device: engine.None, Slot: raid.NoSlot}},
			"check of data is done", "all is redundant",
		},
		{
			loop.Notice{
				Report: engine.Report{Note: engine.NoteBadBlocks, Device: 2, Slot: 1}, Member: sdc,
				Offset: 5 << 11, Mismatched: 8,
			},
			"/dev/sdc (serial S2) in slot 1 of data has bad blocks at 5 MiB",
			"8 sectors of its data area, from 10240 on",
		},
	} {
		var got journal.Event

		h := New(Config{Tell: func(ev journal.Event) { got = ev }})
		h.notice(raid.UUID{1}, &running{name: "data"}, tt.notice)

		if got.Message != tt.message || got.Reason != tt.reason {
			t.Errorf("%v: %q because of %q, want %q because of %q",
				tt.notice.Note, got.Message, got.Reason, tt.message, tt.reason)
		}
	}
}

// TestMismatchFound checks that what a check found is an event of its own, for
// who waits for nothing else.
func TestMismatchFound(t *testing.T) {
	for mismatched, want := range map[raid.Sectors]string{0: "[CheckFinished]", 16: "[MismatchFound CheckFinished]"} {
		var kinds []string

		h := New(Config{Tell: func(ev journal.Event) { kinds = append(kinds, ev.Kind.Name) }})
		h.notice(raid.UUID{1}, &running{name: "data"}, loop.Notice{
			Report: engine.Report{Note: engine.NoteCheckDone, Device: engine.None, Slot: raid.NoSlot}, Mismatched: mismatched,
		})

		if got := fmt.Sprint(kinds); got != want {
			t.Errorf("%d mismatched: %s, want %s", mismatched, got, want)
		}
	}
}

// TestFollowToTheEnd tells what happened right before an array ended.
func TestFollowToTheEnd(t *testing.T) {
	const want = 10

	told := 0
	h := New(Config{Tell: func(journal.Event) { told++ }})
	r := &running{name: "data", notices: make(chan loop.Notice, want)}
	done := make(chan struct{})

	for range want {
		r.notices <- loop.Notice{Report: engine.Report{Note: engine.NoteFailed}}
	}

	close(done)
	h.follow(raid.UUID{1}, r, done)

	if told != want {
		t.Errorf("%d of %d notices were told", told, want)
	}
}

// TestToldAtOnce: what happened at once is told at once, and whoever watches looks once.
func TestToldAtOnce(t *testing.T) {
	var changed <-chan struct{}

	h := New(Config{Tell: func(ev journal.Event) {
		select {
		case <-changed:
			t.Errorf("%v is told after a look at what has become of it", ev.Kind)
		default:
		}
	}})
	changed = h.Changed()

	r := &running{name: "data", notices: make(chan loop.Notice, 2)}
	done := make(chan struct{})

	r.notices <- loop.Notice{Report: engine.Report{Note: engine.NoteSpareActive}}
	r.notices <- loop.Notice{Report: engine.Report{Note: engine.NoteRecoverStart}}

	close(done)
	h.follow(raid.UUID{1}, r, done)

	select {
	case <-changed:
	default:
		t.Error("nobody looks")
	}
}

func TestDescribeSync(t *testing.T) {
	for _, tt := range []struct {
		progress loop.Progress
		want     api.Sync
	}{
		{
			loop.Progress{Action: raid.Recover, Done: 2048, Total: 10240, Rate: 1024, Left: 8500 * time.Millisecond},
			api.Sync{Action: "recover", DoneBytes: 1 << 20, TotalBytes: 5 << 20, BytesPerSecond: 1 << 19, SecondsLeft: 8},
		},
		{ // just begun: nobody can tell
			loop.Progress{Action: raid.Resync, Total: 10240, Left: -1},
			api.Sync{Action: "resync", TotalBytes: 5 << 20, SecondsLeft: -1},
		},
		{
			loop.Progress{Action: raid.Check, Total: 10240, Left: -1, Delayed: "web"},
			api.Sync{Action: "check", TotalBytes: 5 << 20, SecondsLeft: -1, WaitsFor: "web"},
		},
	} {
		if diff := cmp.Diff(tt.want, *describeSync(tt.progress)); diff != "" {
			t.Errorf("describeSync(%+v) (-want +got):\n%s", tt.progress, diff)
		}
	}
}

func TestDescribeScrub(t *testing.T) {
	if got := describeScrub(core.Wrong{Action: raid.Idle}); got != nil {
		t.Errorf("describeScrub(nothing) = %+v, want nothing", got)
	}

	got := describeScrub(core.Wrong{
		Action: raid.Check, Done: true, Sectors: 24,
		Where: []raid.Range{{From: 8, To: 16}, {From: 24, To: 32}}, Slots: []raid.Slot{2, raid.NoSlot},
	})
	want := &api.Scrub{
		Action: "check", Done: true, MismatchedBytes: 24 * 512, Where: []api.Mismatch{{From: 4096, To: 8192, Slot: new(2)}, {From: 12288, To: 16384}},
	}

	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("describeScrub (-want +got):\n%s", diff)
	}
}

func TestLimited(t *testing.T) {
	now := core.Speed{Min: 2000, Max: 400000}

	for _, tt := range []struct {
		name     string
		low, top *int64
		want     core.Speed
		refused  string
	}{
		{"neither", nil, nil, now, ""},
		{"one", nil, new(int64(1 << 20)), core.Speed{Min: 2000, Max: 2048}, ""},
		{"the usual ones", new(int64), new(int64), core.Speed{}, ""},
		{"crossed", new(int64(1 << 20)), new(int64(1 << 10)), now, "at least 1048576 and at most 1024"},
		{"crossed with what holds", nil, new(int64(1 << 10)), now, "cannot be"},
		{"negative", new(int64(-512)), nil, now, "cannot be"},
	} {
		got, err := limited(now, api.LimitParameters{Minimum: tt.low, Maximum: tt.top})
		checkRefused(t, err, tt.refused)

		if err == nil && got != tt.want {
			t.Errorf("%s: limited = %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestReplyNamesErrors(t *testing.T) {
	for _, tt := range []struct {
		err          error
		want, reason string
	}{
		{fmt.Errorf("in use: %w", ErrRefused), "Refused", "in use"},
		{fmt.Errorf("no such array: %w", ErrNotFound), "NotFound", "no such array"},
		{errors.New("input/output error"), "Failed", "input/output error"},
		// Refused for want of something is refused.
		{fmt.Errorf("%w: %w", ErrNotFound, ErrRefused), "Refused", "not found"},
	} {
		var got *varlink.Error
		if err := reply(tt.err); !errors.As(err, &got) {
			t.Fatalf("reply(%v) = %v, want an error of varlink", tt.err, err)
		}

		if got.Name != "io.raidassembler.Engine."+tt.want || got.Reason() != tt.reason {
			t.Errorf("reply(%v) = %s (%s), want %s (%s)", tt.err, got.Name, got.Reason(), tt.want, tt.reason)
		}
	}

	if err := reply(nil); err != nil {
		t.Errorf("reply(nil) = %v, want nil", err)
	}
}
