package daemon

import (
	"context"
	"fmt"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
)

// keep starts an array, whose members contradict each other, with those that the
// operator chose, and has it fill the others anew. Should that end between the two
// steps, the others are what they were, and can be chosen among again. The caller
// has reserved the array.
func (d *Daemon) keep(ctx context.Context, uuid raid.UUID, p api.ChangeParameters) (string, error) {
	var (
		name string
		ds   []policy.Decision
		bad  error
	)

	err := d.do(ctx, func() {
		var chosen []string

		name = d.nameOf(uuid)
		if chosen, bad = d.paths(p.Devices); bad == nil {
			ds = policy.Choose(d.wanted(uuid, p), d.policy, uuid, chosen)
		}
	})
	if err != nil || bad != nil {
		return "", firstError(err, bad)
	}

	head, givenUp := ds[0], ds[1:]

	switch {
	case head.Action != policy.Start:
		return "", fmt.Errorf("%s: %s: %w", name, head.Reason, errRefused)
	case p.ReadOnly && len(givenUp) > 0:
		return "", fmt.Errorf("%s: what is read-only is given no members: without --choose it starts from %s alone: %w",
			name, memberList(head.Members), errRefused)
	case p.DryRun:
		return fmt.Sprintf("%s would be started with %s, and would have %s filled anew: %s",
			name, memberList(head.Members), givenUpList(givenUp), head.Reason), nil
	}

	ctx, cancel := context.WithTimeout(ctx, operationMax)
	defer cancel()

	if err := d.startAsAsked(ctx, startParameters(name, head, false)); err != nil {
		return "", err
	}

	for _, dec := range givenUp {
		if err := d.performOne(ctx, name, dec, nil); err != nil {
			return "", fmt.Errorf("%s runs, but was not given %s, which raid-assembler add --force %s %s does: %w",
				name, dec.Device, name, dec.Device, err)
		}
	}

	return fmt.Sprintf("%s was started with %s, and has %s filled anew: %s",
		name, memberList(head.Members), givenUpList(givenUp), head.Reason), nil
}

// givenUpList names the devices that are given up.
func givenUpList(ds []policy.Decision) string {
	members := make([]policy.Member, len(ds))
	for i, dec := range ds {
		members[i] = policy.Member{Path: dec.Device, Serial: dec.Serial, Slot: raid.NoSlot}
	}

	return memberList(members)
}
