package uring

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// RegisterFiles gives the ring a table of n files, all empty. A registered file costs an operation no reference
// count, and stays open until the operations that use it, and the ring, are gone: that is what keeps a successor of a
// crashed process away from a device until the last write of the dead one has ended.
func (r *Ring) RegisterFiles(n int) error {
	arg := rsrcRegister{Nr: uint32(n), Flags: rsrcRegisterSparse}
	if err := r.register(registerFiles2, unsafe.Pointer(&arg), unsafe.Sizeof(arg)); err != nil {
		return fmt.Errorf("uring: register table of %d files: %w", n, err)
	}
	return nil
}

// UpdateFile puts the open file fd into a slot of the table, which takes its own reference; fd -1 clears the slot.
func (r *Ring) UpdateFile(slot, fd int) error {
	fds := new(int32)
	*fds = int32(fd)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(fds)
	arg := filesUpdate{Offset: uint32(slot), FDs: uint64(uintptr(unsafe.Pointer(fds)))}
	if err := r.register(registerFilesUpdate, unsafe.Pointer(&arg), 1); err != nil {
		return fmt.Errorf("uring: register file %d in slot %d: %w", fd, slot, err)
	}
	return nil
}

// UnregisterFiles drops the table. It returns when the operations that use its files have ended or will end without
// them.
func (r *Ring) UnregisterFiles() error {
	if err := r.register(unregisterFiles, nil, 0); err != nil {
		return fmt.Errorf("uring: unregister files: %w", err)
	}
	return nil
}

// RegisterBuffers pins memory for [SQE.PrepReadFixed] and [SQE.PrepWriteFixed]; a buffer's index is its place in the
// argument. The memory must outlive the ring.
func (r *Ring) RegisterBuffers(buffers [][]byte) error {
	iov := make([]unix.Iovec, len(buffers))
	for i, buf := range buffers {
		iov[i].Base = unsafe.SliceData(buf)
		iov[i].SetLen(len(buf))
	}
	if err := r.register(registerBuffers, unsafe.Pointer(unsafe.SliceData(iov)), uintptr(len(iov))); err != nil {
		return fmt.Errorf("uring: register %d buffers: %w", len(buffers), err)
	}
	return nil
}

// BufferTable is a ring's table of registered buffers that is filled in as they are used, so that no memory is pinned
// earlier.
type BufferTable struct {
	ring   *Ring
	vector unix.Iovec // arguments of Set, here so that it allocates nothing
	update rsrcUpdate
}

// RegisterBufferTable gives the ring a table of n buffers, all empty.
func (r *Ring) RegisterBufferTable(n int) (*BufferTable, error) {
	arg := rsrcRegister{Nr: uint32(n), Flags: rsrcRegisterSparse}
	if err := r.register(registerBuffers2, unsafe.Pointer(&arg), unsafe.Sizeof(arg)); err != nil {
		return nil, fmt.Errorf("uring: register table of %d buffers: %w", n, err)
	}
	return &BufferTable{ring: r}, nil
}

// Set pins memory as the registered buffer number index, which must be empty; nil empties it again. The memory must
// outlive the ring, or be there until then.
func (t *BufferTable) Set(index int, buf []byte) error {
	t.vector.Base = unsafe.SliceData(buf)
	t.vector.SetLen(len(buf))
	t.update = rsrcUpdate{Offset: uint32(index), Data: uint64(uintptr(unsafe.Pointer(&t.vector))), Nr: 1}
	// The answer is how many buffers it took.
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(t.ring.fd), registerBuffersUpdate,
		uintptr(unsafe.Pointer(&t.update)), unsafe.Sizeof(t.update), 0, 0)
	if errno != 0 {
		return fmt.Errorf("uring: register buffer %d of %d bytes: %w", index, len(buf), errno)
	}
	return nil
}

// UnregisterBuffers undoes RegisterBuffers and RegisterBufferTable.
func (r *Ring) UnregisterBuffers() error {
	if err := r.register(unregisterBuffers, nil, 0); err != nil {
		return fmt.Errorf("uring: unregister buffers: %w", err)
	}
	return nil
}

// Workers are limits on the kernel's worker threads for one thread of ours; 0 leaves a limit as it is.
type Workers struct {
	Bounded   uint32 // for regular files and block devices
	Unbounded uint32 // for the rest, commands included
}

// RegisterMaxWorkers sets the limits and returns those that were.
func (r *Ring) RegisterMaxWorkers(w Workers) (Workers, error) {
	limits := [2]uint32{w.Bounded, w.Unbounded}
	if err := r.register(registerIOWQMaxWorkers, unsafe.Pointer(&limits), uintptr(len(limits))); err != nil {
		return Workers{}, fmt.Errorf("uring: limit workers to %d and %d: %w", w.Bounded, w.Unbounded, err)
	}
	return Workers{Bounded: limits[0], Unbounded: limits[1]}, nil
}

func (r *Ring) register(op uintptr, arg unsafe.Pointer, n uintptr) error {
	for {
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), op, uintptr(arg), n, 0, 0)
		switch errno {
		case 0:
			return nil
		case unix.EINTR: // waiting for operations to end was interrupted
		default:
			return errno
		}
	}
}
