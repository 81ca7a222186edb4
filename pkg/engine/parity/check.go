package parity

// What [Code.Locate] returns if it is not the exponent of one data chunk.
const (
	// Nowhere means that both parities are right.
	Nowhere = -1 - iota
	// InP means that P is wrong, and the data agrees with Q.
	InP
	// InQ means that Q is wrong, and the data agrees with P.
	InQ
	// Unclear means that no single wrong block explains what is there.
	Unclear
)

// CheckPQ returns the offsets of the first bytes where p and q are not the
// parities of data, or -1 for one that is everywhere. Either may be nil, which
// is never wrong. Preconditions: those of [Code.PQ].
func (c *Code) CheckPQ(p, q []byte, data [][]byte) (wrongP, wrongQ int) {
	size := c.mustFit(p, q, data)
	wrongP, wrongQ = -1, -1

	for lo := 0; lo < size; lo += tile {
		hi := min(lo+tile, size)
		c.sums(c.p[:hi-lo], c.q[:hi-lo], c.cut(data, lo, hi))

		if wrongP < 0 && p != nil {
			wrongP = difference(p, c.p, lo, hi)
		}

		if wrongQ < 0 && q != nil {
			wrongQ = difference(q, c.q, lo, hi)
		}
	}

	return wrongP, wrongQ
}

// Locate returns which single block of a row is wrong: the exponent of a data
// chunk, [InP], [InQ], [Nowhere] or [Unclear]. An error of value v in the chunk
// with exponent e shows as v in P and as 2^e v in Q, in each byte that it
// touches; the answer is the one that explains all bytes. Preconditions: those
// of [Code.PQ], and neither parity is nil.
func (c *Code) Locate(p, q []byte, data [][]byte) int {
	size := c.mustFit(p, q, data)
	if p == nil || q == nil {
		panic("parity: Locate needs both parities")
	}

	found := Nowhere

	for lo := 0; lo < size; lo += tile {
		hi := min(lo+tile, size)
		sumP, sumQ := c.p[:hi-lo], c.q[:hi-lo]
		c.sums(sumP, sumQ, c.cut(data, lo, hi))
		XORInto(sumP, p[lo:hi])
		XORInto(sumQ, q[lo:hi])

		if firstNonZero(sumP) < 0 && firstNonZero(sumQ) < 0 {
			continue
		}

		for i, ofP := range sumP {
			at := c.locate(ofP, sumQ[i])

			switch {
			case at == Nowhere || at == found:
			case found != Nowhere:
				return Unclear
			default:
				found = at
			}
		}
	}

	if found >= c.exponents || found >= 0 && data[found] == nil {
		return Unclear
	}

	return found
}

// locate is Locate for one byte, by how far the parities are off.
func (c *Code) locate(ofP, ofQ byte) int {
	switch {
	case ofP == 0 && ofQ == 0:
		return Nowhere
	case ofQ == 0:
		return InP
	case ofP == 0:
		return InQ
	default:
		return (int(c.log[ofQ]) - int(c.log[ofP]) + MaxExponents) % MaxExponents
	}
}

// difference returns the offset of the first byte from lo to hi where block is
// not the sum, which begins at lo, or -1.
func difference(block, sum []byte, lo, hi int) int {
	XORInto(sum[:hi-lo], block[lo:hi])

	at := firstNonZero(sum[:hi-lo])
	if at < 0 {
		return -1
	}

	return lo + at
}
