package imsm

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
const deviceSize raid.Sectors = 28672

var now = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

// geometries are one of each level that the format has.
func geometries() []raid.Geometry {
	return []raid.Geometry{
		{Level: raid.Level0, Disks: 3, Chunk: 128},
		{Level: raid.Level1, Disks: 2},
		{Level: raid.Level5, Disks: 3, Chunk: 128},
		{Level: raid.Level5, Disks: 5, Chunk: 32},
		{Level: raid.Level10, Layout: nearTwo, Disks: 4, Chunk: 128},
		{Level: raid.Level10, Layout: nearTwo, Disks: 6, Chunk: 16},
	}
}

func nameOf(g raid.Geometry) string { return fmt.Sprintf("%v of %d", g.Level, g.Disks) }

func blanks(n, block int) []conformance.Disk {
	var all []conformance.Disk
	for i := range n {
		all = append(all, conformance.Disk{
			Image: make([]byte, deviceSize.Bytes()), Block: block, Serial: fmt.Sprintf("WD-WCC%d", i),
		})
	}

	return all
}

func membersOf(all []conformance.Disk) []metadata.NewMember {
	var members []metadata.NewMember
	for i := range all {
		members = append(members, metadata.NewMember{Source: all[i].Source()})
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

// makeArray makes an array on disks.
func makeArray(tb testing.TB, all []conformance.Disk, p metadata.NewArray) raid.UUID {
	tb.Helper()

	p.Version, p.Now, p.Array = version, now, raid.UUID{1, 2, 3, 4, 5, 6, 7, byte(len(p.Name))}

	uuid, stages, err := Format{}.Create(p, membersOf(all))
	if err != nil {
		tb.Fatal(err)
	}

	apply(all, stages)

	return uuid
}

func TestConformance(t *testing.T) {
	var arrays []conformance.Array

	for _, g := range geometries() {
		for _, block := range []int{512, 4096} {
			for _, ppl := range []bool{false, true} {
				if ppl && (g.Level != raid.Level5 || block != 512) {
					continue
				}

				arrays = append(arrays, conformance.Array{
					Name: fmt.Sprintf("%s in blocks of %d, logs %t", nameOf(g), block, ppl),
					Make: func(tb testing.TB) []conformance.Disk {
						n := g.Disks
						if g.Level.HasRedundancy() {
							n++
						}

						all := blanks(n, block)
						makeArray(tb, all, metadata.NewArray{Name: "a", Geometry: g, AssumeClean: true, PPL: ppl})

						for i := range all {
							spoil(&all[i], i < g.Disks)
						}

						return all
					},
				})
			}
		}
	}

	conformance.Run(t, Format{}, arrays...)
}

// spoil notes on a disk what is not ours: the last block, and the data if it has
// any.
func spoil(d *conformance.Disk, member bool) {
	last := conformance.Extent{Offset: int64(len(d.Image) - d.Block), Size: int64(d.Block)}
	copy(d.Image[last.Offset:], bytes.Repeat([]byte("vendor"), d.Block/6))
	d.Foreign = append(d.Foreign, last)

	if member {
		d.Foreign = append(d.Foreign, conformance.Extent{Size: 4096})
	}
}
