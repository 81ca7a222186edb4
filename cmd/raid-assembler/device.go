package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
	"raid-assembler/pkg/scan/sysfs"
)

// openSource opens a device or an image file to be read. The closer is to be
// called when the source is done with.
func openSource(path string) (metadata.Source, io.Closer, error) {
	// Nonblocking, for to open a named pipe would wait for its other end.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return metadata.Source{}, nil, err
	}

	source, err := sourceOf(file)
	if err != nil {
		_ = file.Close()

		return metadata.Source{}, nil, fmt.Errorf("%s: %w", path, err)
	}

	return source, file, nil
}

func sourceOf(file *os.File) (metadata.Source, error) {
	info, err := file.Stat()
	if err != nil {
		return metadata.Source{}, err
	}

	source := metadata.Source{ReaderAt: file, Block: raid.SectorSize}

	switch mode := info.Mode(); {
	case mode.IsRegular():
		// Images are named after the disks that they were taken of.
		source.Serial, _, _ = strings.Cut(filepath.Base(file.Name()), ".")
	case mode.Type() == fs.ModeDevice:
		identify(&source, file.Name())
	default:
		return metadata.Source{}, errors.New("neither a block device nor a file")
	}

	bytes, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return metadata.Source{}, err
	}

	source.Size = raid.Sectors(bytes / raid.SectorSize)

	return source, nil
}

// identify fills in what the kernel knows of a device. A node that the kernel
// has no name for can still be read.
func identify(source *metadata.Source, path string) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}

	d, err := sysfs.Read(sysfs.Host(), strings.TrimPrefix(path, "/dev/"))
	if err != nil {
		return
	}

	source.Serial = d.Serial
	source.Block = max(source.Block, d.LogicalBlock)
}

// deviceNumber takes a device number apart, as glibc's major and minor do.
func deviceNumber(dev uint64) (major, minor uint64) {
	return dev>>8&0xfff | dev>>32&^0xfff, dev&0xff | dev>>12&^0xff
}

// isTerminal reports whether w shows what is written to it to somebody. Of the
// character devices only those of memory (major 1: null, full) do not.
func isTerminal(w io.Writer) bool {
	const memory = 1

	file, ok := w.(*os.File)
	if !ok {
		return false
	}

	info, err := file.Stat()
	if err != nil || info.Mode()&fs.ModeCharDevice == 0 {
		return false
	}

	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}

	major, _ := deviceNumber(stat.Rdev)

	return major != memory
}
