package doctor

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// leaveToMdadm is the file that has us keep our hands off all arrays.
const leaveToMdadm = "etc/raid-assembler/leave-to-mdadm"

// competition finds who else would assemble the arrays that we run.
func competition(h Host) []Finding {
	var findings []Finding

	if h.exists(leaveToMdadm) {
		findings = append(findings, warn("mdadm", "/"+leaveToMdadm+" leaves all arrays to mdadm", "rm /"+leaveToMdadm))
	}

	findings = append(findings, mdadmRules(h)...)

	if h.exists("usr/share/initramfs-tools/scripts/local-block/mdadm") && !autoOff(h) {
		findings = append(findings, warn("mdadm", "mdadm's part of the initramfs assembles all arrays that it finds",
			`put "AUTO -all" into /etc/mdadm/mdadm.conf and run update-initramfs -u`))
	}

	if len(findings) == 0 {
		findings = append(findings, ok("mdadm", "nobody else assembles arrays"))
	}

	return findings
}

// mdadmRules finds rules of mdadm that come before ours: they would be asked
// first and take the members.
func mdadmRules(h Host) []Finding {
	var findings []Finding

	seen := map[string]bool{} // a rule wins over those of its name further down

	for _, dir := range ruleDirs {
		names, err := fs.Glob(h.FS, path.Join(dir, "*md-raid-assembly*.rules"))
		if err != nil {
			continue
		}

		for _, file := range names {
			name := path.Base(file)
			if text, _ := h.read(file); seen[name] || text == "" {
				seen[name] = true

				continue
			}

			seen[name] = true

			if name < memberRule {
				findings = append(findings, fail("mdadm", fmt.Sprintf("%s comes before %s", name, memberRule),
					"ln -s /dev/null /etc/udev/rules.d/"+name))
			} else {
				findings = append(findings, ok("mdadm", fmt.Sprintf("%s comes after %s, and gets what that leaves",
					name, memberRule)))
			}
		}
	}

	return findings
}

// autoOff reports whether mdadm is told to assemble nothing by itself. Only the
// first AUTO line counts.
func autoOff(h Host) bool {
	text, _ := h.read("etc/mdadm/mdadm.conf")

	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) > 0 && strings.EqualFold(words[0], "AUTO") {
			return strings.EqualFold(words[len(words)-1], "-all")
		}
	}

	return false
}
