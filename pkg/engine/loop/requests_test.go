package loop

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/stripe"
)

// TestVerdict answers requests that have ended while a failure is recorded, and
// when the array is broken before it was: a write that ended well on the member
// that is gone is not there when both come back.
func TestVerdict(t *testing.T) {
	type want struct {
		errno unix.Errno
		due   bool
	}

	const done = 1 // the second of each pair is of a request that ended well

	for _, tt := range []struct {
		name   string
		events []engine.Event
		op     stripe.Op
		want   [2]want
	}{
		{"all is well", nil, stripe.Write, [2]want{{unix.EIO, true}, {0, true}}},
		{"unrecorded", fail(0), stripe.Write, [2]want{{unix.EIO, false}, {unix.EIO, false}}},
		{"unrecorded", fail(0), stripe.Flush, [2]want{{unix.EIO, false}, {unix.EIO, false}}},
		{"unrecorded", fail(0), stripe.Read, [2]want{{unix.EIO, true}, {0, true}}},
		{"recorded", record(fail(0), 2), stripe.Write, [2]want{{unix.EIO, true}, {0, true}}},
		{"broken, unrecorded", fail(0, 1), stripe.Write, [2]want{{unix.EIO, true}, {unix.EIO, true}}},
		{"broken, recorded late", record(fail(0, 1), 2), stripe.Write, [2]want{{unix.EIO, true}, {unix.EIO, true}}},
		{"broken, recorded", append(record(fail(0), 2), fail(1)...), stripe.Write, [2]want{{unix.EIO, true}, {0, true}}},
		{"broken", fail(0, 1), stripe.Read, [2]want{{unix.EIO, true}, {0, true}}},
	} {
		l, _ := newLoop(t, 2, nil)
		l.kinds[7] = tt.op

		for _, ev := range append([]engine.Event{
			engine.Started{}, engine.WriteArrived{}, engine.SuperblocksDurable{Seq: 1},
		}, tt.events...) {
			l.array.Step(ev)
		}

		for ended, want := range tt.want {
			errno, due := l.verdict(answer{tag: 7, ok: ended == done})
			if due != want.due || due && errno != want.errno {
				t.Errorf("%s: verdict(%v, ok %v) = %v, %v, want %v, %v",
					tt.name, tt.op, ended == done, errno, due, want.errno, want.due)
			}
		}
	}
}

func fail(devices ...engine.DeviceID) []engine.Event {
	var events []engine.Event
	for _, d := range devices {
		events = append(events, engine.MemberFailed{Device: d})
	}

	return events
}

func record(events []engine.Event, seq uint64) []engine.Event {
	return append(events, engine.SuperblocksDurable{Seq: seq})
}

// TestTransferToARemovedDevice removes a member that failed while the data path
// still has a write for it, not submitted yet. It must end as one to a device
// that is gone, and nowhere else.
func TestTransferToARemovedDevice(t *testing.T) {
	l, _ := newLoop(t, 2, nil)
	file := l.openFile(t, 0, false)
	data := bytes.Repeat([]byte{0xda}, 4096)

	l.submit(stripe.Request{Tag: 3, Op: stripe.Write, Data: data})

	l.step(engine.MemberFailed{Device: 1})
	l.step(engine.DeviceRemoved{Device: 1})
	delete(l.disks, 1)

	if err := l.ring.UpdateFile(fileSlot(1), -1); err != nil {
		t.Fatal(err)
	}

	for _, tr := range l.path.Transfers() {
		l.transfer(&tr)
	}

	for len(l.answers) == 0 {
		l.wait(t)

		for _, res := range l.path.Results() {
			if err := l.ended(res); err != nil {
				t.Fatal(err)
			}
		}
	}

	got := make([]byte, (dataOffset + 16).Bytes())
	if _, err := file.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}

	want := make([]byte, len(got))
	copy(want[dataOffset.Bytes():], data)

	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("byte %d of the other member is %#x, want %#x", i, got[i], want[i])
		}
	}

	if !l.answers[0].ok {
		t.Error("the write is given up, although the other member has it")
	}
}
