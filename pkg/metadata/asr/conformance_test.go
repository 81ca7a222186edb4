package asr

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

// deviceSize is that of the devices that tests make.
const deviceSize raid.Sectors = 4096

var now = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

func blanks(n int) []conformance.Disk {
	var all []conformance.Disk
	for range n {
		all = append(all, conformance.Disk{Image: make([]byte, deviceSize.Bytes()), Block: raid.SectorSize})
	}

	return all
}

// params are those of an array, of which the geometry is given.
func params(g raid.Geometry) metadata.NewArray {
	return metadata.NewArray{
		Version: version, Array: raid.UUID{1, 2, 3, 4}, Name: "vol", Geometry: g, AssumeClean: true, Now: now,
	}
}

func membersOf(all []conformance.Disk) []metadata.NewMember {
	var members []metadata.NewMember
	for i := range all {
		members = append(members, metadata.NewMember{Source: all[i].Source(), Device: raid.UUID{0xad, 0xa7, byte(i), 7}})
	}

	return members
}

func apply(all []conformance.Disk, stages [][]metadata.Write) {
	for _, stage := range stages {
		for _, w := range stage {
			copy(all[w.Member].Image[w.Sector.Bytes():], w.Data)
		}
	}
}

// makeArray makes an array on disks, with spares on those that it has no slot for.
func makeArray(tb testing.TB, all []conformance.Disk, p metadata.NewArray) raid.UUID {
	tb.Helper()

	uuid, stages, err := Format{}.Create(p, membersOf(all))
	if err != nil {
		tb.Fatal(err)
	}

	apply(all, stages)

	return uuid
}

func probe(tb testing.TB, d *conformance.Disk) *metadata.Superblock {
	tb.Helper()

	sb, err := Format{}.Probe(d.Source())
	if err != nil {
		tb.Fatal(err)
	}

	return sb
}

// table returns the bytes of a disk's table.
func table(d *conformance.Disk) []byte {
	return d.Image[(deviceSize - 1 - tableSectors).Bytes():]
}

// strip makes of a table one that a controller could have written: with fields
// that we do not set, and without our stamp.
func strip(d *conformance.Disk, spare bool) {
	b := table(d)
	copy(b[16:], "vendor12")
	order.PutUint32(b[offTimestamp:], 1000)
	copy(b[44:], "datedate")
	clear(b[offStamp:][:stampSize])

	for i := range int(order.Uint16(b[offCount:])) {
		line := lineOf(b, i)
		copy(line[30:], "bi")
		copy(line[32:], "lsu.")
	}

	if spare {
		// A table of a pool that any array may take from.
		at := int(order.Uint16(b[offCount:])) - 2
		copy(b[headSize:], b[headSize+at*lineSize:][:2*lineSize])
		clear(b[headSize+2*lineSize:][:at*lineSize])
		order.PutUint16(b[offCount:], 2)
		order.PutUint32(b[offSpareArray:], poolMagic)
	} else {
		clear(b[offSpareID:][:9])
	}

	seal(b)
}

func TestConformance(t *testing.T) {
	var arrays []conformance.Array

	for _, foreign := range []bool{false, true} {
		for _, g := range []raid.Geometry{
			{Level: raid.Level0, Disks: 2, Chunk: 128},
			{Level: raid.Level0, Disks: 4, Chunk: 16},
			{Level: raid.Level0, Disks: 9, Chunk: 8}, // with a table of two sectors
			{Level: raid.Level1, Disks: 2},
		} {
			name := fmt.Sprintf("%v of %d", g.Level, g.Disks)
			if foreign {
				name += " of a controller"
			}

			arrays = append(arrays, conformance.Array{Name: name, Make: func(tb testing.TB) []conformance.Disk {
				n := g.Disks
				if g.Level.HasRedundancy() {
					n += 2
				}

				all := blanks(n)
				makeArray(tb, all, params(g))

				for i := range all {
					if foreign {
						strip(&all[i], i >= g.Disks)
					}

					spoil(&all[i], i < g.Disks)
				}

				return all
			}})
		}
	}

	conformance.Run(t, Format{}, arrays...)
}

// spoil notes on a disk what is not ours: what the header has of others, and the
// data if it has any.
func spoil(d *conformance.Disk, member bool) {
	at := (deviceSize - 1 - tableSectors).Bytes()
	d.Foreign = append(d.Foreign, conformance.Extent{Offset: at + 16, Size: 12}, conformance.Extent{Offset: at + 44, Size: 8})

	if member {
		copy(d.Image, bytes.Repeat([]byte("data"), 1024))
		d.Foreign = append(d.Foreign, conformance.Extent{Size: 4096})
	}
}
