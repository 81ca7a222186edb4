package ddf

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
const deviceSize raid.Sectors = 65536 + 4096

var now = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

// geometries are one of each level and layout that the format has.
func geometries() []raid.Geometry {
	return []raid.Geometry{
		{Level: raid.LevelLinear, Disks: 2},
		{Level: raid.Level0, Disks: 3, Chunk: 128},
		{Level: raid.Level1, Disks: 2},
		{Level: raid.Level1, Disks: 3, Size: 2048},
		{Level: raid.Level4, Disks: 3, Chunk: 16},
		{Level: raid.Level5, Layout: raid.LeftAsymmetric, Disks: 3, Chunk: 128},
		{Level: raid.Level5, Layout: raid.RightAsymmetric, Disks: 4, Chunk: 128},
		{Level: raid.Level5, Layout: raid.LeftSymmetric, Disks: 3, Chunk: 128},
		{Level: raid.Level6, Layout: raid.DDFZeroRestart, Disks: 4, Chunk: 128},
		{Level: raid.Level6, Layout: raid.DDFNRestart, Disks: 5, Chunk: 128},
		{Level: raid.Level6, Layout: raid.DDFNContinue, Disks: 4, Chunk: 128},
		{Level: raid.Level10, Layout: nearTwo, Disks: 4, Chunk: 128},
		{Level: raid.Level10, Layout: nearTwo, Disks: 3, Chunk: 128},
		{Level: raid.Level10, Layout: farTwo, Disks: 4, Chunk: 128},
	}
}

func nameOf(g raid.Geometry) string {
	return fmt.Sprintf("%v %s of %d", g.Level, g.Layout.Name(g.Level), g.Disks)
}

func blanks(n, block int) []conformance.Disk {
	var all []conformance.Disk
	for range n {
		all = append(all, conformance.Disk{Image: make([]byte, deviceSize.Bytes()), Block: block})
	}

	return all
}

func membersOf(all []conformance.Disk) []metadata.NewMember {
	var members []metadata.NewMember
	for i := range all {
		members = append(members, metadata.NewMember{Source: all[i].Source(), Device: raid.UUID{0xdd, byte(i)}})
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

// small are tables that are read fast.
var small = tables{15, 15, 4, 16}

// makeArray makes an array on disks.
func makeArray(tb testing.TB, all []conformance.Disk, t tables, p metadata.NewArray) raid.UUID {
	tb.Helper()

	p.Version, p.Now, p.Array = version, now, raid.UUID{1, 2, 3, 4, 5, 6, 7, byte(len(p.Name))}

	uuid, stages, err := create(p, t, membersOf(all))
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
			if block == 4096 && g.Level != raid.Level5 {
				continue // no level makes a difference to it
			}

			arrays = append(arrays, conformance.Array{
				Name: fmt.Sprintf("%s in blocks of %d", nameOf(g), block),
				Make: func(tb testing.TB) []conformance.Disk {
					n := g.Disks
					if g.Level.HasRedundancy() {
						n++
					}

					all := blanks(n, block)
					tables := small
					if g.Level == raid.Level1 && g.Disks == 2 {
						tables = usualTables
					}

					makeArray(tb, all, tables, metadata.NewArray{Name: "a", Geometry: g, AssumeClean: true})

					for i := range all {
						spoil(tb, &all[i], i < g.Disks)
					}

					return all
				},
			})
		}
	}

	conformance.Run(t, Format{}, arrays...)
}

// spoil notes on a disk what is not ours: what is behind the copies, and the
// data if it has any.
func spoil(tb testing.TB, d *conformance.Disk, member bool) {
	tb.Helper()

	r, err := load(d.Source())
	if err != nil {
		tb.Fatal(err)
	}

	for _, a := range r.copies {
		behind := conformance.Extent{Offset: a.end().Bytes(), Size: 4096}
		copy(d.Image[behind.Offset:], bytes.Repeat([]byte("vendor"), 600))
		d.Foreign = append(d.Foreign, behind)
	}

	if member {
		d.Foreign = append(d.Foreign, conformance.Extent{Size: 4096})
	}
}
