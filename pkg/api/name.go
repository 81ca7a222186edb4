package api

import "strings"

// NameMax is the longest name of an array, in bytes: md has room for no more.
const NameMax = 32

// ValidName reports whether name can be the name of an array, which is a file
// name below /dev/raid: 1 to [NameMax] letters, digits, dots, dashes or
// underscores, with no dot or dash in front.
func ValidName(name string) bool { return name != "" && name == SafeName(name) }

// SafeName makes a valid name of one that comes from a disk, or "" if nothing
// of it is left.
func SafeName(name string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
			return r
		default:
			return '_'
		}
	}, name)

	clean = strings.TrimLeft(clean, ".-")

	return clean[:min(len(clean), NameMax)]
}
