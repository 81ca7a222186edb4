package uring

import "unsafe"

// File names what an operation works on: a descriptor, or a slot of the ring's table of registered files.
type File struct {
	fd    int32
	flags uint8
}

// FD is a plain file descriptor.
func FD(fd int) File { return File{fd: int32(fd)} }

// Slot is a slot of the table that [Ring.RegisterFiles] made.
func Slot(slot int) File { return File{fd: int32(slot), flags: FlagFixedFile} }

// The Prep methods fill in a fresh entry. UserData is the caller's to set. The kernel uses the buffers until the
// operation has ended and the collector does not know it: they must be memory of an [Arena], never of a goroutine's
// stack.

// PrepNop prepares an operation that does nothing.
func (s *SQE) PrepNop() { s.Opcode = opNop }

// PrepRead prepares pread(2) into buf.
func (s *SQE) PrepRead(f File, buf []byte, off uint64) { s.prepRW(opRead, f, buf, off) }

// PrepWrite prepares pwritev2(2) of buf; flags are unix.RWF_*, such as RWF_DSYNC.
func (s *SQE) PrepWrite(f File, buf []byte, off uint64, flags uint32) {
	s.prepRW(opWrite, f, buf, off)
	s.OpFlags = flags
}

// PrepReadFixed is [SQE.PrepRead] into a part of the registered buffer number index.
func (s *SQE) PrepReadFixed(f File, buf []byte, off uint64, index uint16) {
	s.prepRW(opReadFixed, f, buf, off)
	s.BufIndex = index
}

// PrepWriteFixed is [SQE.PrepWrite] from a part of the registered buffer number index; s.OpFlags takes the flags.
func (s *SQE) PrepWriteFixed(f File, buf []byte, off uint64, index uint16) {
	s.prepRW(opWriteFixed, f, buf, off)
	s.BufIndex = index
}

// PrepFsync prepares fdatasync(2). On a block device that is a flush of its write cache.
func (s *SQE) PrepFsync(f File) {
	s.prep(opFsync, f)
	s.OpFlags = fsyncDatasync
}

// PrepFallocate prepares fallocate(2) of n bytes; mode is of unix.FALLOC_FL_*. On a block device it discards or zeroes.
func (s *SQE) PrepFallocate(f File, mode uint32, off, n uint64) {
	s.prep(opFallocate, f)
	s.Off = off
	s.Addr = n
	s.Len = mode
}

// PrepPollAdd prepares a wait, once, for events such as unix.POLLIN.
func (s *SQE) PrepPollAdd(f File, events uint32) {
	s.prep(opPollAdd, f)
	s.OpFlags = events
}

// PrepTimeout prepares a completion with -ETIME when ts has passed; flags are 0 or TimeoutAbsolute. The kernel reads
// ts when the entry is submitted, not later.
func (s *SQE) PrepTimeout(ts *Timespec, flags uint32) {
	s.prep(opTimeout, FD(-1))
	s.Addr = uint64(uintptr(unsafe.Pointer(ts)))
	s.Len = 1
	s.OpFlags = flags
}

// PrepCancel prepares the cancellation of the operation that was submitted with userData. Its own result is 0,
// -ENOENT, or -EALREADY if the operation can no longer be stopped; the cancelled one ends with -ECANCELED or -EINTR.
func (s *SQE) PrepCancel(userData uint64) {
	s.prep(opAsyncCancel, FD(-1))
	s.Addr = userData
}

// PrepMessage prepares a completion {userData, res} in another ring, which may belong to another thread.
func (s *SQE) PrepMessage(to *Ring, userData uint64, res uint32) {
	s.prep(opMsgRing, FD(to.fd))
	s.Off = userData
	s.Len = res
}

// PrepCommand prepares the command op of f's driver (IORING_OP_URING_CMD). Its payload goes into [Ring.Payload].
func (s *SQE) PrepCommand(f File, op uint32) {
	s.prep(opURingCmd, f)
	s.Off = uint64(op)
}

// Payload is the room for the payload of a command in an entry of this ring: 16 bytes, or 80 with SQE128.
func (r *Ring) Payload(s *SQE) []byte {
	return unsafe.Slice(&s.cmd[0], 1<<r.sq.shift-unsafe.Offsetof(s.cmd))
}

func (s *SQE) prep(opcode uint8, f File) {
	s.Opcode = opcode
	s.FD = f.fd
	s.Flags |= f.flags
}

func (s *SQE) prepRW(opcode uint8, f File, buf []byte, off uint64) {
	s.prep(opcode, f)
	s.Addr = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(buf))))
	s.Len = uint32(len(buf))
	s.Off = off
}
