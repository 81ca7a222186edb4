// Package raid holds the nouns that scan, metadata, policy and engine share.
//
// It is a leaf: it imports nothing of this module and does no I/O.
package raid

import (
	"encoding/hex"
	"fmt"
	"math"
	"strings"
)

// Sectors is an offset or a length in units of [SectorSize] bytes, the
// kernel's unit whatever the logical block size of the device.
type Sectors int64

// SectorSize is the size of a sector in bytes.
const SectorSize = 512

// MaxSectors stands for "everything": a resync or recovery offset that says
// that all is in sync.
const MaxSectors Sectors = math.MaxInt64

// Bytes returns s in bytes. Preconditions: s is not [MaxSectors].
func (s Sectors) Bytes() int64 { return int64(s) * SectorSize }

// Range is the sectors from From up to, but not including, To.
type Range struct{ From, To Sectors }

// Len returns the number of sectors in r.
func (r Range) Len() Sectors { return max(0, r.To-r.From) }

// Empty reports whether r holds no sector.
func (r Range) Empty() bool { return r.To <= r.From }

// Overlaps reports whether r and o have a sector in common.
func (r Range) Overlaps(o Range) bool { return max(r.From, o.From) < min(r.To, o.To) }

// UUID names an array or a member for all of its life.
type UUID [16]byte

// String prints u as mdadm does: four groups of eight hexadecimal digits.
func (u UUID) String() string {
	h := hex.EncodeToString(u[:])

	return h[0:8] + ":" + h[8:16] + ":" + h[16:24] + ":" + h[24:32]
}

// MarshalText implements [encoding.TextMarshaler].
func (u UUID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (u *UUID) UnmarshalText(text []byte) error {
	parsed, err := ParseUUID(string(text))
	*u = parsed

	return err
}

// IsZero reports whether u names nothing.
func (u UUID) IsZero() bool { return u == UUID{} }

// ParseUUID reads 32 hexadecimal digits, with or without the separators that
// mdadm (:) and udev (-) put between them.
func ParseUUID(text string) (UUID, error) {
	var u UUID

	digits := strings.NewReplacer(":", "", "-", "").Replace(text)

	b, err := hex.DecodeString(digits)
	if err != nil || len(b) != len(u) {
		return UUID{}, fmt.Errorf("raid: %q is not a UUID of 32 hexadecimal digits", text)
	}

	copy(u[:], b)

	return u, nil
}

// Slot is a position in an array, counted from 0.
type Slot int

// NoSlot is the slot of a spare.
const NoSlot Slot = -1

// Role is the part that a superblock says a member plays: a [Slot] of the
// array, or one of the reserved values below. The numbers are md's.
type Role uint16

// The roles that are not slots.
const (
	RoleSpare   Role = 0xffff
	RoleFaulty  Role = 0xfffe
	RoleJournal Role = 0xfffd

	roleSlotEnd Role = 0xff00
)

// Slot returns the slot that r names, and false for a spare, a faulty member
// or a journal.
func (r Role) Slot() (Slot, bool) {
	if r >= roleSlotEnd {
		return NoSlot, false
	}

	return Slot(r), true
}

func (r Role) String() string {
	switch {
	case r == RoleSpare:
		return "spare"
	case r == RoleFaulty:
		return "faulty"
	case r == RoleJournal:
		return "journal"
	case r >= roleSlotEnd:
		return fmt.Sprintf("reserved %#x", uint16(r))
	default:
		return fmt.Sprintf("slot %d", uint16(r))
	}
}
