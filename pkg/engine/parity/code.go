package parity

import (
	"crypto/subtle"

	"github.com/klauspost/reedsolomon"
)

// MaxExponents is the most chunks that a row can have so that any two of them
// can be made again: 2 has 255 powers.
const MaxExponents = 255

// Code computes, checks and inverts the parities of RAID6: P is the XOR of a
// row's chunks, Q the sum of 2^e times the chunk with exponent e in the field
// of 256 elements with the polynomial 0x11d and the generator 2, as Linux and
// DDF have it.
//
// Chunks are given by exponent, and nil stands for zeros: a gap in the
// exponents, or a chunk that was never written. It is not safe for concurrent
// use: it has the room for intermediate sums, so that nothing allocates.
type Code struct {
	exponents int
	multiply  reedsolomon.LowLevel
	power     [MaxExponents]byte // 2^e
	log       [256]uint8         // the inverse of power
	views     [][]byte           // the tile at hand of the data
	p, q      []byte             // the sums of a tile
}

// NewCode returns the code of rows with chunks of the exponents from 0 to
// exponents-1. Preconditions: there is at least one, and there are at most
// [MaxExponents].
func NewCode(exponents int) *Code {
	if exponents < 1 || exponents > MaxExponents {
		panic("parity: number of exponents out of range")
	}

	c := &Code{
		exponents: exponents,
		views:     make([][]byte, exponents),
		p:         make([]byte, tile),
		q:         make([]byte, tile),
	}

	power := byte(1)
	for e := range c.power {
		c.power[e] = power
		c.log[power] = uint8(e)

		carry := power >> 7
		power = power<<1 ^ carry*0x1d
	}

	return c
}

// PQ sets p and q to the parities of data. Either may be nil if it is not
// wanted. Preconditions: data has an entry for each exponent, all chunks that
// are not nil have the length of p and q, and none overlaps these.
func (c *Code) PQ(p, q []byte, data [][]byte) {
	size := c.mustFit(p, q, data)

	if p != nil && q != nil {
		c.sums(p, q, data)

		return
	}

	for lo := 0; lo < size; lo += tile {
		hi := min(lo+tile, size)
		c.sums(part(p, c.p, lo, hi), part(q, c.q, lo, hi), c.cut(data, lo, hi))
	}
}

// Update adds delta, the XOR of the old and the new content of the chunk with
// the exponent e, to the parities. Either may be nil if it is not wanted.
// Preconditions: all have one length and do not overlap.
func (c *Code) Update(p, q []byte, e int, delta []byte) {
	c.mustHave(e)

	for lo := 0; lo < len(delta); lo += tile {
		hi := min(lo+tile, len(delta))

		if p != nil {
			mustMatch(p, delta)
			XORInto(p[lo:hi], delta[lo:hi])
		}

		if q != nil {
			mustMatch(q, delta)
			c.addProduct(q[lo:hi], c.power[e], delta[lo:hi])
		}
	}
}

// sums sets p and q to the parities of data.
func (c *Code) sums(p, q []byte, data [][]byte) {
	done := pqFast(p, q, data)
	if done == len(p) {
		return
	}

	p, q = p[done:], q[done:]
	clear(p)
	clear(q)

	for e, d := range data {
		if d != nil {
			subtle.XORBytes(p, p, d[done:])
			c.addProduct(q, c.power[e], d[done:])
		}
	}
}

// addProduct adds factor times src to dst.
func (c *Code) addProduct(dst []byte, factor byte, src []byte) {
	c.multiply.GalMulSliceXor(factor, src, dst)
}

// cut returns the bytes of data from lo to hi, until it is called again.
func (c *Code) cut(data [][]byte, lo, hi int) [][]byte {
	for e, d := range data {
		c.views[e] = nil
		if d != nil {
			c.views[e] = d[lo:hi]
		}
	}

	return c.views
}

// part returns the bytes of block from lo to hi, or as much of spare if there
// is no such block.
func part(block, spare []byte, lo, hi int) []byte {
	if block == nil {
		return spare[:hi-lo]
	}

	return block[lo:hi]
}

// mustHave panics if e is no exponent.
func (c *Code) mustHave(e int) {
	if e < 0 || e >= c.exponents {
		panic("parity: no such exponent")
	}
}

// mustFit returns the length of all blocks.
func (c *Code) mustFit(p, q []byte, data [][]byte) int {
	if len(data) != c.exponents {
		panic("parity: number of chunks differs from that of exponents")
	}

	size := max(len(p), len(q))

	for _, block := range [...][]byte{p, q} {
		if block != nil && len(block) != size {
			panic("parity: blocks differ in length")
		}
	}

	for _, d := range data {
		if d != nil && len(d) != size {
			panic("parity: blocks differ in length")
		}
	}

	return size
}
