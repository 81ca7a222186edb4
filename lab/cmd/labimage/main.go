// Labimage builds the image that the VM lab's guests start from, unless it is
// there, and prints where it is. It installs the packages that the host lacks.
// RAID_LAB_KERNEL chooses the kernel, RAID_LAB_CACHE the place.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"time"

	"raid-assembler/lab"
)

func main() { os.Exit(run(os.Stdout, os.Stderr)) }

func run(stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	say := log.New(stderr, "lab: ", 0)
	began := time.Now()

	img, err := lab.Image(ctx, stderr)
	if err != nil {
		say.Print(err)

		return 1
	}

	say.Printf("the guest image is ready after %.0fs", time.Since(began).Seconds())

	if _, err := fmt.Fprintln(stdout, img.Dir()); err != nil {
		say.Print(err)

		return 1
	}

	return 0
}
