package doctor

import (
	"fmt"
	"path"
	"strings"

	"raid-assembler/pkg/api"
)

// Where units and rules are looked for, what wins first.
var (
	unitDirs = []string{"etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"}
	ruleDirs = []string{"etc/udev/rules.d", "run/udev/rules.d", "usr/lib/udev/rules.d", "lib/udev/rules.d"}
)

const reinstall = "install raid-assembler again"

func units(h Host) []Finding {
	var findings []Finding

	for _, unit := range []struct {
		name  string
		needs bool // to be active, at all times
	}{
		{"raid-engine.socket", true},
		{"raid-engine.service", false},
		{"raid-assembler.service", true},
	} {
		findings = append(findings, h.unit(unit.name, unit.needs))
	}

	return findings
}

func (h Host) unit(name string, needed bool) Finding {
	if h.find(name, unitDirs) == "" {
		return fail(name, "is not installed", reinstall)
	}

	// It exits with an error if the unit is not active, and prints what it is.
	state, err := h.Run("systemctl", "is-active", name)
	state = strings.TrimSpace(state)

	switch {
	case state == "" && err != nil:
		return warn(name, "its state cannot be told: "+err.Error(), "systemctl status "+name)
	case state == "failed":
		return fail(name, "has failed", "journalctl -u "+name+", then systemctl restart "+name)
	case needed && state != "active":
		return fail(name, "is "+state, "systemctl enable --now "+name)
	default:
		return ok(name, "is "+state)
	}
}

// memlock: without it, mlockall fails, and the engine may wait for a page that
// is on one of its own arrays.
func memlock(h Host) []Finding {
	const check = "memlock"

	if pid, err := h.Run("systemctl", "show", "--property=MainPID", "--value", "raid-engine.service"); err == nil {
		limits, _ := h.read("proc/" + strings.TrimSpace(pid) + "/limits")
		for line := range strings.Lines(limits) {
			if rest, found := strings.CutPrefix(line, "Max locked memory"); found {
				if strings.HasPrefix(strings.TrimSpace(rest), "unlimited") {
					return []Finding{ok(check, "the engine may lock all of its memory")}
				}

				return []Finding{fail(check, "the engine may lock only "+strings.Join(strings.Fields(rest), " "),
					"set LimitMEMLOCK=infinity in raid-engine.service")}
			}
		}
	}

	unit := h.find("raid-engine.service", unitDirs)
	if text, _ := h.read(unit); strings.Contains(text, "LimitMEMLOCK=infinity") {
		return []Finding{ok(check, "raid-engine.service lets the engine lock all of its memory")}
	}

	return []Finding{fail(check, "raid-engine.service does not say LimitMEMLOCK=infinity", reinstall)}
}

func sockets(h Host) []Finding {
	var findings []Finding

	for _, s := range []struct{ path, unit string }{
		{api.EngineSocket, "raid-engine.socket"},
		{api.AssemblerSocket, "raid-assembler.service"},
	} {
		check := "socket of " + strings.TrimSuffix(strings.TrimSuffix(s.unit, ".socket"), ".service")
		if err := h.Dial(s.path); err != nil {
			findings = append(findings, warn(check, fmt.Sprintf("nobody answers: %v", err),
				"run this as root, and see systemctl status "+s.unit))
		} else {
			findings = append(findings, ok(check, s.path))
		}
	}

	return findings
}

// The rules whose order matters. They run in the order of their names,
// whatever their directories.
const (
	memberRule = "62-raid-assembler-members.rules"
	arrayRule  = "63-raid-assembler-arrays.rules"
)

func rules(h Host) []Finding {
	var findings []Finding

	for _, name := range []string{memberRule, arrayRule} {
		file := h.find(name, ruleDirs)
		text, _ := h.read(file)

		switch {
		case file == "":
			findings = append(findings, fail("udev", name+" is not installed", reinstall))
		case text == "":
			findings = append(findings, fail("udev", "/"+file+" is empty, which masks the rule", "rm /"+file))
		case path.Dir(file) == ruleDirs[0]:
			findings = append(findings, warn("udev", "/"+file+" is used instead of ours", "compare the two"))
		default:
			findings = append(findings, ok("udev", name+" is installed"))
		}
	}

	return findings
}
