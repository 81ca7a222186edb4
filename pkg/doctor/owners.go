package doctor

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"raid-assembler/pkg/config"
	"raid-assembler/pkg/policy"
	"raid-assembler/pkg/raid"
)

// array is an array that somebody runs.
type array struct {
	device string // as the kernel calls it
	policy.Identity
}

func (a array) String() string {
	if a.Name == "" || a.Name == a.device {
		return a.device
	}

	return fmt.Sprintf("%s (%s)", a.device, a.Name)
}

// owners finds who runs which arrays, and whether that is who should.
func owners(h Host) []Finding {
	var findings []Finding

	ours := engineArrays(h)
	if len(ours) > 0 {
		findings = append(findings, ok("owners", "raid-engine runs "+listed(ours)))
	}

	hostname, _ := h.read("proc/sys/kernel/hostname")
	settings := config.Read(h.FS)
	choose := settings.Policy(policy.DefaultConfig(), hostname).For

	for _, md := range mdArrays(h) {
		findings = append(findings, mdOwner(md, ours, choose(md.Identity), h.exists(leaveToMdadm)))
	}

	if taken := dmraidSets(h); len(taken) > 0 {
		findings = append(findings, warn("owners", "dmraid has set up "+strings.Join(taken, ", "),
			"if they are to be ours: unmount them, then dmraid -an; it keeps their members until then"))
	}

	return findings
}

// mdOwner judges that md runs an array.
func mdOwner(md array, ours []array, choice policy.Choice, all bool) Finding {
	same := func(a array) bool { return !md.UUID.IsZero() && a.UUID == md.UUID }

	switch i := slices.IndexFunc(ours, same); {
	case i >= 0:
		return fail("owners", fmt.Sprintf("md runs %v, and raid-engine other members of it as %v", md, ours[i]),
			fmt.Sprintf("stop one of them: raid-assembler stop %v, or mdadm --stop /dev/%s", ours[i].UUID, md.device))
	case all:
		return ok("owners", fmt.Sprintf("md runs %v: /%s leaves all arrays to it", md, leaveToMdadm))
	case choice.Mode == policy.LeaveToMdadm:
		return ok("owners", fmt.Sprintf("md runs %v: %s", md, choice.By))
	default:
		return warn("owners", fmt.Sprintf("md runs %v", md), fmt.Sprintf("if it is to be ours: unmount it, then "+
			"mdadm --stop /dev/%s; its members stay with md until then. If not: Assemble=leave-to-mdadm", md.device))
	}
}

// listed names arrays.
func listed(arrays []array) string {
	names := make([]string, len(arrays))
	for i, a := range arrays {
		names[i] = a.String()
	}

	return strings.Join(names, ", ")
}

// engineArrays returns what raid-engine runs, by what it tells udev.
func engineArrays(h Host) []array {
	files, _ := fs.Glob(h.FS, "run/raid-engine/by-device/*")

	arrays := make([]array, 0, len(files))

	for _, file := range files {
		arrays = append(arrays, identified(h, path.Base(file), file, "RAID_"))
	}

	return arrays
}

// mdArrays returns the arrays that md runs. Who they are udev knows.
func mdArrays(h Host) []array {
	text, _ := h.read("proc/mdstat")

	var arrays []array

	for line := range strings.Lines(text) {
		name, state, found := strings.Cut(line, " : ")
		if !found || !strings.HasPrefix(state, "active") {
			continue
		}

		number, _ := h.read(path.Join("sys/block", name, "dev"))
		a := identified(h, name, "run/udev/data/b"+number, "E:MD_")
		a.Format = mdFormat(h, name)

		if host, rest, found := strings.Cut(a.Name, ":"); found {
			a.Host, a.Name = host, rest
		}

		arrays = append(arrays, a)
	}

	return arrays
}

// identified returns what a file says of an array, in lines of names and values.
func identified(h Host, device, file, prefix string) array {
	a := array{device: device}
	text, _ := h.read(file)

	for line := range strings.Lines(text) {
		switch key, value, _ := strings.Cut(strings.TrimSpace(line), "="); key {
		case prefix + "UUID":
			a.UUID, _ = raid.ParseUUID(value) // else it is one that nobody knows
		case prefix + "NAME":
			a.Name = value
		}
	}

	return a
}

// mdFormat returns the format of an array of md's, or of the container that it is in.
func mdFormat(h Host, name string) string {
	text, _ := h.read(path.Join("sys/block", name, "md/metadata_version"))

	version, external := strings.CutPrefix(text, "external:")
	if container, _, found := strings.Cut(strings.TrimPrefix(version, "/"), "/"); external && found {
		text, _ = h.read(path.Join("sys/block", container, "md/metadata_version"))
		version = strings.TrimPrefix(text, "external:")
	}

	return version
}

// dmraidSets returns the arrays that dmraid has set up in the device mapper.
func dmraidSets(h Host) []string {
	files, _ := fs.Glob(h.FS, "sys/block/dm-*/dm/uuid")

	var sets []string

	for _, file := range files {
		if uuid, _ := h.read(file); strings.HasPrefix(uuid, "DMRAID-") {
			name, _ := h.read(path.Join(path.Dir(file), "name"))
			sets = append(sets, name)
		}
	}

	return sets
}
