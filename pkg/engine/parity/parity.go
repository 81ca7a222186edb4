// Package parity computes and checks the parities of RAID4, RAID5 and RAID6.
//
// Reconstruction is the same sum: a missing block is the XOR of the parity and
// the blocks that are left. Nothing here allocates, and nothing here knows
// which member a block came from.
package parity

import "crypto/subtle"

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

	subtle.XORBytes(dst, srcs[first], srcs[other])

	for i, src := range srcs {
		if i != first && i != other {
			subtle.XORBytes(dst, dst, src)
		}
	}
}

// XORInto sets dst to the XOR of dst and src. Preconditions: they are of one
// length, and are the same slice or do not overlap.
func XORInto(dst, src []byte) {
	mustMatch(dst, src)
	subtle.XORBytes(dst, dst, src)
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

	// Block by block, so that the sum stays in the first cache level and on
	// the stack.
	var sum [512]byte

	for start := 0; start < len(p); start += len(sum) {
		end := min(start+len(sum), len(p))
		part := sum[:end-start]
		copy(part, p[start:end])

		for _, d := range data {
			subtle.XORBytes(part, part, d[start:end])
		}

		for i, b := range part {
			if b != 0 {
				return start + i
			}
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
