package parity

// RecoverQ sets data[x] to what q and the other chunks say it is, for when P
// is lost too. Preconditions: data[x] is a block to write to, and otherwise
// those of [Code.PQ].
func (c *Code) RecoverQ(data [][]byte, q []byte, x int) {
	c.mustHave(x)
	size := c.mustFit(nil, q, data)
	divide := c.inverse(c.power[x])

	for lo := 0; lo < size; lo += tile {
		hi := min(lo+tile, size)
		views := c.cut(data, lo, hi)

		lost, sum := views[x], c.q[:hi-lo]
		views[x] = nil
		c.sums(c.p[:hi-lo], sum, views)
		XORInto(sum, q[lo:hi])
		c.multiply.GalMulSlice(divide, sum, lost)
	}
}

// RecoverTwo sets data[x] and data[y] to what both parities and the other
// chunks say they are. Preconditions: x and y differ, data[x] and data[y] are
// blocks to write to, and otherwise those of [Code.PQ].
func (c *Code) RecoverTwo(data [][]byte, p, q []byte, x, y int) {
	c.mustHave(x)
	c.mustHave(y)

	if x == y {
		panic("parity: one chunk lost twice")
	}

	size := c.mustFit(p, q, data)

	// With p and q what the others leave of the parities, p = X + Y and
	// q = 2^x X + 2^y Y, hence X = (q + 2^y p) / (2^x + 2^y).
	divide := c.inverse(c.power[x] ^ c.power[y])
	ofP := c.product(c.power[y], divide)

	for lo := 0; lo < size; lo += tile {
		hi := min(lo+tile, size)
		views := c.cut(data, lo, hi)

		first, second := views[x], views[y]
		views[x], views[y] = nil, nil
		sumP, sumQ := c.p[:hi-lo], c.q[:hi-lo]
		c.sums(sumP, sumQ, views)
		XORInto(sumP, p[lo:hi])
		XORInto(sumQ, q[lo:hi])

		c.multiply.GalMulSlice(divide, sumQ, first)
		c.addProduct(first, ofP, sumP)
		XOR(second, sumP, first)
	}
}

// product returns a times b.
func (c *Code) product(a, b byte) byte {
	if a == 0 || b == 0 {
		return 0
	}

	return c.power[(int(c.log[a])+int(c.log[b]))%MaxExponents]
}

// inverse returns 1/a. Preconditions: a is not zero.
func (c *Code) inverse(a byte) byte {
	return c.power[(MaxExponents-int(c.log[a]))%MaxExponents]
}
