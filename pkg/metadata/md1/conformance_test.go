package md1

import (
	"fmt"
	"testing"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/conformance"
	"raid-assembler/pkg/raid"
)

// TestConformance runs the suite on arrays that we create, with superblocks of
// one sector and of eight, and on those that md made.
func TestConformance(t *testing.T) {
	var arrays []conformance.Array

	for minor := range 3 {
		for _, g := range []raid.Geometry{
			{Level: raid.Level0, Disks: 2, Chunk: 24},
			{Level: raid.Level1, Disks: 2},
			{Level: raid.Level5, Layout: raid.LeftSymmetric, Disks: 3, Chunk: 128},
			{Level: raid.Level5, Layout: raid.ParityFirst, Disks: 3, Chunk: 128}, // with partial parity logs
		} {
			for _, maxDev := range []int{128, maxRoles} {
				if maxDev > 128 && g.Layout != raid.LeftSymmetric {
					continue // no level makes a difference to it
				}

				arrays = append(arrays, conformance.Array{
					Name:     fmt.Sprintf("1.%d %v of %d roles", minor, g.Level, maxDev),
					Make:     func(tb testing.TB) []conformance.Disk { return makeDisks(tb, minor, g, maxDev) },
					Replaces: true,
				})
			}
		}
	}

	for _, name := range []string{"md12-raid1-2-spare", "md12-raid5-ls-4-bitmap-spare", "md12-raid0-3"} {
		arrays = append(arrays, conformance.Array{Name: name, Replaces: true, Make: func(tb testing.TB) []conformance.Disk {
			var made []conformance.Disk

			g := conformance.LoadGolden(tb, name)
			for i, image := range g.Images {
				// Small enough to be probed thousands of times.
				made = append(made, conformance.Disk{Image: image, Block: g.Source(i).Block})
			}

			return made
		}})
	}

	conformance.Run(t, Format{}, arrays...)
}

// makeDisks creates an array with room for maxDev roles, and a spare if it has
// a use for one.
func makeDisks(tb testing.TB, m int, g raid.Geometry, maxDev int) []conformance.Disk {
	tb.Helper()

	const size = 4096 + 2048 + 8*128

	sizes := []raid.Sectors{size, size + 8, size, size}[:g.Disks]
	if g.Level.HasRedundancy() {
		sizes = append(sizes, size)
	}

	d, err := create(tb, params(func(p *metadata.NewArray) {
		p.Version, p.Geometry, p.AssumeClean = versionOf(m), g, true

		// One of many roles has no room behind its superblock at 1.0, and one
		// with redundancy else has a bitmap.
		switch {
		case g.Level == raid.Level5 && g.Layout == raid.ParityFirst:
			p.PPL = true
		case g.Level.HasRedundancy() && maxDev == 128:
			p.Bitmap, p.BitmapChunk = metadata.BitmapInternal, 8
		}
	}), sizes...)
	if err != nil {
		tb.Fatal(err)
	}

	var made []conformance.Disk

	for _, image := range d {
		raw := mustProbe(tb, source(image)).Raw.(*Raw)
		for len(raw.DevRoles) < maxDev {
			raw.DevRoles = append(raw.DevRoles, raid.RoleSpare)
		}

		raw.MaxDev = uint32(maxDev)
		if room := blockSize - superSize(maxDev); room > 0 {
			raw.tail = raw.tail[:room]
			for i := range raw.tail {
				raw.tail[i] = byte(i)
			}
		}

		at := raid.Sectors(raw.SuperOffset).Bytes()
		copy(image[at:], raw.Encode())

		foreign := []conformance.Extent{
			{Offset: at + int64(superSize(maxDev)), Size: int64(len(raw.tail))},
			{Offset: raid.Sectors(raw.DataOffset).Bytes(), Size: raid.Sectors(raw.DataSize).Bytes()},
		}
		if raw.DevRoles[raw.DevNumber] == raid.RoleSpare {
			foreign = foreign[:1] // a spare's data is nobody's
		}

		made = append(made, conformance.Disk{Image: image, Block: raid.SectorSize, Foreign: foreign})
	}

	return made
}
