package ublk

import (
	"structs"
	"unsafe"
)

// ctrlPath is the control device. Opening it does not load the driver: the module has no alias for it.
const ctrlPath = "/dev/ublk-control"

// Control commands, ioctl-encoded (UBLK_U_CMD_* of include/uapi/linux/ublk_cmd.h). The older plain numbers are a
// build option of the kernel.
const (
	cmdGetDevInfo        = 0x80207502
	cmdAddDev            = 0xc0207504
	cmdDelDev            = 0xc0207505
	cmdStartDev          = 0xc0207506
	cmdStopDev           = 0xc0207507
	cmdSetParams         = 0xc0207508
	cmdStartUserRecovery = 0xc0207510
	cmdEndUserRecovery   = 0xc0207511
	cmdGetFeatures       = 0x80207513
	cmdDelDevAsync       = 0x80207514
)

// I/O commands (UBLK_U_IO_*).
const (
	ioFetchReq          = 0xc0107520
	ioCommitAndFetchReq = 0xc0107521
)

// What an I/O command ends with (UBLK_IO_RES_*): a request to serve, or the end of the device.
const (
	resOK    = 0
	resAbort = -19 // -ENODEV
)

// maxDepth is UBLK_MAX_QUEUE_DEPTH. The descriptors of a queue are mapped at a distance that has room for this many,
// whatever the depth.
const maxDepth = 4096

const sectorShift = 9

// Bits of op_flags in an ioDesc, above the operation in its low byte.
const (
	flagFUA     = 1 << 13
	flagNoUnmap = 1 << 15
)

// noQueue is the queue_id of a command that is not about a queue.
const noQueue = 0xffff

// Bits of struct ublk_params.types and of struct ublk_param_basic.attrs.
const (
	paramBasic   = 1 << 0
	paramDiscard = 1 << 1

	attrReadOnly      = 1 << 0
	attrRotational    = 1 << 1
	attrVolatileCache = 1 << 2
	attrFUA           = 1 << 3
)

// ctrlCmd is struct ublksrv_ctrl_cmd of include/uapi/linux/ublk_cmd.h: the payload of a control command.
type ctrlCmd struct {
	_          structs.HostLayout
	DevID      uint32
	QueueID    uint16
	Len        uint16
	Addr       uint64
	Data       uint64
	DevPathLen uint16
	_          uint16
	_          uint32
}

// devInfo is struct ublksrv_ctrl_dev_info of include/uapi/linux/ublk_cmd.h.
type devInfo struct {
	_           structs.HostLayout
	Queues      uint16
	Depth       uint16
	State       uint16
	_           uint16
	MaxIO       uint32
	DevID       uint32
	PID         int32
	_           uint32
	Flags       uint64
	ServerFlags uint64
	UID         uint32
	GID         uint32
	_           [2]uint64
}

// ioCmd is struct ublksrv_io_cmd of include/uapi/linux/ublk_cmd.h: the payload of an I/O command.
type ioCmd struct {
	_      structs.HostLayout
	Queue  uint16
	Tag    uint16
	Result int32
	Addr   uint64
}

// ioDesc is struct ublksrv_io_desc of include/uapi/linux/ublk_cmd.h. The kernel writes it and the server only reads
// it.
type ioDesc struct {
	_           structs.HostLayout
	OpFlags     uint32
	Sectors     uint32
	StartSector uint64
	Addr        uint64
}

// paramsABI is the part of struct ublk_params (include/uapi/linux/ublk_cmd.h) that every kernel since 6.0 has, and
// all that we set: struct ublk_param_basic and struct ublk_param_discard.
type paramsABI struct {
	_     structs.HostLayout
	Len   uint32
	Types uint32

	Attrs           uint32
	LogicalShift    uint8
	PhysicalShift   uint8
	OptimalShift    uint8
	MinimumShift    uint8
	MaxSectors      uint32
	ChunkSectors    uint32
	Sectors         uint64
	VirtualBoundary uint64

	DiscardAlignment      uint32
	DiscardGranularity    uint32
	MaxDiscardSectors     uint32
	MaxWriteZeroesSectors uint32
	MaxDiscardSegments    uint16
	_                     uint16
}

// paramsLen is where struct ublk_param_discard ends; the Go struct is padded beyond it.
const paramsLen = 60

// A wrong size does not compile.
var (
	_ [32]byte = [unsafe.Sizeof(ctrlCmd{})]byte{}
	_ [64]byte = [unsafe.Sizeof(devInfo{})]byte{}
	_ [16]byte = [unsafe.Sizeof(ioCmd{})]byte{}
	_ [24]byte = [unsafe.Sizeof(ioDesc{})]byte{}
	_ [64]byte = [unsafe.Sizeof(paramsABI{})]byte{}
)
