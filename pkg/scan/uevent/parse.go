package uevent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// The header that udevd puts before the pairs: struct
// monitor_netlink_header of libsystemd/sd-device/device-monitor.c. Its text
// and this layout are shared by every libudev in use.
//
//	 0  prefix "libudev\0"
//	 8  magic, big endian
//	12  size of the header, in the host's byte order like what follows
//	16  offset of the pairs
//	20  length of the pairs
//	24  hashes for socket filters, big endian; not read here
const (
	udevPrefix     = "libudev\x00"
	udevMagic      = 0xfeedcafe
	udevHeaderSize = 40

	udevMagicAt  = 8
	udevOffsetAt = 16
	udevLengthAt = 20
)

// ErrMalformed is wrapped by the errors of the parsers.
var ErrMalformed = errors.New("malformed uevent")

// ParseKernel parses msg in the form in which the kernel sends it: a header
// "ACTION@DEVPATH", then KEY=VALUE pairs, each ended by a NUL. Only the first
// @ ends the action, since the name of a bus on a device tree board has one
// too (soc@0).
//
// Returns an error wrapping [ErrMalformed] if msg is anything else.
func ParseKernel(msg []byte) (Event, error) {
	header, pairs, ok := strings.Cut(string(msg), "\x00")
	if !ok {
		return Event{}, fmt.Errorf("uevent: header of %d bytes has no end: %w", len(msg), ErrMalformed)
	}

	action, path, ok := strings.Cut(header, "@")
	if !ok {
		return Event{}, fmt.Errorf("uevent: header %q has no @: %w", header, ErrMalformed)
	}

	ev, err := parsePairs(pairs)
	if err != nil {
		return Event{}, err
	}

	// The header repeats two of the pairs; a message that disagrees with
	// itself is not one.
	if ev.Action != action || ev.Path != path {
		return Event{}, fmt.Errorf("uevent: header %q contradicts %s@%s: %w", header, ev.Action, ev.Path, ErrMalformed)
	}

	return ev, nil
}

// ParseUdev parses msg in the form in which udevd sends it to its listeners:
// a binary header, then KEY=VALUE pairs, each ended by a NUL.
//
// Returns an error wrapping [ErrMalformed] if msg is anything else.
func ParseUdev(msg []byte) (Event, error) {
	if len(msg) < udevHeaderSize || !bytes.HasPrefix(msg, []byte(udevPrefix)) {
		return Event{}, fmt.Errorf("uevent: %d bytes without the header of libudev: %w", len(msg), ErrMalformed)
	}

	if magic := binary.BigEndian.Uint32(msg[udevMagicAt:]); magic != udevMagic {
		return Event{}, fmt.Errorf("uevent: magic %#x, want %#x: %w", magic, uint32(udevMagic), ErrMalformed)
	}

	// In 64 bits the sum cannot wrap.
	offset := uint64(binary.NativeEndian.Uint32(msg[udevOffsetAt:]))
	length := uint64(binary.NativeEndian.Uint32(msg[udevLengthAt:]))

	if offset < udevHeaderSize || offset+length > uint64(len(msg)) {
		return Event{}, fmt.Errorf("uevent: %d bytes of pairs at %d in a message of %d: %w",
			length, offset, len(msg), ErrMalformed)
	}

	return parsePairs(string(msg[offset : offset+length]))
}

// parsePairs reads NUL-terminated KEY=VALUE pairs. A value may contain any
// number of = signs: labels of filesystems and partitions come from outside.
// Where a key is repeated the first wins, because the kernel's own pairs come
// before those that a device had a say in.
func parsePairs(pairs string) (Event, error) {
	env := make(map[string]string)

	for pairs != "" {
		pair, rest, ok := strings.Cut(pairs, "\x00")
		if !ok {
			return Event{}, fmt.Errorf("uevent: %q has no end: %w", pair, ErrMalformed)
		}

		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return Event{}, fmt.Errorf("uevent: %q is not KEY=VALUE: %w", pair, ErrMalformed)
		}

		if _, repeated := env[key]; !repeated {
			env[key] = value
		}

		pairs = rest
	}

	return fromEnv(env)
}

// fromEnv makes an Event of its pairs.
func fromEnv(env map[string]string) (Event, error) {
	ev := Event{
		Action:    env["ACTION"],
		Path:      env["DEVPATH"],
		Subsystem: env["SUBSYSTEM"],
		Name:      strings.TrimPrefix(env["DEVNAME"], "/dev/"),
		Env:       env,
	}

	if ev.Action == "" {
		return Event{}, fmt.Errorf("uevent: no ACTION: %w", ErrMalformed)
	}

	if !strings.HasPrefix(ev.Path, "/") {
		return Event{}, fmt.Errorf("uevent: DEVPATH %q is not absolute: %w", ev.Path, ErrMalformed)
	}

	return ev, nil
}
