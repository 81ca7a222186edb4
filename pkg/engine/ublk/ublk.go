// Package ublk serves a block device through the kernel's ublk driver: control commands, and the queues of requests.
//
// Two processes share the work. The guardian holds the control device ([Controller]) and adds, starts, stops and
// deletes devices; the engine serves requests ([Device], [Queue]) and asks the guardian for control commands over a
// socket ([ServeControl], [Client]). That is not taste: a server that issues STOP_DEV or START_DEV itself can wait in
// the kernel for I/O that only it could complete, and then not even kill -9 ends it.
//
// The order of a life:
//
//	guardian               engine
//	Features, AddDev
//	SetParams
//	                       OpenDevice, and in the thread of each queue: NewQueue, Fetch, and the loop
//	                       Device.Close
//	StartDev(engine's pid)  ... serving already: the kernel reads partition tables before StartDev returns
//	SetQueue
//	StopDev                 ... each queue ends as its tags come back
//	DelDev
//
// and after the engine died, for a device with recovery flags:
//
//	StartUserRecovery       ... EBUSY until the dead engine's last member I/O has ended
//	                       OpenDevice, NewQueue, Fetch, and the loop
//	EndUserRecovery(pid)    ... requests that the dead engine held come again
//
// The package uses copy mode: the kernel copies the data of a request from and to a buffer of the server. It decides
// nothing about arrays and does no I/O on members.
package ublk

import (
	"errors"
	"fmt"
	"math/bits"
	"time"

	"golang.org/x/sys/unix"
)

// DeviceID is the number of a ublk device: the N of /dev/ublkcN and /dev/ublkbN.
type DeviceID int32

// AnyDevice asks AddDev to choose a free number.
const AnyDevice DeviceID = -1

// ServerPath is the device through which the server of device id takes requests.
func (id DeviceID) ServerPath() string { return fmt.Sprintf("/dev/ublkc%d", id) }

// BlockPath is the block device that clients use.
func (id DeviceID) BlockPath() string { return fmt.Sprintf("/dev/ublkb%d", id) }

// Features are the UBLK_F_* bits: what a driver can do, or what a device was added with.
type Features uint64

// The features that the engine knows. Constants keep the names of include/uapi/linux/ublk_cmd.h.
const (
	UserRecovery        Features = 1 << 3  // the device outlives its server
	UserRecoveryReissue Features = 1 << 4  // and requests that the server held are sent to the next one
	CmdIoctlEncode      Features = 1 << 6  // control commands are ioctl-encoded; always on
	UserCopy            Features = 1 << 7  // the server copies request data itself
	UpdateSize          Features = 1 << 10 // a live device can grow; 6.16
	AutoBufReg          Features = 1 << 11 // zero copy; 6.16
	Quiesce             Features = 1 << 12 // a live device can be taken from its server; 6.16
	BatchIO             Features = 1 << 15 // requests are fetched and committed in batches; 7.0
	NoAutoPartScan      Features = 1 << 18 // StartDev reads no partition tables; 7.0
)

// Has reports whether all of want are there.
func (f Features) Has(want Features) bool { return f&want == want }

// DeviceState is what the driver says of a device's server.
type DeviceState uint16

// The states, UBLK_S_DEV_*.
const (
	Dead     DeviceState = 0 // added and not started, or stopped
	Live     DeviceState = 1
	Quiesced DeviceState = 2 // the server is gone, requests wait for the next one
	FailIO   DeviceState = 3 // the server is gone, requests fail
)

func (s DeviceState) String() string {
	switch s {
	case Dead:
		return "dead"
	case Live:
		return "live"
	case Quiesced:
		return "quiesced"
	case FailIO:
		return "fail-io"
	}
	return fmt.Sprintf("state %d", uint16(s))
}

// DevInfo describes a device. AddDev takes a wish and returns what was granted: the driver clears features that it
// does not know without a word, limits the queues to the number of CPUs and rounds MaxIO to pages.
type DevInfo struct {
	ID          DeviceID    `json:"id"`
	Queues      int         `json:"queues"`
	Depth       int         `json:"depth"`        // requests in flight per queue, at most 4096
	MaxIO       int         `json:"max_io"`       // bytes of the largest request; a buffer of it is kept per tag
	Features    Features    `json:"features"`     // UBLK_F_*
	ServerFlags uint64      `json:"server_flags"` // kept by the driver for the server, which may use them as it likes
	State       DeviceState `json:"state"`        // from the driver only
	PID         int         `json:"pid"`          // of the server; from the driver only
}

func (i DevInfo) encode() (devInfo, error) {
	switch {
	case i.Queues < 1 || i.Queues > maxDepth:
		return devInfo{}, fmt.Errorf("%d queues, want 1 to %d: %w", i.Queues, maxDepth, unix.EINVAL)
	case i.Depth < 1 || i.Depth > maxDepth:
		return devInfo{}, fmt.Errorf("queue depth %d, want 1 to %d: %w", i.Depth, maxDepth, unix.EINVAL)
	case i.MaxIO < 4096 || i.MaxIO > 32<<20:
		return devInfo{}, fmt.Errorf("largest request of %d bytes, want 4096 to %d: %w", i.MaxIO, 32<<20, unix.EINVAL)
	}
	return devInfo{
		Queues: uint16(i.Queues), Depth: uint16(i.Depth), MaxIO: uint32(i.MaxIO), DevID: uint32(i.ID),
		Flags: uint64(i.Features | CmdIoctlEncode), ServerFlags: i.ServerFlags,
	}, nil
}

func (d *devInfo) decode() DevInfo {
	return DevInfo{
		ID: DeviceID(d.DevID), Queues: int(d.Queues), Depth: int(d.Depth), MaxIO: int(d.MaxIO),
		Features: Features(d.Flags), ServerFlags: d.ServerFlags, State: DeviceState(d.State), PID: int(d.PID),
	}
}

// Params are what clients see of the device. A write cache and FUA are always announced: without them the driver
// sends neither FLUSH nor FUA, and members with volatile caches lose acknowledged data.
type Params struct {
	Sectors       uint64 `json:"sectors"`                 // capacity
	LogicalBlock  int    `json:"logical_block"`           // bytes, a power of two from 512 to a page
	PhysicalBlock int    `json:"physical_block"`          // bytes, likewise
	MinimumIO     int    `json:"minimum_io"`              // bytes, a power of two: the chunk
	OptimalIO     int    `json:"optimal_io"`              // bytes, a power of two: the stripe, or what comes close
	MaxSectors    uint32 `json:"max_sectors"`             // of one request, at least 8 and at most MaxIO
	ChunkSectors  uint32 `json:"chunk_sectors,omitempty"` // requests do not cross multiples of this; 0: no limit
	ReadOnly      bool   `json:"read_only,omitempty"`
	Rotational    bool   `json:"rotational,omitempty"`

	Discard *DiscardParams `json:"discard,omitempty"` // nil: clients cannot discard
}

// DiscardParams announce DISCARD and WRITE_ZEROES.
type DiscardParams struct {
	Alignment             uint32 `json:"alignment,omitempty"` // bytes
	Granularity           uint32 `json:"granularity"`         // bytes, not 0
	MaxSectors            uint32 `json:"max_sectors"`
	MaxWriteZeroesSectors uint32 `json:"max_write_zeroes_sectors,omitempty"` // 0: no WRITE_ZEROES
}

func (p Params) encode() (paramsABI, error) {
	raw := paramsABI{
		Len: paramsLen, Types: paramBasic, Attrs: attrVolatileCache | attrFUA,
		MaxSectors: p.MaxSectors, ChunkSectors: p.ChunkSectors, Sectors: p.Sectors,
	}
	if p.ReadOnly {
		raw.Attrs |= attrReadOnly
	}
	if p.Rotational {
		raw.Attrs |= attrRotational
	}
	for _, s := range []struct {
		name  string
		size  int
		shift *uint8
	}{
		{"logical block", p.LogicalBlock, &raw.LogicalShift},
		{"physical block", p.PhysicalBlock, &raw.PhysicalShift},
		{"minimum I/O", p.MinimumIO, &raw.MinimumShift},
		{"optimal I/O", p.OptimalIO, &raw.OptimalShift},
	} {
		if s.size < 1<<sectorShift || s.size&(s.size-1) != 0 {
			return paramsABI{}, fmt.Errorf("%s of %d bytes, want a power of two from 512: %w",
				s.name, s.size, unix.EINVAL)
		}
		*s.shift = uint8(bits.TrailingZeros(uint(s.size)))
	}
	if d := p.Discard; d != nil {
		if d.Granularity == 0 {
			return paramsABI{}, fmt.Errorf("discard granularity 0: %w", unix.EINVAL)
		}
		raw.Types |= paramDiscard
		raw.DiscardAlignment = d.Alignment
		raw.DiscardGranularity = d.Granularity
		raw.MaxDiscardSectors = d.MaxSectors
		raw.MaxWriteZeroesSectors = d.MaxWriteZeroesSectors
		raw.MaxDiscardSegments = 1
	}
	return raw, nil
}

// QueueAttributes are set through /sys/block/ublkbN/queue once the device has started.
type QueueAttributes struct {
	// Scheduler is "none" for an array: its members have schedulers of their own.
	Scheduler string `json:"scheduler"`
	// IOTimeout bounds how long a recovery can wait up to 6.14: a server that is killed while it holds every tag of
	// a queue is noticed by the block layer's timeout only. The timeout kills no I/O, so it can be as short as 1 s.
	IOTimeout time.Duration `json:"io_timeout"`
	// StableWrites keeps file systems from changing a page that is being written. In copy mode the kernel has taken
	// its copy before the server sees the request, so nothing here needs it; parity without a copy would.
	StableWrites bool `json:"stable_writes,omitempty"`
}

// ErrPending is wrapped when the wait for a control command ended before the command: it goes on in the kernel, and
// may still take effect.
var ErrPending = errors.New("command is still pending")
