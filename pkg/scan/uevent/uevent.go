// Package uevent tells of devices as they come and go.
//
// [Listen] hears what udevd (or the kernel) announces, [Coldplug] walks what
// is there already, and both yield the same [Event]. Subscribe first, then
// walk, and nothing falls between the two.
//
// A uevent is a hint that something changed, never the truth of what it is
// now: events are dropped when a socket buffer fills and are old by the time
// they are read. Callers look at sysfs again on each one, and at all of it on
// [ActionRescan]. This package opens no device.
//
// The socket is go-udev's; its reading loop and its parser are not used,
// because a storage daemon cannot live with what they do:
//
//   - a value with a second = loses the whole event, and so one odd label
//     hides a disk; so does a path with @;
//   - a message without a NUL panics;
//   - one overrun of the receive buffer ends the loop for ever, and the
//     default buffer holds less than one shelf of disks;
//   - anyone with CAP_NET_ADMIN can speak in udevd's name;
//   - the socket leaks into children, and an idle loop cannot be stopped.
//
// Tests in this package hold each of these against the version in use.
package uevent

// ActionRescan is the action of an [Event] that no device sent: events were
// lost, so whatever is known of the devices may be out of date.
const ActionRescan = "rescan"

// Event is one uevent.
type Event struct {
	Action    string            // "add", "change", "remove", ..., or ActionRescan
	Path      string            // below /sys, with a leading slash
	Subsystem string            // "block", ...
	Name      string            // of the node below /dev, or empty
	Env       map[string]string // all KEY=VALUE pairs, ACTION and DEVPATH among them
}

// Rescan reports whether events were lost and all devices must be looked at.
func (e Event) Rescan() bool { return e.Action == ActionRescan }

// Stats counts what a [Listener] has met since it began.
type Stats struct {
	Delivered uint64 // events handed over, rescans included
	Filtered  uint64 // events of another subsystem
	Malformed uint64 // messages of a trusted sender that could not be parsed
	Untrusted uint64 // messages of a sender that is neither the kernel nor udevd
	Overruns  uint64 // times that the kernel, or too long a message, lost events

	BufferBytes int  // size of the receive buffer that the kernel granted
	BufferShort bool // it is less than was asked for
}
