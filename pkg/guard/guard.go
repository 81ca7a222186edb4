// Package guard has the kernel refuse writes to members of arrays by anyone but the engine.
//
// Members are claimed, so that mounts, md and whoever else asks for a device for himself do
// not get one. A plain write by root is not refused by that. The guard is a program of the
// kernel's (BPF LSM) that is asked whenever something is opened. It stays in place whatever
// ends, until it is turned off or the machine is, and does not know one engine from the next.
package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// Pin is there while the guard is; another file of the name is another guard.
const Pin = dir + "/link"

// Where the guard is kept, and what is there.
const (
	dir         = "/sys/fs/bpf/raid-assembler"
	nextPin     = dir + "/next" // no dots in names there
	devicesPin  = dir + "/devices"
	refusedPin  = dir + "/refused"
	devicesMax  = 4096
	refusedSize = 16 << 10 // in bytes: how much is told before somebody reads it
)

// Supported says why the kernel cannot have a guard; nil if it can.
func Supported() error {
	text, err := os.ReadFile("/sys/kernel/security/lsm")
	if err != nil {
		return fmt.Errorf("guard: which security modules the kernel has: %w", err)
	}

	if Allowed(string(text)) {
		return nil
	}

	return errors.New("guard: the kernel was started without the security module bpf: see lsm= of its command line")
}

// Allowed reports whether a kernel can have a guard that has these security modules, as
// /sys/kernel/security/lsm lists them.
func Allowed(modules string) bool {
	return slices.Contains(strings.Split(strings.TrimSpace(modules), ","), "bpf")
}

// On puts the guard in place. It guards nothing yet, or what the one before did.
func On() (err error) {
	if err := Supported(); err != nil {
		return err
	}

	types, err := btf.LoadKernelSpec()
	if err != nil {
		return fmt.Errorf("guard: the kernel's types: %w", err)
	}

	at, err := findOffsets(types)
	if err != nil {
		return err
	}

	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("guard: %w", err)
	}

	devices, err := pinned(devicesPin, &ebpf.MapSpec{
		Name: "raid_devices", Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: devicesMax,
	})
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, devices.Close()) }()

	refused, err := pinned(refusedPin, &ebpf.MapSpec{Name: "raid_refused", Type: ebpf.RingBuf, MaxEntries: refusedSize})
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, refused.Close()) }()

	prog, err := ebpf.NewProgram(program(at, devices, refused))
	if err != nil {
		return fmt.Errorf("guard: the kernel does not take the program: %w", err)
	}

	defer func() { err = errors.Join(err, prog.Close()) }()

	l, err := link.AttachLSM(link.LSMOptions{Program: prog})
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}

	defer func() { err = errors.Join(err, l.Close()) }()

	// The one before goes when this one has its place.
	_ = os.Remove(nextPin)

	if err := l.Pin(nextPin); err != nil {
		return fmt.Errorf("guard: %w", err)
	}

	return os.Rename(nextPin, Pin)
}

// pinned returns the map that is kept at path, which it makes if there is none.
func pinned(path string, spec *ebpf.MapSpec) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err == nil && spec.Compatible(m) == nil {
		return m, nil
	}

	_ = m.Close() // of another version
	_ = os.Remove(path)

	if m, err = ebpf.NewMap(spec); err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}

	if err := m.Pin(path); err != nil {
		return nil, errors.Join(fmt.Errorf("guard: %w", err), m.Close())
	}

	return m, nil
}

// Off removes the guard, if there is one.
func Off() error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("guard: %w", err)
	}

	return nil
}

// Guard is the guard that is in place.
type Guard struct {
	devices *ebpf.Map
	refused *ringbuf.Reader
}

// Open returns the guard. Returns an error wrapping [fs.ErrNotExist] if there is none.
func Open() (*Guard, error) {
	if _, err := os.Stat(Pin); err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}

	devices, err := ebpf.LoadPinnedMap(devicesPin, nil)
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}

	refused, err := ebpf.LoadPinnedMap(refusedPin, nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("guard: %w", err), devices.Close())
	}

	defer func() { _ = refused.Close() }() // the reader has its own

	reader, err := ringbuf.NewReader(refused)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("guard: %w", err), devices.Close())
	}

	return &Guard{devices: devices, refused: reader}, nil
}

// Close lets go of the guard, which stays in place.
func (g *Guard) Close() error { return errors.Join(g.devices.Close(), g.refused.Close()) }

// Protect has the guard protect these devices, by their paths, and no others. One that is
// not there is left out.
func (g *Guard) Protect(paths []string) error {
	wanted := make(map[uint32]bool)

	for _, path := range paths {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK {
			wanted[number(st.Rdev)] = true
		}
	}

	var (
		errs  []error
		key   uint32
		count uint64
		stale []uint32
	)

	for all := g.devices.Iterate(); all.Next(&key, &count); {
		if !wanted[key] {
			stale = append(stale, key)
		}

		delete(wanted, key)
	}

	for _, key := range stale {
		errs = append(errs, g.devices.Delete(key))
	}

	for key := range wanted {
		errs = append(errs, g.devices.Put(key, uint64(0)))
	}

	return errors.Join(errs...)
}

// number is a device as the kernel has it.
func number(device uint64) uint32 { return unix.Major(device)<<20 | unix.Minor(device) }

// Refusal is a write that was refused: that a process was to open a device for it.
type Refusal struct {
	Process int
	Command string // the first 15 bytes of its name
	Device  string // its path
}

// Next waits for the next refusal. Returns an error wrapping [os.ErrClosed] once g is closed.
func (g *Guard) Next() (Refusal, error) {
	record, err := g.refused.Read()
	if err != nil {
		return Refusal{}, fmt.Errorf("guard: %w", err)
	}

	return parse(record.RawSample)
}

// parse reads what the program wrote.
func parse(b []byte) (Refusal, error) {
	if len(b) < recordSize {
		return Refusal{}, fmt.Errorf("guard: a record of %d bytes", len(b))
	}

	device := binary.NativeEndian.Uint32(b[recordDev:])
	r := Refusal{
		Process: int(binary.NativeEndian.Uint64(b) >> 32),
		Command: strings.TrimRight(string(b[recordComm:recordSize]), "\x00"),
		Device:  fmt.Sprintf("%d:%d", device>>20, device&(1<<20-1)),
	}

	// A name is nicer.
	if name, err := os.Readlink("/sys/dev/block/" + r.Device); err == nil {
		r.Device = "/dev/" + filepath.Base(name)
	}

	return r, nil
}
