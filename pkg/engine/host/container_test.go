package host

import (
	"context"
	"errors"
	"testing"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/engine/core"
	"raid-assembler/pkg/engine/loop"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// sharing is a keeper that knows which others it has been put beside.
type sharing struct {
	metadata.Keeper

	beside []metadata.Keeper
	left   int
}

func (s *sharing) Leave() { s.left++ }

// TestJoin has arrays join their containers: those of one have one turn for
// their records, and the keeper of each is told of those that run.
func TestJoin(t *testing.T) {
	h := New(Config{})
	one, other := raid.UUID{1}, raid.UUID{2}

	start := func(uuid, container raid.UUID) (*running, error) {
		r, err := h.reserve(uuid, api.StartParameters{Name: "a" + uuid.String()[:2]})
		if err != nil {
			t.Fatal(err)
		}

		beside, err := h.join(r, container)
		if err == nil {
			r.keeper = &sharing{beside: beside}
		}

		return r, err
	}

	first, err := start(raid.UUID{0x10}, one)
	if err != nil {
		t.Fatal(err)
	}

	if _, err := start(raid.UUID{0x20}, one); !errors.Is(err, ErrRefused) {
		t.Errorf("beside an array that is being started: %v, want a refusal", err)
	}

	first.loop = new(loop.Loop)

	second, err := start(raid.UUID{0x30}, one)
	if err != nil {
		t.Fatal(err)
	}

	apart, err := start(raid.UUID{0x40}, other)
	if err != nil {
		t.Fatal(err)
	}

	alone, err := start(raid.UUID{0x50}, raid.UUID{})
	if err != nil {
		t.Fatal(err)
	}

	if beside := second.keeper.(*sharing).beside; len(beside) != 1 || beside[0] != first.keeper {
		t.Errorf("the second array is beside %v", beside)
	}

	if second.turns == nil || second.turns != first.turns || apart.turns == first.turns || alone.turns != nil {
		t.Error("turns are not those of the container")
	}

	second.loop, apart.loop, alone.loop = first.loop, first.loop, first.loop

	if others := h.beside(first); len(others) != 1 || others[raid.UUID{0x30}] != second {
		t.Errorf("beside the first: %v", others)
	}

	if others := h.beside(alone); len(others) > 0 {
		t.Errorf("beside what is of no container: %v", others)
	}
}

// TestLeave: an array that does not run, or no more, has left its container.
func TestLeave(t *testing.T) {
	k := new(sharing)

	(&running{keeper: k}).leave()
	(&running{}).leave() // it had none yet

	if k.left != 1 {
		t.Errorf("left %d times", k.left)
	}
}

// TestQuiet waits for a record of another array, and keeps others from making
// one.
func TestQuiet(t *testing.T) {
	r := &running{name: "data", turns: new(core.Container)}
	woken := make(chan struct{}, 1)
	array := r.turns.Join(func() { woken <- struct{}{} })

	if !array.Take() {
		t.Fatal("nobody has the turn, and it cannot be had")
	}

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()

	if _, err := quiet(ctx, r); !errors.Is(err, ErrRefused) {
		t.Errorf("quiet during a record: %v, want a refusal when it takes too long", err)
	}

	time.AfterFunc(10*time.Millisecond, array.Release)

	done, err := quiet(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}

	if array.Take() {
		t.Error("an array records while the superblocks are read")
	}

	done()
	<-woken

	if !array.Take() {
		t.Error("the turn has not come back")
	}
}

// TestEarlierStarts has a start wait for those before it that have one of its
// devices, and for no others.
func TestEarlierStarts(t *testing.T) {
	h := New(Config{})

	reserve := func(n byte, devices ...string) *running {
		p := api.StartParameters{Name: string('a' + rune(n))}
		for _, d := range devices {
			p.Members = append(p.Members, api.StartMember{Device: d})
		}

		r, err := h.reserve(raid.UUID{n}, p)
		if err != nil {
			t.Fatal(err)
		}

		return r
	}

	first := reserve(1, "/dev/sda", "/dev/sdb")
	second := reserve(2, "/dev/sdb", "/dev/sdc")
	third := reserve(3, "/dev/sdd")

	if err := third.wait(t.Context()); err != nil {
		t.Error(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()

	if err := second.wait(ctx); err == nil {
		t.Error("an array starts while another opens its devices")
	}

	if err := first.wait(t.Context()); err != nil {
		t.Error(err)
	}

	close(first.started)

	if err := second.wait(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestAlone gives one device to an array twice at a time.
func TestAlone(t *testing.T) {
	h := New(Config{})
	done := h.alone("/dev/sda")
	h.alone("/dev/sdb")()

	ended := false
	second := make(chan struct{})

	go func() {
		defer close(second)
		defer h.alone("/dev/sda")()

		if !ended {
			t.Error("two at a time")
		}
	}()

	time.Sleep(10 * time.Millisecond)

	ended = true

	done()
	<-second
}
