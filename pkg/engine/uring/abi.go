package uring

import (
	"structs"
	"unsafe"
)

// Setup flags of io_uring_setup(2), include/uapi/linux/io_uring.h.
const (
	setupCQSize       = 1 << 3
	setupSubmitAll    = 1 << 7
	setupCoopTaskrun  = 1 << 8
	setupSQE128       = 1 << 10
	setupSingleIssuer = 1 << 12
	setupDeferTaskrun = 1 << 13
)

// Offsets of the three mappings of a ring.
const (
	offSQRing = 0
	offCQRing = 0x8000000
	offSQEs   = 0x10000000
)

// Flags that the kernel raises in the submission ring.
const sqCQOverflow = 1 << 1

const enterGetEvents = 1 << 0

// Operations of io_uring_register(2).
const (
	registerBuffers        = 0
	unregisterBuffers      = 1
	unregisterFiles        = 3
	registerFilesUpdate    = 6
	registerFiles2         = 13
	registerBuffers2       = 15
	registerBuffersUpdate  = 16
	registerIOWQMaxWorkers = 19

	rsrcRegisterSparse = 1 << 0
)

// Opcodes of a submission entry.
const (
	opNop         = 0
	opFsync       = 3
	opReadFixed   = 4
	opWriteFixed  = 5
	opPollAdd     = 6
	opTimeout     = 11
	opAsyncCancel = 14
	opFallocate   = 17
	opRead        = 22
	opWrite       = 23
	opMsgRing     = 40
	opURingCmd    = 46
)

// Flags of a submission entry, for [SQE].Flags.
const (
	FlagFixedFile   = 1 << 0 // set by the Prep methods when the [File] is a slot
	FlagDrain       = 1 << 1 // start after everything before it has ended
	FlagLink        = 1 << 2 // the next entry starts when this one has succeeded
	FlagHardlink    = 1 << 3 // the next entry starts when this one has ended
	FlagAsync       = 1 << 4 // go to a kernel worker at once
	FlagSkipSuccess = 1 << 6 // post no completion on success
)

// TimeoutAbsolute makes [SQE.PrepTimeout] take a point of CLOCK_MONOTONIC, not a duration.
const TimeoutAbsolute = 1 << 0

const fsyncDatasync = 1 << 0

// SQE is struct io_uring_sqe of include/uapi/linux/io_uring.h: one operation to be started. Union members carry
// the name of their most common use. An entry belongs to its ring and must not be touched after it was submitted.
type SQE struct {
	_           structs.HostLayout
	Opcode      uint8
	Flags       uint8
	IOPrio      uint16
	FD          int32
	Off         uint64
	Addr        uint64
	Len         uint32
	OpFlags     uint32
	UserData    uint64
	BufIndex    uint16
	Personality uint16
	FileIndex   uint32
	cmd         [16]byte
}

// CQE is struct io_uring_cqe of include/uapi/linux/io_uring.h: one operation that has ended. Res is what the system
// call of the same name would return, a negative errno included.
type CQE struct {
	_        structs.HostLayout
	UserData uint64
	Res      int32
	Flags    uint32
}

// Timespec is struct __kernel_timespec of include/uapi/linux/time_types.h. See [Arena.Timespec].
type Timespec struct {
	_    structs.HostLayout
	Sec  int64
	Nsec int64
}

// sqOffsets is struct io_sqring_offsets: where the fields of the submission ring are in its mapping.
type sqOffsets struct {
	_       structs.HostLayout
	Head    uint32
	Tail    uint32
	Mask    uint32
	Entries uint32
	Flags   uint32
	Dropped uint32
	Array   uint32
	_       uint32
	_       uint64
}

// cqOffsets is struct io_cqring_offsets.
type cqOffsets struct {
	_        structs.HostLayout
	Head     uint32
	Tail     uint32
	Mask     uint32
	Entries  uint32
	Overflow uint32
	CQEs     uint32
	Flags    uint32
	_        uint32
	_        uint64
}

// params is struct io_uring_params.
type params struct {
	_            structs.HostLayout
	SQEntries    uint32
	CQEntries    uint32
	Flags        uint32
	SQThreadCPU  uint32
	SQThreadIdle uint32
	Features     uint32
	WQFD         uint32
	_            [3]uint32
	SQ           sqOffsets
	CQ           cqOffsets
}

// rsrcRegister is struct io_uring_rsrc_register.
type rsrcRegister struct {
	_     structs.HostLayout
	Nr    uint32
	Flags uint32
	_     uint64
	Data  uint64
	Tags  uint64
}

// filesUpdate is struct io_uring_files_update.
type filesUpdate struct {
	_      structs.HostLayout
	Offset uint32
	_      uint32
	FDs    uint64
}

// rsrcUpdate is struct io_uring_rsrc_update2.
type rsrcUpdate struct {
	_      structs.HostLayout
	Offset uint32
	_      uint32
	Data   uint64
	Tags   uint64
	Nr     uint32
	_      uint32
}

// A wrong size does not compile.
var (
	_ [64]byte  = [unsafe.Sizeof(SQE{})]byte{}
	_ [16]byte  = [unsafe.Sizeof(CQE{})]byte{}
	_ [16]byte  = [unsafe.Sizeof(Timespec{})]byte{}
	_ [40]byte  = [unsafe.Sizeof(sqOffsets{})]byte{}
	_ [40]byte  = [unsafe.Sizeof(cqOffsets{})]byte{}
	_ [120]byte = [unsafe.Sizeof(params{})]byte{}
	_ [32]byte  = [unsafe.Sizeof(rsrcRegister{})]byte{}
	_ [32]byte  = [unsafe.Sizeof(rsrcUpdate{})]byte{}
	_ [16]byte  = [unsafe.Sizeof(filesUpdate{})]byte{}
)
