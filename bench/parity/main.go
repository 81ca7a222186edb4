// The parity command compares how fast parities are made: by pkg/engine/parity,
// and by ISA-L, if it was built with it (-tags isal, with cgo).
//
// All that is compared runs in one process, one core and one run, in rounds that
// take turns, and the best round of each counts: what else the machine does
// then bears on none more than on the others. Figures are bytes of source data
// a second.
package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"raid-assembler/pkg/engine/parity"
)

const (
	rounds    = 15
	roundTime = 20 * time.Millisecond
)

// contender is one way to do the work of a contest.
type contender struct {
	name string
	run  func()
	best float64 // bytes a second
}

// contest is work that is compared.
type contest struct {
	name       string
	bytes      int // of source data
	contenders []*contender
}

func main() {
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "parity:", err)
		os.Exit(1)
	}
}

func run(out io.Writer) error {
	runtime.LockOSThread()

	for _, size := range []int{4 << 10, 64 << 10, 512 << 10} {
		contests, err := contestsOf(size)
		if err != nil {
			return err
		}

		for _, c := range contests {
			c.measure()
			c.print(out, size)
		}
	}

	return nil
}

// contestsOf returns what is compared for blocks of one size.
func contestsOf(size int) ([]contest, error) {
	blocks := make([][]byte, 18)

	for i := range blocks {
		// Pages of their own: ISA-L needs the alignment.
		block, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return nil, err
		}

		for j := range block {
			block[j] = byte(i*j + j>>8)
		}

		blocks[i] = block
	}

	var contests []contest

	p, q := blocks[16], blocks[17]

	for _, n := range []int{4, 8, 16} {
		data := blocks[:n]
		contests = append(contests, contest{
			fmt.Sprintf("P of %d", n), n * size,
			with(isalXOR(p, data), func() { parity.XOR(p, data...) }),
		})
	}

	for _, n := range []int{2, 4, 8} {
		data, code := blocks[:n], parity.NewCode(n)
		contests = append(contests, contest{
			fmt.Sprintf("P+Q of %d", n), n * size,
			with(isalPQ(p, q, data), func() { code.PQ(p, q, data) }),
		})
	}

	data, code := blocks[:8], parity.NewCode(8)
	contests = append(
		contests,
		contest{"update P, Q", size, with(nil, func() { code.Update(p, q, 5, data[5]) })},
		contest{"recover 2 of 8", 8 * size, with(nil, func() { code.RecoverTwo(data, p, q, 2, 6) })},
		contest{"recover by Q", 8 * size, with(nil, func() { code.RecoverQ(data, q, 2) })},
		contest{"check P+Q of 8", 8 * size, with(nil, func() { code.CheckPQ(p, q, data) })},
	)

	return contests, nil
}

// with returns us and, if it is there, ISA-L.
func with(isal, ours func()) []*contender {
	contenders := []*contender{{name: "ours", run: ours}}
	if isal != nil {
		contenders = append(contenders, &contender{name: "ISA-L", run: isal})
	}

	return contenders
}

func (c contest) measure() {
	for range rounds {
		for _, contender := range c.contenders {
			calls := 0
			began := time.Now()

			for time.Since(began) < roundTime {
				for range 16 {
					contender.run()
				}

				calls += 16
			}

			rate := float64(calls) * float64(c.bytes) / time.Since(began).Seconds()
			contender.best = max(contender.best, rate)
		}
	}
}

func (c contest) print(out io.Writer, size int) {
	fmt.Fprintf(out, "%-16s %4d KiB", c.name, size>>10)

	for _, contender := range c.contenders {
		fmt.Fprintf(out, "  %s %6.1f GB/s", contender.name, contender.best/1e9)
	}

	if len(c.contenders) == 2 {
		fmt.Fprintf(out, "  ratio %.2f", c.contenders[0].best/c.contenders[1].best)
	}

	fmt.Fprintln(out)
}
