package rescue

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"raid-assembler/pkg/raid"
)

// choice is who sits where.
type choice struct {
	freshest Member
	seats    map[raid.Slot]seat
	leftOut  []LeftOut
}

type seat struct {
	member Member
	stale  string // why it should not be used; empty if it may be
}

// choose gives each slot its member, going by the freshest superblock. What a
// member says of its own slot is not asked, unless it is stale and forced: a
// member that failed was never told.
func choose(members []Member, opts Options) (choice, error) {
	members, err := oneArray(members)
	if err != nil {
		return choice{}, err
	}

	best, err := freshest(members)
	if err != nil {
		return choice{}, err
	}

	c := choice{freshest: best, seats: make(map[raid.Slot]seat)}

	var stale, successors []seat

	for _, m := range members {
		slot, reason, isStale := judge(m, best)

		switch {
		case isStale:
			stale = append(stale, seat{member: m, stale: reason})
		case reason != "":
			c.leave(m, reason)
		case m.Superblock.Replacement:
			successors = append(successors, seat{member: m})
		case c.taken(slot):
			return choice{}, fmt.Errorf("%s and %s are both for slot %d, give only one of them: %w",
				c.seats[slot].member.Name, m.Name, slot, ErrAmbiguous)
		default:
			if err := sameShape(m, best); err != nil {
				return choice{}, err
			}

			c.seats[slot] = seat{member: m}
		}
	}

	if err := c.seatSuccessors(successors); err != nil {
		return choice{}, err
	}

	if err := c.seatStale(stale, opts); err != nil {
		return choice{}, err
	}

	slices.SortFunc(c.leftOut, func(a, b LeftOut) int { return cmp.Compare(a.Name, b.Name) })

	return c, nil
}

// oneArray returns members by name, for the order in which they are given must
// not show, and refuses those of more than one array.
func oneArray(members []Member) ([]Member, error) {
	if len(members) == 0 {
		return nil, errors.New("no members")
	}

	members = slices.SortedFunc(slices.Values(members), func(a, b Member) int {
		return cmp.Compare(a.Name, b.Name)
	})

	for _, m := range members {
		first := members[0]
		if m.Superblock.Array != first.Superblock.Array {
			return nil, fmt.Errorf("%s belongs to array %v, %s to %v: %w",
				first.Name, first.Superblock.Array, m.Name, m.Superblock.Array, ErrAmbiguous)
		}

		if why := m.Superblock.Unreadable; why != "" {
			return nil, fmt.Errorf("%s: the content cannot be told from the members: %s", m.Name, why)
		}
	}

	return members, nil
}

// freshest returns the member with the highest event count, among those that
// hold a slot by their own word: the count of a spare need not keep up, and a
// stray one may be ahead.
//
// Two that are equally fresh and disagree about who is a member have each run
// without the other. No count says which of the two histories is wanted.
func freshest(members []Member) (Member, error) {
	var (
		best  Member
		found bool
	)

	for _, m := range members {
		sb := m.Superblock
		if _, slotted := sb.Role(sb.Number).Slot(); !slotted {
			continue
		}

		if !found || sb.Events > best.Superblock.Events {
			best, found = m, true

			continue
		}

		if sb.Events == best.Superblock.Events && !sameRoles(sb.Roles, best.Superblock.Roles) {
			return Member{}, fmt.Errorf("%s and %s were each run without the other (%d events both), "+
				"give only the members of one: %w", best.Name, m.Name, sb.Events, ErrAmbiguous)
		}
	}

	if !found {
		return Member{}, fmt.Errorf("none of the %d members holds a slot: %w", len(members), ErrIncomplete)
	}

	return best, nil
}

// sameRoles reports whether two role tables agree, one of which may be longer.
func sameRoles(a, b []raid.Role) bool {
	for i := range max(len(a), len(b)) {
		x, y := raid.RoleSpare, raid.RoleSpare
		if i < len(a) {
			x = a[i]
		}

		if i < len(b) {
			y = b[i]
		}

		if x != y {
			return false
		}
	}

	return true
}

// judge returns the slot of m, or why it is not to be used. Such a member is
// stale if it was in sync once, so that it could be forced.
func judge(m, best Member) (slot raid.Slot, reason string, stale bool) {
	sb, fresh := m.Superblock, best.Superblock
	own := sb.Role(sb.Number)
	role := fresh.Role(sb.Number)

	_, slotted := own.Slot()
	slot, ok := role.Slot()

	// The cases are ordered: each holds only where those above it do not.
	switch {
	case !slotted && ok:
		// Its superblock is from before it was put to work.
		return raid.NoSlot, "nothing was recovered onto it yet", false
	case !slotted:
		return raid.NoSlot, described(own), false
	case !ok && role == raid.RoleFaulty:
		return raid.NoSlot, fmt.Sprintf("stale: %s calls it faulty (%d events, it has %d)",
			best.Name, fresh.Events, sb.Events), true
	case !ok:
		return raid.NoSlot, fmt.Sprintf("stale: %s goes on without it (%d events, it has %d)",
			best.Name, fresh.Events, sb.Events), true
	case sb.Events+1 < fresh.Events:
		// One behind is a crash between two superblock writes. No data was
		// written in between, and the freshest would say so if it had failed.
		return raid.NoSlot, fmt.Sprintf("stale: it has %d events, %s has %d", sb.Events, best.Name, fresh.Events), true
	case int(slot) >= fresh.Disks:
		return raid.NoSlot, fmt.Sprintf("slot %d of an array of %d", slot, fresh.Disks), false
	case sb.RecoveryOffset <= 0:
		return raid.NoSlot, "nothing was recovered onto it yet", false
	default:
		return slot, "", false
	}
}

// described returns a role that is not a slot as a reason.
func described(role raid.Role) string {
	if role == raid.RoleFaulty {
		return "faulty by its own word"
	}

	return "it is a " + role.String()
}

// seatSuccessors puts members to use that are to replace others, where those
// are not here. What they hold is right as far as they were filled.
func (c *choice) seatSuccessors(successors []seat) error {
	for _, s := range successors {
		slot, _ := c.freshest.Superblock.Role(s.member.Superblock.Number).Slot()

		if c.taken(slot) {
			c.leave(s.member, fmt.Sprintf("it is to replace %s, which is here", c.seats[slot].member.Name))

			continue
		}

		if err := sameShape(s.member, c.freshest); err != nil {
			return err
		}

		c.seats[slot] = s
	}

	return nil
}

// seatStale puts stale members to use if they are forced, the freshest of each
// slot where nobody sits.
func (c *choice) seatStale(stale []seat, opts Options) error {
	slices.SortStableFunc(stale, func(a, b seat) int {
		return cmp.Compare(b.member.Superblock.Events, a.member.Superblock.Events)
	})

	for _, s := range stale {
		sb := s.member.Superblock
		slot, _ := sb.Role(sb.Number).Slot()

		switch {
		case !opts.ForceStale || int(slot) >= c.freshest.Superblock.Disks:
			c.leave(s.member, s.stale)
		case !c.taken(slot):
			if err := sameShape(s.member, c.freshest); err != nil {
				return err
			}

			c.seats[slot] = s
		case c.seats[slot].stale != "" && c.seats[slot].member.Superblock.Events == sb.Events:
			return fmt.Errorf("%s and %s are equally stale and both for slot %d, give only one of them: %w",
				c.seats[slot].member.Name, s.member.Name, slot, ErrAmbiguous)
		default:
			c.leave(s.member, fmt.Sprintf("%s; slot %d has %s", s.stale, slot, c.seats[slot].member.Name))
		}
	}

	return nil
}

func (c *choice) taken(slot raid.Slot) bool {
	_, ok := c.seats[slot]

	return ok
}

func (c *choice) leave(m Member, reason string) {
	c.leftOut = append(c.leftOut, LeftOut{Name: m.Name, Reason: reason})
}

// sameShape makes sure that m lies on its device as the freshest superblock
// says that members do. Nothing but damage or forgery makes them differ.
func sameShape(m, best Member) error {
	a, b := m.Superblock, best.Superblock

	switch {
	case a.Level != b.Level || a.Layout != b.Layout || a.Chunk != b.Chunk || a.Disks != b.Disks:
		return fmt.Errorf("%s says %v layout %d chunk %d of %d slots, %s says %v layout %d chunk %d of %d: %w",
			m.Name, a.Level, a.Layout, a.Chunk, a.Disks,
			best.Name, b.Level, b.Layout, b.Chunk, b.Disks, ErrAmbiguous)
	case !a.Holds(b):
		return fmt.Errorf("%s has room for %d sectors of data, %s says %d: %w",
			m.Name, a.DataSize, best.Name, b.Size, ErrAmbiguous)
	default:
		return nil
	}
}
