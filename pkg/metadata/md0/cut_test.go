package md0

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
)

// story is what happens to an array, record by record.
type story struct {
	name   string
	g      raid.Geometry
	spares int
	states []metadata.State
}

func stories() []story {
	mirror := raid.Geometry{Level: raid.Level1, Disks: 2}
	parity := raid.Geometry{Level: raid.Level5, Layout: raid.LeftSymmetric, Disks: 3, Chunk: 16}
	dirty := func(st metadata.State) metadata.State {
		st.ResyncOffset = 0

		return st
	}

	return []story{
		{"a member of a mirror fails and a spare takes its place", mirror, 1, []metadata.State{
			state(inSync(0), inSync(1), spare()),
			dirty(state(inSync(0), inSync(1), spare())),
			dirty(state(faulty(0), inSync(1), spare())),
			dirty(state(faulty(0), inSync(1), recovering(0))),
			state(faulty(0), inSync(1), inSync(0)),
			state(gone(), inSync(1), inSync(0)),
			dirty(state(gone(), inSync(1), inSync(0))),
		}},
		{"a member of a mirror is removed, and is replaced", mirror, 1, []metadata.State{
			state(inSync(0), inSync(1), spare()),
			state(inSync(0), gone(), spare()),
			state(inSync(0), gone(), recovering(1)),
			state(inSync(0), gone(), inSync(1)),
		}},
		{"two members of three go one after the other", parity, 2, []metadata.State{
			state(inSync(0), inSync(1), inSync(2), spare(), spare()),
			dirty(state(inSync(0), inSync(1), faulty(2), spare(), spare())),
			state(inSync(0), inSync(1), faulty(2), recovering(2), spare()),
			dirty(state(inSync(0), inSync(1), faulty(2), inSync(2), spare())),
			state(faulty(0), inSync(1), faulty(2), inSync(2), recovering(0)),
			state(faulty(0), inSync(1), gone(), inSync(2), inSync(0)),
		}},
		// The slot goes from one to the other in one record.
		{"a member is replaced while it works", parity, 1, []metadata.State{
			state(inSync(0), inSync(1), inSync(2), spare()),
			dirty(state(inSync(0), inSync(1), inSync(2), replacing(1, raid.Recovering))),
			state(inSync(0), inSync(1), inSync(2), replacing(1, raid.InSync)),
			state(inSync(0), faulty(1), inSync(2), inSync(1)),
			dirty(state(inSync(0), gone(), inSync(2), inSync(1))),
		}},
		{"half a mirror is replaced while it works", mirror, 1, []metadata.State{
			state(inSync(0), inSync(1), replacing(0, raid.InSync)),
			dirty(state(faulty(0), inSync(1), inSync(0))),
			dirty(state(gone(), inSync(1), inSync(0))),
		}},
	}
}

func replacing(slot raid.Slot, as raid.MemberState) metadata.MemberRecord {
	return metadata.MemberRecord{State: as, Slot: slot, Replacement: true}
}

// TestPowerCuts cuts the power at each write of each record, torn or not, and
// has policy say what it makes of the devices, whichever of them are left: it
// finds the array, and uses nobody who missed a write.
func TestPowerCuts(t *testing.T) {
	for _, s := range stories() {
		t.Run(s.name, func(t *testing.T) {
			disks := blanks(s.g.Disks+s.spares, 512)
			makeArray(t, disks, s.g)
			k := keep(t, disks)
			before := current(s.states[0])

			for n, st := range s.states {
				after := current(st)
				for _, w := range slices.Concat(k.Record(st)...) {
					place := disks[w.Member].Image[w.Sector.Bytes():][:len(w.Data)]
					old := bytes.Clone(place)

					for cut := 512; cut < len(place); cut += 512 {
						copy(place[:cut], w.Data)
						judge(t, fmt.Sprintf("record %d, first %d of %d", n, cut, w.Member), disks, s.g, before, after, true)
						copy(place, old)
						copy(place[cut:], w.Data[cut:])
						judge(t, fmt.Sprintf("record %d, last %d of %d", n, cut, w.Member), disks, s.g, before, after, true)
						copy(place, old)
					}

					copy(place, w.Data)
					judge(t, fmt.Sprintf("record %d, written to %d", n, w.Member), disks, s.g, before, after, false)
				}

				judge(t, fmt.Sprintf("record %d", n), disks, s.g, nil, after, false)
				before = after
			}
		})
	}
}

// use is a device in a slot.
type use struct {
	device int
	slot   raid.Slot
}

// current returns who is right everywhere by a state.
func current(st metadata.State) []use {
	var all []use

	for id, record := range st.Members {
		if record.State == raid.InSync {
			all = append(all, use{int(id), record.Slot})
		}
	}

	return all
}

// judge has policy decide on every set of devices that has one in it which was
// current before the record that is being written, or by it if it is done and
// nothing is before. A write that is torn may cost a member too many.
func judge(t *testing.T, what string, disks []conformance.Disk, g raid.Geometry, before, after []use, torn bool) {
	t.Helper()

	witnesses := before
	if before == nil {
		witnesses = after
	}

	for keep := 1; keep < 1<<len(disks); keep++ {
		if !slices.ContainsFunc(witnesses, func(u use) bool {
			return keep>>u.device&1 == 1 && device(&disks[u.device], u.device).Corrupt == ""
		}) {
			continue
		}

		v := policy.View{Forced: map[raid.UUID]bool{}, LossAccepted: map[raid.UUID]bool{}}

		for i := range disks {
			if keep>>i&1 == 1 {
				v.Devices = append(v.Devices, device(&disks[i], i))
			}
		}

		uuid := raid.UUID{}
		for _, d := range v.Devices {
			if d.Superblock != nil {
				uuid = d.Superblock.Array
			}
		}

		v.Forced[uuid], v.LossAccepted[uuid] = true, true

		ds := policy.Decide(v, policy.DefaultConfig())
		if all := keep == 1<<len(disks)-1; all && !torn && ds[0].Action != policy.Start {
			t.Fatalf("%s: %v", what, ds)
		}

		if ds[0].Action != policy.Start {
			continue
		}

		for _, m := range ds[0].Members {
			u := use{int(m.Path[0] - '0'), m.Slot}
			if u.slot != raid.NoSlot && !slices.Contains(after, u) && !slices.Contains(before, u) {
				t.Fatalf("%s: of %b device %d is used in slot %d: %v", what, keep, u.device, u.slot, ds)
			}
		}

		// Nobody is left out who is there when a record is done.
		if before == nil && ds[0].Degraded != (len(after) < g.Disks) && keep == 1<<len(disks)-1 {
			t.Fatalf("%s: %v", what, ds)
		}
	}
}

func device(d *conformance.Disk, i int) policy.Device {
	dev := policy.Device{Path: fmt.Sprint(i), Serial: d.Serial, Size: d.Source().Size}

	sb, err := Format{}.Probe(d.Source())
	if err != nil {
		dev.Corrupt = err.Error()

		return dev
	}

	dev.Superblock = &policy.Superblock{
		Array: sb.Array, Device: sb.Device, Name: sb.Name, Geometry: sb.Geometry, Number: sb.Number, Roles: sb.Roles,
		Events: sb.Events, DataSize: sb.DataSize, ResyncOffset: sb.ResyncOffset, RecoveryOffset: sb.RecoveryOffset,
		Unsupported: sb.Unsupported,
	}

	return dev
}
