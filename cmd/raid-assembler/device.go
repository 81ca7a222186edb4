package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
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

	block := raid.SectorSize
	serial := ""

	switch mode := info.Mode(); {
	case mode.IsRegular():
		// Images are named after the disks that they were taken of.
		serial, _, _ = strings.Cut(filepath.Base(file.Name()), ".")
	case mode.Type() == fs.ModeDevice:
		block = logicalBlock(info)
	default:
		return metadata.Source{}, errors.New("neither a block device nor a file")
	}

	bytes, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return metadata.Source{}, err
	}

	return metadata.Source{
		ReaderAt: file, Size: raid.Sectors(bytes / raid.SectorSize), Block: block, Serial: serial,
	}, nil
}

// logicalBlock returns the logical block size of a device, which for a
// partition is that of its disk.
func logicalBlock(info fs.FileInfo) int {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return raid.SectorSize
	}

	major, minor := deviceNumber(stat.Rdev)
	dir := fmt.Sprintf("/sys/dev/block/%d:%d", major, minor)

	for _, name := range []string{"queue/logical_block_size", "../queue/logical_block_size"} {
		text, err := os.ReadFile(dir + "/" + name)
		if err != nil {
			continue
		}

		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && n >= raid.SectorSize {
			return n
		}
	}

	return raid.SectorSize
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
