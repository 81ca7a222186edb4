package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"raid-assembler/lab/internal/qemu"
)

// WriteFile writes a file in the guest, and the directories above it.
func (g *Guest) WriteFile(name string, data []byte, mode fs.FileMode) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()

	if data == nil {
		data = []byte{} // the agent's default is not an empty standard input
	}

	argv := []string{
		"sh", "-euc", `mkdir -p "$(dirname "$1")"; cat >"$1"; chmod "$2" "$1"`, "sh",
		name, fmt.Sprintf("%o", mode.Perm()),
	}
	r, err := g.run(ctx, argv, data)

	return checked([]string{"write", name}, r, err)
}

// ReadFile returns what a file in the guest holds, which must be less than
// 16 MiB.
func (g *Guest) ReadFile(name string) ([]byte, error) {
	out, err := g.output([]string{"cat", name})

	return []byte(out), err
}

// PutTar unpacks a tar archive in a directory of the guest.
func (g *Guest) PutTar(archive io.Reader, dir string) error {
	g.data.Lock()
	defer g.data.Unlock()

	data, err := io.ReadAll(archive)
	if err != nil {
		return fmt.Errorf("lab: archive: %w", err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()

	// Symbolic links of the guest's own, such as /lib, stay what they are.
	argv := append(shell, fmt.Sprintf(
		`mkdir -p '%s'; head -c %d <%s | tar -x -C '%s' --keep-directory-symlink --no-overwrite-dir -f -`,
		dir, len(data), qemu.DataPort, dir))

	j, err := g.start(ctx, argv, nil)
	if err != nil {
		return err
	}

	// Were the guest's side to end early, nobody would read what is written.
	deadline, _ := ctx.Deadline()
	if err := g.m.Data.SetWriteDeadline(deadline); err != nil {
		return fmt.Errorf("lab: data port: %w", err)
	}

	if _, err := g.m.Data.Write(data); err != nil {
		return fmt.Errorf("lab: data port: %w", err)
	}

	r, err := j.Wait(ctx)

	return checked(argv, r, err)
}

// Install copies trees of the host's over the guest's root directory, owned by
// root, and has systemd and udev read their files again.
func (g *Guest) Install(trees ...string) error {
	for _, tree := range trees {
		var archive bytes.Buffer
		if err := writeTar(&archive, tree); err != nil {
			return err
		}

		if err := g.PutTar(&archive, "/"); err != nil {
			return err
		}
	}

	argv := append(shell, "systemctl daemon-reload; udevadm control --reload; journalctl --update-catalog")
	_, err := g.output(argv)

	return err
}

// writeTar archives what lies below dir.
func writeTar(w io.Writer, dir string) error {
	tw := tar.NewWriter(w)

	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}

		info, err := entry.Info()
		if err != nil {
			return err
		}

		link := ""
		if info.Mode()&fs.ModeSymlink != 0 {
			if link, err = os.Readlink(name); err != nil {
				return err
			}
		}

		header, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}

		below, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}

		header.Name = path.Clean(filepath.ToSlash(below))
		header.Uid, header.Gid, header.Uname, header.Gname = 0, 0, "root", "root"

		if err := tw.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
			return err
		}

		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}

		_, err = tw.Write(data)

		return err
	})
	if err != nil {
		return fmt.Errorf("lab: archive of %s: %w", dir, err)
	}

	if err := tw.Close(); err != nil {
		return fmt.Errorf("lab: archive of %s: %w", dir, err)
	}

	return nil
}
