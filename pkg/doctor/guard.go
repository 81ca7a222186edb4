package doctor

import (
	"strings"

	"raid-assembler/pkg/guard"
)

// guarded tells whether writes to members by others are refused. That they are not is no
// fault: it is an offer.
func guarded(h Host) []Finding {
	const check = "guard"

	modules, _ := h.read("sys/kernel/security/lsm")

	switch {
	case h.exists(strings.TrimPrefix(guard.Pin, "/")):
		return []Finding{ok(check, "is on: nobody but the engine may open members for writing")}
	case guard.Allowed(modules):
		return []Finding{ok(check, "is off: raid-assembler guard on has the kernel refuse writes to members by others")}
	default:
		return []Finding{ok(check, "is off: this kernel was started without the security module bpf")}
	}
}
