package main

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// printable returns text with everything escaped that could make a terminal do
// something else than show it. Names and labels come from disks, and whoever
// wrote the disk may have chosen them well. Lines stay lines.
func printable(text string) string {
	var b strings.Builder

	for i, r := range text {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case r == '\n' || r == '\t' || unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}

	return b.String()
}

// word is printable for what must stay within its line and its column.
func word(text string) string {
	return strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(printable(text))
}

// size returns a number of bytes as people read it.
func size(bytes int64) string {
	const units = "KMGTPE"

	if bytes < 1<<10 {
		return fmt.Sprintf("%d B", bytes)
	}

	value, unit := float64(bytes)/(1<<10), 0
	for value >= 1<<10 && unit < len(units)-1 {
		value /= 1 << 10
		unit++
	}

	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}

// parseSize reads a size with a unit: 512K, 20GiB. A bare number is in KiB, as
// in mdadm.
func parseSize(text string) (int64, error) {
	const units = "KMGTPE"

	number := text
	if end := strings.IndexFunc(text, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		number = text[:end]
	}

	unit := cmp.Or(strings.ToUpper(text[len(number):]), "K")
	shift := 10 * (1 + strings.IndexByte(units, unit[0]))
	known := unit[1:] == "" || unit[1:] == "B" || unit[1:] == "IB"

	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || shift == 0 || !known || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q is no size such as 64K, 20G or 1T", text)
	}

	return n << shift, nil
}

// duration returns a number of seconds as people read it.
func duration(seconds int64) string {
	d := time.Duration(seconds) * time.Second

	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", seconds)
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", seconds/60, seconds%60)
	default:
		return fmt.Sprintf("%d h %d min", seconds/3600, seconds%3600/60)
	}
}

// count returns "1 member" or "2 members".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}

	return fmt.Sprintf("%d %ss", n, noun)
}
