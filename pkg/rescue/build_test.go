package rescue

import (
	"bytes"
	"io"
	"math/rand/v2"
	"slices"

	"pgregory.net/rapid"

	"raid-assembler/pkg/engine/geometry"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

const dataOffset raid.Sectors = 3

// build returns the members of an array that holds random content, named a, b
// and so on by slot, and the content.
func build(g raid.Geometry) ([]Member, []byte) {
	m, err := geometry.New(g)
	if err != nil {
		panic(err)
	}

	random := rand.NewChaCha8([32]byte{byte(g.Level), byte(g.Disks)})
	content := make([]byte, m.ArraySectors().Bytes())
	_, _ = random.Read(content) // never fails

	disks := make([][]byte, g.Disks)

	for slot := range disks {
		size := g.Size
		if len(g.Sizes) > 0 {
			size = g.Sizes[slot]
		}

		disks[slot] = make([]byte, (dataOffset + size).Bytes())
		_, _ = random.Read(disks[slot])
	}

	fill(m, g, disks, content)

	return membersOf(g, disks), content
}

// membersOf returns the members of a clean array that lies on disks.
func membersOf(g raid.Geometry, disks [][]byte) []Member {
	members := make([]Member, g.Disks)
	roles := make([]raid.Role, g.Disks)

	for slot := range roles {
		roles[slot] = raid.Role(slot)
	}

	for slot, disk := range disks {
		size := raid.Sectors(len(disk) / raid.SectorSize)
		sb := &metadata.Superblock{
			Array: raid.UUID{1}, Device: raid.UUID{2, byte(slot)}, Geometry: g, Events: 10, Number: slot,
			Roles: slices.Clone(roles), DataOffset: dataOffset, DataSize: size - dataOffset,
			ResyncOffset: raid.MaxSectors, RecoveryOffset: raid.MaxSectors,
		}
		sb.Sizes = nil
		members[slot] = Member{
			Name:       string(rune('a' + slot)),
			Source:     metadata.Source{ReaderAt: bytes.NewReader(disk), Size: size, Block: 512},
			Superblock: sb,
		}
	}

	return members
}

// fill writes content onto disks, and the redundancy.
func fill(m *geometry.Map, g raid.Geometry, disks [][]byte, content []byte) {
	for s := raid.Sectors(0); s < m.ArraySectors(); s++ {
		for i := range m.Copies() {
			slot, component, _ := m.Copy(s, i)
			copy(disks[slot][(dataOffset+component).Bytes():], content[s.Bytes():(s+1).Bytes()])
		}
	}

	if !g.Level.HasParity() {
		return
	}

	for row := range m.Rows() {
		from := (dataOffset + raid.Sectors(row)*g.Chunk).Bytes()

		p := make([]byte, g.Chunk.Bytes())
		q := make([]byte, g.Chunk.Bytes())

		for slot := range raid.Slot(g.Disks) {
			e := m.Exponent(row, slot)
			if e < 0 {
				continue
			}

			for i, b := range disks[slot][from : from+g.Chunk.Bytes()] {
				p[i] ^= b
				q[i] ^= times2(b, e)
			}
		}

		copy(disks[m.ParitySlot(row)][from:], p)

		if slot := m.QSlot(row); slot != raid.NoSlot {
			copy(disks[slot][from:], q)
		}
	}
}

// times2 returns 2^e times b in the field of RAID6, the slow way.
func times2(b byte, e int) byte {
	for range e {
		carry := b&0x80 != 0
		b <<= 1

		if carry {
			b ^= 0x1d
		}
	}

	return b
}

func raid5() raid.Geometry {
	return raid.Geometry{Level: raid.Level5, Layout: raid.LeftSymmetric, Disks: 3, Chunk: 8, Size: 64}
}

func mirror(n int) raid.Geometry { return raid.Geometry{Level: raid.Level1, Disks: n, Size: 64} }

// drawArray draws a small array of any level and layout.
func drawArray(t *rapid.T) raid.Geometry {
	g := raid.Geometry{
		Level: rapid.SampledFrom([]raid.Level{
			raid.LevelLinear, raid.Level0, raid.Level1, raid.Level4, raid.Level5, raid.Level6, raid.Level10,
		}).Draw(t, "level"),
		Disks: rapid.IntRange(4, 7).Draw(t, "disks"),
		Chunk: raid.Sectors(rapid.IntRange(1, 9).Draw(t, "chunk")),
	}

	switch g.Level {
	case raid.Level0:
		g.Layout = raid.Layout(rapid.IntRange(1, 2).Draw(t, "layout"))
	case raid.Level5:
		g.Layout = raid.Layout(rapid.IntRange(0, 5).Draw(t, "layout"))
	case raid.Level6:
		g.Layout = rapid.SampledFrom([]raid.Layout{
			0, 1, 2, 3, 4, 5, 8, 9, 10, 16, 17, 18, 19, 20,
		}).Draw(t, "layout")
	case raid.Level10:
		g.Layout = rapid.SampledFrom([]raid.Layout{
			0x102, 0x103, 0x104, 0x201, 0x301, 0x202, 0x10201, 0x10301, 0x40201, 0x40301,
		}).Draw(t, "layout")
	}

	if g.Level.HasRedundancy() {
		g.Size = raid.Sectors(rapid.IntRange(30, 60).Draw(t, "size"))

		return g
	}

	for range g.Disks {
		g.Sizes = append(g.Sizes, raid.Sectors(rapid.IntRange(10, 40).Draw(t, "size")))
	}

	return g
}

// wrongFrom returns what a member holds, with what is above a component offset
// turned over.
func wrongFrom(tb interface{ Fatal(args ...any) }, m Member, from raid.Sectors) io.ReaderAt {
	disk := make([]byte, m.Source.Size.Bytes())
	if _, err := m.Source.ReadAt(disk, 0); err != nil {
		tb.Fatal(err)
	}

	for i := (dataOffset + from).Bytes(); i < int64(len(disk)); i++ {
		disk[i] ^= 0xff
	}

	return bytes.NewReader(disk)
}
