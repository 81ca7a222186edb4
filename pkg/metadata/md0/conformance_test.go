package md0

import (
	"fmt"
	"testing"
	"time"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

var now = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

// geometries are one of each level, and of layouts those that differ on disk.
func geometries() []raid.Geometry {
	return []raid.Geometry{
		{Level: raid.LevelLinear, Disks: 2},
		{Level: raid.Level0, Disks: 3, Chunk: 24},
		{Level: raid.Level1, Disks: 2, Size: 512},
		{Level: raid.Level4, Disks: 3, Chunk: 16},
		{Level: raid.Level5, Layout: raid.LeftSymmetric, Disks: 3, Chunk: 128},
		{Level: raid.Level6, Layout: raid.RightAsymmetric, Disks: 4, Chunk: 128},
		{Level: raid.Level10, Layout: 0x102, Disks: 4, Chunk: 64},
		{Level: raid.Level10, Layout: 0x201, Disks: 3, Chunk: 64},
	}
}

// blanks returns devices of slightly different sizes.
func blanks(n, block int) []conformance.Disk {
	var all []conformance.Disk
	for i := range n {
		image := make([]byte, (raid.Sectors(1024+64) + raid.Sectors(8*i)).Bytes())
		all = append(all, conformance.Disk{Image: image, Block: block, Serial: fmt.Sprint("disk", i)})
	}

	return all
}

// create makes an array of disks and returns its UUID.
func makeArray(tb testing.TB, disks []conformance.Disk, g raid.Geometry, edits ...func(*metadata.NewArray)) raid.UUID {
	tb.Helper()

	p := metadata.NewArray{
		Version: version, Array: raid.UUID{1, 2, 3, 4, 5, 6, 7, 8, 9}, Name: "md7", Host: "lab",
		Geometry: g, AssumeClean: true, Now: now,
	}

	for _, edit := range edits {
		edit(&p)
	}

	var members []metadata.NewMember
	for i := range disks {
		members = append(members, metadata.NewMember{Source: disks[i].Source()})
	}

	uuid, stages, err := Format{}.Create(p, members)
	if err != nil {
		tb.Fatal(err)
	}

	apply(disks, stages)

	return uuid
}

func apply(disks []conformance.Disk, stages [][]metadata.Write) {
	for _, stage := range stages {
		for _, w := range stage {
			copy(disks[w.Member].Image[w.Sector.Bytes():], w.Data)
		}
	}
}

// TestConformance runs the suite on arrays of every level.
func TestConformance(t *testing.T) {
	var arrays []conformance.Array

	for _, g := range geometries() {
		for _, block := range []int{512, 4096} {
			if block == 4096 && g.Level != raid.Level5 {
				continue // no level makes a difference to it
			}

			arrays = append(arrays, conformance.Array{
				Name:     fmt.Sprintf("%v %#x of %d in blocks of %d", g.Level, g.Layout, g.Disks, block),
				Restarts: true,
				Make: func(tb testing.TB) []conformance.Disk {
					n := g.Disks
					if g.Level.HasRedundancy() {
						n++
					}

					disks := blanks(n, block)
					makeArray(tb, disks, g)

					for i := range disks {
						spoil(tb, &disks[i], i < g.Disks)
					}

					return disks
				},
			})
		}
	}

	conformance.Run(t, Format{}, arrays...)
}

// spoil notes on a disk what is not ours: what is in and behind the superblock
// that md has no name for, and the data if it has any.
func spoil(tb testing.TB, d *conformance.Disk, member bool) {
	tb.Helper()

	at, _ := place(raid.Sectors(len(d.Image) / raid.SectorSize))
	d.Foreign = []conformance.Extent{
		{Offset: at.Bytes() + 16*4, Size: 16 * 4},
		{Offset: at.Bytes() + 50*4, Size: 14 * 4},
		{Offset: at.Bytes() + blockSize, Size: int64(len(d.Image)) - at.Bytes() - blockSize},
	}

	for i := range d.Foreign[2].Size {
		d.Image[d.Foreign[2].Offset+i] = byte(i * 5)
	}

	sb := super(tb, d.Image)
	copy(sb[16*4:], "what nobody knows")
	copy(sb[50*4:], "nor anybody this")
	putSum(sb)

	if member {
		d.Foreign = append(d.Foreign, conformance.Extent{Size: 4096})
	}
}
