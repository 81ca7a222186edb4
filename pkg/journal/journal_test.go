package journal

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"raid-assembler/pkg/raid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what should happen at once.
const patience = 20 * time.Second

// journald is a receiver at the socket path.
type journald struct {
	t *testing.T
	*net.UnixConn
}

func startJournald(t *testing.T, path string) journald {
	t.Helper()

	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = conn.Close() })

	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}

	return journald{t, conn}
}

// next returns the fields of the next record.
func (j journald) next() map[string]string {
	j.t.Helper()

	buf := make([]byte, 64<<10)

	n, err := j.Read(buf)
	if err != nil {
		j.t.Fatalf("no record: %v", err)
	}

	fields := make(map[string]string)

	for line := range strings.Lines(string(buf[:n])) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if _, twice := fields[key]; !ok || twice {
			j.t.Errorf("record has the line %q", line)
		}

		fields[key] = value
	}

	return fields
}

func start(t *testing.T, opts Options) *Logger {
	t.Helper()

	opts.Identifier = "raid-engine"
	l := New(opts)

	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()

		_ = l.Close(ctx) // a second time does no harm
		<-l.done
	})

	return l
}

func socket(t *testing.T) string { return filepath.Join(t.TempDir(), "s") }

func number(n int) Event {
	return Event{Kind: NewDevice, Message: strconv.Itoa(n)}
}

func TestRecordHasItsFields(t *testing.T) {
	path := socket(t)
	j := startJournald(t, path)
	l := start(t, Options{Socket: path})

	l.Log(Event{
		Kind: MemberFailed, Array: "home", UUID: "c0ffee", Member: "/dev/sda", Serial: "S1", Slot: new(raid.Slot(0)),
		Reason: "read error", Message: "member /dev/sda of home failed",
	})
	l.Log(Event{Kind: AssemblerStarted})
	l.Log(Event{Kind: ArrayRefused, Array: "home", Member: "/dev/sda", Reason: "too old"})

	for _, want := range []map[string]string{
		{
			"PRIORITY": "3", "MESSAGE": "member /dev/sda of home failed", "MESSAGE_ID": MemberFailed.ID,
			"SYSLOG_IDENTIFIER": "raid-engine", "RAID_EVENT": "MemberFailed",
			"RAID_ARRAY": "home", "RAID_UUID": "c0ffee",
			"RAID_MEMBER": "/dev/sda", "RAID_SERIAL": "S1", "RAID_SLOT": "0", "RAID_REASON": "read error",
		},
		{
			"PRIORITY": "6", "MESSAGE": "AssemblerStarted", "MESSAGE_ID": AssemblerStarted.ID,
			"SYSLOG_IDENTIFIER": "raid-engine", "RAID_EVENT": "AssemblerStarted",
		},
		{
			"PRIORITY": "3", "MESSAGE": "ArrayRefused: array home: /dev/sda: too old", "MESSAGE_ID": ArrayRefused.ID,
			"SYSLOG_IDENTIFIER": "raid-engine", "RAID_EVENT": "ArrayRefused",
			"RAID_ARRAY": "home", "RAID_MEMBER": "/dev/sda", "RAID_REASON": "too old",
		},
	} {
		if diff := cmp.Diff(want, j.next()); diff != "" {
			t.Errorf("record (-want +got):\n%s", diff)
		}
	}
}

func TestValuesCannotForgeFieldsOrSteerTerminals(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"plain Ä ✓", 64, "plain Ä ✓"},
		{"a\nPRIORITY=0", 64, `a\x0aPRIORITY=0`},
		{"\x1b[2J\x00\x7f", 64, `\x1b[2J\x00\x7f`},
		{"\u0085\u202eabc\u2028", 64, `\U00000085\U0000202eabc\U00002028`},
		{"\xff\xc3", 64, `\xff\xc3`},
		{"", 8, ""},
		{"12345678", 8, "12345678"},
		{"123456789", 8, "12345…"},
		{"1234\x1b", 8, `1234\x1b`},
		{"12345\x1b", 8, "12345…"}, // an escape is whole or not there
		{"1234567Ä", 8, "12345…"},
		{"1234Äx67", 8, "1234…"},
	} {
		if got := string(appendEscaped([]byte("x="), c.in, c.limit)); got != "x="+c.want {
			t.Errorf("appendEscaped(%q, %d) = %q, want %q", c.in, c.limit, got, "x="+c.want)
		}
	}
}

// FuzzAppendEscaped holds that nothing that does not print comes out, that the
// limit is kept, and that what needs no escape is not changed.
func FuzzAppendEscaped(f *testing.F) {
	f.Add("a\n\x1b\xff\u202e", 8)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		if limit < 3 || limit > 1<<16 {
			return
		}

		got := string(appendEscaped(nil, s, limit))
		if len(got) > limit || strings.ToValidUTF8(got, "") != got {
			t.Fatalf("appendEscaped(%q, %d) = %q", s, limit, got)
		}

		for _, r := range got {
			if !strconv.IsPrint(r) && r != ' ' && r != '\u00a0' && r != '\u3000' {
				t.Fatalf("appendEscaped(%q, %d) = %q, which has %U", s, limit, got, r)
			}
		}

		if strconv.Quote(s) == `"`+s+`"` && len(s) <= limit && got != s {
			t.Fatalf("appendEscaped(%q, %d) = %q, want it unchanged", s, limit, got)
		}
	})
}

// Queue slots are made for the longest record, and Log is called by threads
// that must not wait for the allocator either.
func TestLogDoesNotAllocate(t *testing.T) {
	long := strings.Repeat("\x00", 4096)
	ev := Event{
		Kind: ArrayStartedDegraded, Array: long, UUID: long, Member: long, Serial: long, Slot: new(raid.Slot(1 << 62)),
		Reason: long, Message: long,
	}

	if n := len(appendRecord(nil, strings.Repeat("x", valueBytesMax), ev)); n > recordBytes {
		t.Errorf("the longest record has %d bytes, want at most %d", n, recordBytes)
	}

	blocked := make(chan struct{})
	l := start(t, Options{Socket: socket(t), Fallback: writer(func(p []byte) (int, error) {
		<-blocked

		return len(p), nil
	})})

	defer close(blocked)

	if n := testing.AllocsPerRun(2*queueLen, func() { l.Log(ev) }); n != 0 {
		t.Errorf("Log() allocates %v times", n)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestLogNeverWaitsForAJournalThatDoesNotRead(t *testing.T) {
	path := socket(t)
	j := startJournald(t, path)
	l := start(t, Options{Socket: path})

	// Far more than the socket and the queue hold. If Log waited the test
	// would hang, since nobody reads yet.
	const sent = 10 * queueLen
	for n := range sent {
		l.Log(number(n))
	}

	lost := l.Lost()
	if lost == 0 || lost >= sent {
		t.Fatalf("Lost() = %d of %d, want some", lost, sent)
	}

	// Now it reads. What was kept comes in order, and each gap is accounted
	// for where it is.
	for n := 0; n < sent; {
		switch fields := j.next(); fields["RAID_EVENT"] {
		case MessagesLost.Name:
			gap := lostIn(t, fields)
			n += gap
			lost -= uint64(gap)
		default:
			if fields["MESSAGE"] != strconv.Itoa(n) {
				t.Fatalf("record %q, want %d or how many were lost", fields["MESSAGE"], n)
			}

			n++
		}
	}

	if lost != 0 {
		t.Errorf("%d lost messages were not reported", lost)
	}

	l.Log(number(sent))

	if got := j.next()["MESSAGE"]; got != strconv.Itoa(sent) {
		t.Errorf("then %q, want %d", got, sent)
	}
}

// lostIn returns how many events the record of a loss is about.
func lostIn(t *testing.T, fields map[string]string) int {
	t.Helper()

	text, ok := strings.CutSuffix(fields["MESSAGE"], " messages lost")

	n, err := strconv.Atoi(text)
	if !ok || err != nil || n <= 0 || fields["MESSAGE_ID"] != MessagesLost.ID || fields["PRIORITY"] != "4" {
		t.Fatalf("record of a loss = %v", fields)
	}

	return n
}

// When there is room again before all has been delivered, the count stands
// where the lost events would have stood.
func TestLostEventsAreReportedWhereTheyAreMissing(t *testing.T) {
	released := make(chan struct{})
	lines := make(chan string, 2*queueLen)
	l := start(t, Options{Socket: socket(t), Fallback: writer(func(p []byte) (int, error) {
		<-released
		lines <- string(p)

		return len(p), nil
	})})

	const sent = queueLen + 5
	for n := range sent {
		l.Log(number(n))
	}

	for range 3 {
		released <- struct{}{}
	}

	// Three have been delivered, and at least two places are free: one for the
	// count and one for this.
	l.Log(number(sent))
	close(released)

	var got []string
	for range queueLen + 2 {
		got = append(got, strings.TrimSuffix(strings.TrimPrefix(<-lines, "raid-engine: "), "\n"))
	}

	var want []string
	for n := range queueLen {
		want = append(want, strconv.Itoa(n))
	}

	want = append(want, "5 messages lost", strconv.Itoa(sent))

	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

func TestJournaldMayComeGoAndComeBack(t *testing.T) {
	path := socket(t)
	lines := make(chan string, 10)
	l := start(t, Options{Socket: path, Prefixed: true, Fallback: writer(func(p []byte) (int, error) {
		lines <- string(p)

		return len(p), nil
	})})

	l.Log(number(1))

	if got := <-lines; got != "<6>1\n" {
		t.Errorf("before journald: %q, want <6>1", got)
	}

	j := startJournald(t, path)

	l.Log(number(2))

	if got := j.next()["MESSAGE"]; got != "2" {
		t.Errorf("with journald: %q, want 2", got)
	}

	_ = j.Close()
	j = startJournaldAgain(t, path)

	l.Log(number(3))

	if got := j.next()["MESSAGE"]; got != "3" {
		t.Errorf("with the next journald: %q, want 3", got)
	}

	_ = j.Close()

	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}

	l.Log(number(4))

	if got := <-lines; got != "<6>4\n" {
		t.Errorf("after journald: %q, want <6>4", got)
	}
}

func startJournaldAgain(t *testing.T, path string) journald {
	t.Helper()

	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}

	return startJournald(t, path)
}

func TestStandardErrorIsPrefixedForTheJournal(t *testing.T) {
	for stream, want := range map[string]bool{"": false, "8:1234": true} {
		t.Setenv("JOURNAL_STREAM", stream)

		l := start(t, Options{Socket: socket(t)})
		if l.opts.Prefixed != want || l.opts.Fallback != io.Writer(os.Stderr) {
			t.Errorf("JOURNAL_STREAM=%q: Prefixed = %v to %v, want %v to standard error",
				stream, l.opts.Prefixed, l.opts.Fallback, want)
		}
	}
}

func TestCloseDeliversWhatWaits(t *testing.T) {
	var out bytes.Buffer

	l := New(Options{Identifier: "x", Socket: socket(t), Fallback: &out})
	for n := range 100 {
		l.Log(number(n))
	}

	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	if n := strings.Count(out.String(), "\n"); n != 100 || !strings.HasPrefix(out.String(), "x: 0\nx: 1\n") {
		t.Errorf("%d lines, want 100 that begin with x: 0", n)
	}

	l.Log(number(100))

	if l.Lost() != 1 {
		t.Errorf("Lost() after Close = %d, want 1", l.Lost())
	}
}

func TestCloseGivesUpWithItsContext(t *testing.T) {
	path := socket(t)
	startJournald(t, path) // which never reads

	l := New(Options{Socket: path})
	for n := range 10 * queueLen {
		l.Log(number(n))
	}

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()

	err := l.Close(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "events not delivered") {
		t.Errorf("Close() = %v, want context.DeadlineExceeded", err)
	}

	select {
	case <-l.done:
	case <-time.After(patience):
		t.Errorf("the goroutine still runs after %v", patience)
	}
}

func TestManyCallersAtOnce(t *testing.T) {
	path := socket(t)
	j := startJournald(t, path)
	l := start(t, Options{Socket: path})

	const callers, each = 8, 200

	var all sync.WaitGroup
	for c := range callers {
		all.Go(func() {
			for n := range each {
				l.Log(Event{Kind: NewDevice, Member: strconv.Itoa(c), Message: strconv.Itoa(n)})
			}
		})
	}

	// Each caller's events arrive in its order, and none is torn; what is
	// lost is counted.
	last := make(map[string]int)

	for got := 0; got < callers*each; {
		fields := j.next()

		if fields["RAID_EVENT"] == MessagesLost.Name {
			got += lostIn(t, fields)

			continue
		}

		got++

		n, err := strconv.Atoi(fields["MESSAGE"])
		if member := fields["RAID_MEMBER"]; err != nil || n < last[member] {
			t.Fatalf("caller %s: %q after %d", member, fields["MESSAGE"], last[member])
		} else {
			last[member] = n
		}
	}

	all.Wait()

	if names := slices.Sorted(maps.Keys(last)); len(names) > callers {
		t.Errorf("callers = %v", names)
	}
}
