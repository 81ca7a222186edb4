package image

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// defaultMirror is used where the host's own sources name no Debian mirror.
const defaultMirror = "http://deb.debian.org/debian"

// keyring must know the key that Debian 13 is signed with; that of a Debian 12
// which was never updated does not.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// tool is a program the lab runs, and the package that has it.
type tool struct{ program, pkg string }

var tools = []tool{
	{"qemu-system-x86_64", "qemu-system-x86"},
	{"qemu-img", "qemu-utils"},
	{"mmdebstrap", "mmdebstrap"},
	{"mke2fs", "e2fsprogs"},
	{"xz", "xz-utils"},
	{"zstd", "zstd"},
	{"gpg", "gpg"},
}

// installTools installs the packages of the tools that the host lacks.
func installTools(ctx context.Context, log *log.Logger) error {
	var missing []string

	needed := tools
	if os.Geteuid() != 0 {
		needed = append(needed, tool{"newuidmap", "uidmap"}) // for a user namespace
	}

	for _, t := range needed {
		if _, err := exec.LookPath(t.program); err != nil {
			missing = append(missing, t.pkg)
		}
	}

	return install(ctx, log, missing)
}

// installKeyring installs the newest keyring if the present one is too old.
func installKeyring(ctx context.Context, log *log.Logger) error {
	out, err := exec.CommandContext(ctx, "gpg", "--show-keys", "--with-colons", keyring).Output()
	if err == nil && strings.Contains(string(out), "13/trixie") {
		return nil
	}

	return install(ctx, log, []string{"debian-archive-keyring"})
}

func install(ctx context.Context, log *log.Logger, packages []string) error {
	if len(packages) == 0 {
		return nil
	}

	argv := append([]string{"apt-get", "install", "--yes", "--no-install-recommends"}, packages...)
	if os.Geteuid() != 0 {
		return fmt.Errorf("image: packages are missing; as root, run: %s", strings.Join(argv, " "))
	}

	log.Print("installing ", strings.Join(packages, " "))

	for _, argv := range [][]string{{"apt-get", "update"}, argv} {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = log.Writer(), log.Writer()

		if err := cmd.Run(); err != nil {
			return fmt.Errorf("image: %s: %w", strings.Join(argv, " "), err)
		}
	}

	return nil
}

// aptURI finds the addresses in both forms of apt's sources.
var aptURI = regexp.MustCompile(`(?m)^(?:deb\s+(?:\[[^]]*\]\s+)?|URIs:\s+)(https?://\S+/debian/?)(?:\s|$)`)

// mirror returns the Debian mirror that the apt sources below dir name.
func mirror(dir string) string {
	files := []string{filepath.Join(dir, "sources.list")}

	for _, pattern := range []string{"*.sources", "*.list"} {
		more, err := filepath.Glob(filepath.Join(dir, "sources.list.d", pattern))
		if err == nil {
			files = append(files, more...)
		}
	}

	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // most hosts have one of the forms only
		}

		if m := aptURI.FindSubmatch(text); m != nil {
			return strings.TrimSuffix(string(m[1]), "/")
		}
	}

	return defaultMirror
}
