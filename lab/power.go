package lab

import (
	"fmt"
	"os"
)

// logPath is the log of the disk's writes since it was attached.
func (d *GuestDisk) logPath() string { return d.Path() + ".log" }

// basePath is what the disk held when the log began.
func (d *GuestDisk) basePath() string { return d.Path() + ".base" }

// addLog adds a node that logs writes above the disk's file.
func (d *GuestDisk) addLog(node string, file func(name, path string) args) error {
	if err := copySparse(d.basePath(), d.Path()); err != nil {
		return err
	}

	if err := os.WriteFile(d.logPath(), nil, 0o644); err != nil {
		return fmt.Errorf("lab: %w", err)
	}

	if err := d.g.m.Execute("blockdev-add", file(node+"-logfile", d.logPath()), nil); err != nil {
		return err
	}

	return d.g.m.Execute("blockdev-add", args{
		"driver": "blklogwrites", "node-name": node + "-log", "file": node + "-file", "log": node + "-logfile",
		"log-sector-size": 512,
	}, nil)
}
