// Package parity computes and checks the parities of RAID4, RAID5 and RAID6.
//
// P is the XOR of a row's blocks, and reconstruction from it the same sum: a
// missing block is the XOR of P and the blocks that are left. Q and what it
// makes possible are in [Code]. Nothing here allocates for a call, and nothing
// here knows which member a block came from.
//
// The sums themselves are in assembly for processors with AVX2: what the
// library has for many sources allocates with every call, and the standard
// library's XOR takes two sources at a time, 16 bytes at a time.
package parity

import (
	"bytes"
	"crypto/subtle"
)

// tile is what sums are worked on at a time where they are needed again: a few
// of them stay in the first cache level.
const tile = 4096

// XOR sets dst to the XOR of all srcs, which is the parity of data, or the
// missing one of a stripe's blocks. dst may be one of srcs, but must not
// overlap any in another way. Preconditions: srcs is not empty, and all have
// the length of dst.
func XOR(dst []byte, srcs ...[]byte) {
	if len(srcs) == 0 {
		panic("parity: XOR of nothing")
	}

	for _, src := range srcs {
		mustMatch(dst, src)
	}

	if len(srcs) == 1 {
		copy(dst, srcs[0])

		return
	}

	if done := xorFast(dst, srcs); done < len(dst) {
		xorSlow(dst, srcs, done)
	}
}

// XORInto sets dst to the XOR of dst and src. Preconditions: they are of one
// length, and are the same slice or do not overlap.
func XORInto(dst, src []byte) {
	XOR(dst, dst, src)
}

// xorSlow sets dst to the XOR of srcs, from offset done on.
func xorSlow(dst []byte, srcs [][]byte, done int) {
	// A source that is dst itself has to come first: any other order would
	// overwrite it before it was read.
	first := 0

	for i, src := range srcs {
		if same(dst, src) {
			first = i
		}
	}

	other := 0
	if first == 0 {
		other = 1
	}

	rest := dst[done:]
	subtle.XORBytes(rest, srcs[first][done:], srcs[other][done:])

	for i, src := range srcs {
		if i != first && i != other {
			subtle.XORBytes(rest, rest, src[done:])
		}
	}
}

// Check returns the offset of the first byte where p is not the parity of data,
// or -1 if it is everywhere. Preconditions: data is not empty, and all have the
// length of p.
func Check(p []byte, data ...[]byte) int {
	if len(data) == 0 {
		panic("parity: Check of nothing")
	}

	for _, d := range data {
		mustMatch(p, d)
	}

	// Tile by tile, so that the sum stays in the first cache level and on the
	// stack, and some sources at a time, for the same reason.
	var (
		sum   [tile]byte
		views [9][]byte
	)

	for lo := 0; lo < len(p); lo += tile {
		hi := min(lo+tile, len(p))
		part := sum[:hi-lo]
		views[0] = part

		copy(part, p[lo:hi])

		for rest := data; len(rest) > 0; {
			n := min(len(rest), len(views)-1)
			for i, d := range rest[:n] {
				views[1+i] = d[lo:hi]
			}

			XOR(part, views[:1+n]...)

			rest = rest[n:]
		}

		if at := firstNonZero(part); at >= 0 {
			return lo + at
		}
	}

	return -1
}

// zeros is what a sum is where nothing is wrong.
var zeros [tile]byte

// firstNonZero returns the offset of the first byte that is not zero, or -1.
// Preconditions: block is no longer than a tile.
func firstNonZero(block []byte) int {
	if bytes.Equal(block, zeros[:len(block)]) { // much faster than the loop
		return -1
	}

	for i, v := range block {
		if v != 0 {
			return i
		}
	}

	return -1
}

// same reports whether a and b begin at the same byte.
func same(a, b []byte) bool { return len(a) > 0 && len(b) > 0 && &a[0] == &b[0] }

func mustMatch(a, b []byte) {
	if len(a) != len(b) {
		panic("parity: blocks differ in length")
	}
}
