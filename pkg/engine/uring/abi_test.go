package uring

import (
	"testing"
	"unsafe"
)

// The offsets are those of include/uapi/linux/io_uring.h, printed by a C program with offsetof.
func TestLayouts(t *testing.T) {
	var (
		s SQE
		c CQE
		p params
		r rsrcRegister
		f filesUpdate
	)
	for _, tc := range []struct {
		name      string
		got, want uintptr
	}{
		{"sqe.flags", unsafe.Offsetof(s.Flags), 1},
		{"sqe.ioprio", unsafe.Offsetof(s.IOPrio), 2},
		{"sqe.fd", unsafe.Offsetof(s.FD), 4},
		{"sqe.off", unsafe.Offsetof(s.Off), 8},
		{"sqe.addr", unsafe.Offsetof(s.Addr), 16},
		{"sqe.len", unsafe.Offsetof(s.Len), 24},
		{"sqe.rw_flags", unsafe.Offsetof(s.OpFlags), 28},
		{"sqe.user_data", unsafe.Offsetof(s.UserData), 32},
		{"sqe.buf_index", unsafe.Offsetof(s.BufIndex), 40},
		{"sqe.personality", unsafe.Offsetof(s.Personality), 42},
		{"sqe.file_index", unsafe.Offsetof(s.FileIndex), 44},
		{"sqe.cmd", unsafe.Offsetof(s.cmd), 48},
		{"cqe.res", unsafe.Offsetof(c.Res), 8},
		{"cqe.flags", unsafe.Offsetof(c.Flags), 12},
		{"params.flags", unsafe.Offsetof(p.Flags), 8},
		{"params.features", unsafe.Offsetof(p.Features), 20},
		{"params.sq_off", unsafe.Offsetof(p.SQ), 40},
		{"params.cq_off", unsafe.Offsetof(p.CQ), 80},
		{"sq_off.array", unsafe.Offsetof(p.SQ.Array), 24},
		{"cq_off.cqes", unsafe.Offsetof(p.CQ.CQEs), 20},
		{"rsrc_register.data", unsafe.Offsetof(r.Data), 16},
		{"files_update.fds", unsafe.Offsetof(f.FDs), 8},
	} {
		if tc.got != tc.want {
			t.Errorf("%s is at %d, want %d", tc.name, tc.got, tc.want)
		}
	}
}

func TestPrep(t *testing.T) {
	buf := make([]byte, 4096)
	addr := uint64(uintptr(unsafe.Pointer(&buf[0])))
	ts := &Timespec{}
	for _, tc := range []struct {
		name string
		prep func(*SQE)
		want SQE
	}{
		{"nop", (*SQE).PrepNop, SQE{}},
		{
			"read", func(s *SQE) { s.PrepRead(FD(7), buf, 512) },
			SQE{Opcode: 22, FD: 7, Off: 512, Addr: addr, Len: 4096},
		},
		{
			"durable write to a slot", func(s *SQE) { s.PrepWrite(Slot(3), buf[:512], 1024, 2) },
			SQE{Opcode: 23, Flags: 1, FD: 3, Off: 1024, Addr: addr, Len: 512, OpFlags: 2},
		},
		{
			"fixed read", func(s *SQE) { s.PrepReadFixed(Slot(1), buf, 0, 9) },
			SQE{Opcode: 4, Flags: 1, FD: 1, Addr: addr, Len: 4096, BufIndex: 9},
		},
		{
			"fixed write", func(s *SQE) { s.PrepWriteFixed(FD(1), buf, 8, 9) },
			SQE{Opcode: 5, FD: 1, Off: 8, Addr: addr, Len: 4096, BufIndex: 9},
		},
		{"fsync", func(s *SQE) { s.PrepFsync(Slot(2)) }, SQE{Opcode: 3, Flags: 1, FD: 2, OpFlags: 1}},
		{"poll", func(s *SQE) { s.PrepPollAdd(FD(4), 1) }, SQE{Opcode: 6, FD: 4, OpFlags: 1}},
		{
			"timeout", func(s *SQE) { s.PrepTimeout(ts, TimeoutAbsolute) },
			SQE{Opcode: 11, FD: -1, Addr: uint64(uintptr(unsafe.Pointer(ts))), Len: 1, OpFlags: 1},
		},
		{"cancel", func(s *SQE) { s.PrepCancel(77) }, SQE{Opcode: 14, FD: -1, Addr: 77}},
		{"message", func(s *SQE) { s.PrepMessage(&Ring{fd: 5}, 77, 8) }, SQE{Opcode: 40, FD: 5, Off: 77, Len: 8}},
		{"command", func(s *SQE) { s.PrepCommand(Slot(0), 0xc0107520) }, SQE{Opcode: 46, Flags: 1, Off: 0xc0107520}},
	} {
		var got SQE
		tc.prep(&got)
		if got != tc.want {
			t.Errorf("%s: %+v, want %+v", tc.name, got, tc.want)
		}
	}
}

func TestPrepKeepsFlags(t *testing.T) {
	s := SQE{Flags: FlagLink}
	s.PrepFsync(Slot(0))
	if s.Flags != FlagLink|FlagFixedFile {
		t.Errorf("Flags = %#x, want %#x", s.Flags, FlagLink|FlagFixedFile)
	}
}
