package daemon

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"raid-assembler/pkg/raid"
)

// machineUse is what the machine's number is mixed with: the number itself is not to
// be told, as machine-id(5) has it.
const machineUse = "raid-assembler roster"

// Machine returns what names the machine that root is of, whatever its host name is, or
// nothing if nothing does.
func Machine(root fs.FS) string {
	text, err := fs.ReadFile(root, "etc/machine-id")
	id := strings.TrimSpace(string(text))

	if _, bad := raid.ParseUUID(id); err != nil || bad != nil {
		return ""
	}

	mac := hmac.New(sha256.New, []byte(id))
	_, _ = mac.Write([]byte(machineUse)) // it never fails

	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// Ours reports whether an array has run on the machine that root is of, as far as its
// roster or a copy of that says, which are files.
func Ours(root string, files []string, array raid.UUID) bool {
	machine := Machine(os.DirFS(root))

	return machine != "" && slices.ContainsFunc(files, func(file string) bool {
		known, _, err := readRoster(filepath.Join(root, file))
		if err != nil {
			return false
		}

		a := known.Find(array)

		return a != nil && a.Machine == machine
	})
}
