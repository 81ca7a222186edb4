// Package exercise says what a program that writes to a device all the time
// writes there, and what may be read back: at any time, and after a power cut.
//
// Each sector tells which sector it is and in which of the device's generations
// it was written; the generation is the number of the operation. Operations come
// from a seed. So what a device may hold is known from the seed, from how far
// the flushes came, and from what it held before. Nothing here does I/O.
package exercise

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// SectorSize is the size of the sectors that are told apart, whatever the
// device's own are.
const SectorSize = 512

// Gen is the generation of a sector: the number of the operation that wrote it.
type Gen uint32

const (
	// Unknown is the generation of a sector that was discarded.
	Unknown Gen = 0
	// First is the generation of a device that has been filled.
	First Gen = 1
	// zeroed marks generations in which the sector was zeroed.
	zeroed Gen = 1 << 31
)

// number is the operation's number.
func (g Gen) number() Gen { return g &^ zeroed }

const (
	golden    = 0x9E3779B97F4A7C15
	wordSize  = 8
	sectorMax = 1 << 32
)

// Fill fills p with what sectors from first hold in generation g. pattern is
// the seed of what was there before anything else, or 0 for this package's own.
func Fill(p []byte, first int64, g Gen, pattern uint64) {
	for ; len(p) > 0; p, first = p[SectorSize:], first+1 {
		fillSector(p[:SectorSize], first, g, pattern)
	}
}

func fillSector(p []byte, sector int64, g Gen, pattern uint64) {
	if g&zeroed != 0 {
		clear(p)

		return
	}

	// The golden images hold the same word all over a block of eight sectors.
	if g == First && pattern != 0 {
		word := (uint64(sector/8)+1)*golden ^ pattern
		for i := 0; i < SectorSize; i += wordSize {
			binary.LittleEndian.PutUint64(p[i:], word)
		}

		return
	}

	word := uint64(g)<<32 | uint64(sector)
	binary.LittleEndian.PutUint64(p, word)

	word = word*golden ^ word>>29
	for i := wordSize; i < SectorSize; i += wordSize {
		word += golden
		binary.LittleEndian.PutUint64(p[i:], word)
	}
}

// found returns the generation that a sector holds. Zeroed sectors do not tell
// which operation did that.
func found(p []byte, sector int64, pattern uint64) (Gen, bool) {
	var want [SectorSize]byte
	if bytes.Equal(p, want[:]) {
		return zeroed, true
	}

	word := binary.LittleEndian.Uint64(p)
	candidates := [2]Gen{Gen(word >> 32), First}

	for _, g := range candidates {
		if g == Unknown || g&zeroed != 0 {
			continue
		}

		if fillSector(want[:], sector, g, pattern); bytes.Equal(p, want[:]) {
			return g, true
		}
	}

	return Unknown, false
}

// describe says what a sector holds, for errors.
func describe(p []byte, sector int64, pattern uint64) string {
	g, ok := found(p, sector, pattern)

	switch {
	case ok && g == zeroed:
		return "zeros"
	case ok:
		return fmt.Sprintf("generation %d", g)
	}

	word := binary.LittleEndian.Uint64(p)

	return fmt.Sprintf("%x... (as of sector %d in generation %d)", p[:16], uint32(word), word>>32)
}
