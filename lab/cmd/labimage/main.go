// Labimage builds the image that the VM lab's guests start from, unless it is
// there, and prints where it is. It installs the packages that the host lacks.
// RAID_LAB_KERNEL chooses the kernel, RAID_LAB_CACHE the place.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"raid-assembler/lab"
)

func main() { os.Exit(run(os.Stdout, os.Stderr)) }

func run(stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	began := time.Now()

	img, err := lab.Image(ctx, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "labimage:", err)

		return 1
	}

	fmt.Fprintf(stderr, "lab: the guest image is ready after %.0fs\n", time.Since(began).Seconds())
	fmt.Fprintln(stdout, img.Dir())

	return 0
}
