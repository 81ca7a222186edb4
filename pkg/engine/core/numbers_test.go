package core

import (
	"testing"

	"raid-assembler/pkg/engine"
	"raid-assembler/pkg/engine/stripe"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// giver is a keeper that takes any device, and calls each by another name.
type giver struct {
	*keeper

	named metadata.MemberID
}

func (g *giver) Add(metadata.Source, raid.UUID) (id metadata.MemberID, offset, size raid.Sectors, err error) {
	g.named++

	return g.named, dataOffset, 1024, nil
}

func newGiver(t *testing.T) (*Core, *giver) {
	t.Helper()

	c, k := newMirror(t, 2)
	g := &giver{k, 1}
	c.cfg.Keeper = g

	return c, g
}

func opened(engine.DeviceID) error { return nil }

// TestNumbers gives an array devices and lets go of them, more often than there are
// numbers: each is recorded by the name that the keeper has for it, and none is called
// what is in use, or what an operation names that has not ended.
func TestNumbers(t *testing.T) {
	c, k := newGiver(t)

	hangs := flight{flying: true, Operation: Operation{Device: 7}}
	c.flights = append(c.flights, hangs)
	seen := make(map[engine.DeviceID]int)

	for range 3 * DeviceMax {
		id, err := c.Add(metadata.Source{}, raid.UUID{}, opened)
		if err != nil {
			t.Fatal(err)
		}

		seen[id]++
		wrote := 0

		for c.recorder.active {
			c.turn(func(o Operation) bool {
				if o.Op == stripe.Write && o.Record && o.Device == id {
					wrote++
				}

				return false
			})
		}

		if last := k.records[len(k.records)-1]; last.Members[k.named].State != raid.Spare || len(last.Members) != 3 || wrote != 1 {
			t.Fatalf("device %d: recorded %+v with %d writes to it, want %d as a spare by one", id, last, wrote, k.named)
		}

		if err := c.Remove(id); err != nil {
			t.Fatal(err)
		}

		for c.recorder.active {
			c.turn(nil)
		}

		if last := k.forgotten[len(k.forgotten)-1]; last != k.named {
			t.Fatalf("device %d: the keeper is to forget %d, want %d", id, last, k.named)
		}
	}

	if seen[0]+seen[1]+seen[7] > 0 || seen[2] < 3 || seen[DeviceMax] < 3 {
		t.Errorf("devices were called %v", seen)
	}
}

// TestNumbersAllInUse gives an array as many devices as there are numbers.
func TestNumbersAllInUse(t *testing.T) {
	c, k := newGiver(t)

	for range DeviceMax - 1 {
		if _, err := c.Add(metadata.Source{}, raid.UUID{}, opened); err != nil {
			t.Fatal(err)
		}
	}

	for c.recorder.active {
		c.turn(nil)
	}

	if id, err := c.Add(metadata.Source{}, raid.UUID{}, opened); err == nil {
		t.Errorf("a device more is called %d", id)
	}

	if last := k.forgotten[len(k.forgotten)-1]; last != k.named {
		t.Errorf("the keeper is to forget %d, want %d, which is not taken", last, k.named)
	}
}
