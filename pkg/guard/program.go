package guard

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// service is the control group whose processes may write to members: the guardian, the
// engine and the one that succeeds it, whichever versions and processes they are.
const service = "raid-engine.service"

// What the program has on its stack, from the frame pointer down.
const (
	stackDevice = -8
	stackName   = -8 - nameSize
	stackRecord = stackName - recordSize

	nameSize   = 24 // of service, with the zero at its end, in whole words
	recordSize = 32 // see Refusal
	recordDev  = 8
	recordComm = 16
)

// offsets are where the running kernel has what the program reads.
type offsets struct {
	fileInode, fileMode, inodeMode, inodeDevice    int16
	taskGroups, groupsDefault, groupNode, nodeName int16
}

// findOffsets looks the offsets up in the types of a kernel.
func findOffsets(types *btf.Spec) (o offsets, err error) {
	for _, f := range []struct {
		to             *int16
		record, member string
	}{
		{&o.fileInode, "file", "f_inode"},
		{&o.fileMode, "file", "f_mode"},
		{&o.inodeMode, "inode", "i_mode"},
		{&o.inodeDevice, "inode", "i_rdev"},
		{&o.taskGroups, "task_struct", "cgroups"},
		{&o.groupsDefault, "css_set", "dfl_cgrp"},
		{&o.groupNode, "cgroup", "kn"},
		{&o.nodeName, "kernfs_node", "name"},
	} {
		var record *btf.Struct
		if err := types.TypeByName(f.record, &record); err != nil {
			return o, fmt.Errorf("guard: struct %s of the kernel: %w", f.record, err)
		}

		at, found := offset(record.Members, f.member)
		if !found {
			return o, fmt.Errorf("guard: struct %s of the kernel has no %s", f.record, f.member)
		}

		*f.to = int16(at)
	}

	return o, nil
}

// offset finds a member, also within those without a name.
func offset(members []btf.Member, name string) (bytes uint32, found bool) {
	for _, m := range members {
		if m.Name == name {
			return m.Offset.Bytes(), true
		}

		if m.Name != "" {
			continue
		}

		var within []btf.Member

		switch t := btf.UnderlyingType(m.Type).(type) {
		case *btf.Struct:
			within = t.Members
		case *btf.Union:
			within = t.Members
		}

		if bytes, found := offset(within, name); found {
			return m.Offset.Bytes() + bytes, true
		}
	}

	return 0, false
}

// program is called whenever anything is opened. It refuses to open a block device for
// writing that is in devices, unless for a process of the service.
func program(o offsets, devices, refused *ebpf.Map) *ebpf.ProgramSpec {
	return &ebpf.ProgramSpec{
		Name: "raid_guard", Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: "file_open",
		License:      "GPL",
		Instructions: slices.Concat(ifProtected(o, devices), ifStranger(o), allow(), refuse(refused)),
	}
}

// ifProtected goes on if a device in devices is to be opened for writing, with how often
// that was refused in R8.
func ifProtected(o offsets, devices *ebpf.Map) asm.Instructions {
	const writable = 2 // FMODE_WRITE of include/linux/fs.h

	return asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, 0, asm.DWord), // the file, which is the only argument
		asm.LoadMem(asm.R2, asm.R6, o.fileMode, asm.Word),
		asm.And.Imm(asm.R2, writable),
		asm.JEq.Imm(asm.R2, 0, "allow"),
		asm.LoadMem(asm.R7, asm.R6, o.fileInode, asm.DWord),
		asm.LoadMem(asm.R2, asm.R7, o.inodeMode, asm.Half),
		asm.And.Imm(asm.R2, unix.S_IFMT),
		asm.JNE.Imm(asm.R2, unix.S_IFBLK, "allow"),
		asm.LoadMem(asm.R2, asm.R7, o.inodeDevice, asm.Word),
		asm.StoreMem(asm.RFP, stackDevice, asm.R2, asm.Word),

		asm.LoadMapPtr(asm.R1, devices.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackDevice),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "allow"),
		asm.Mov.Reg(asm.R8, asm.R0),
	}
}

// ifStranger refuses a process that is not in the service's control group.
func ifStranger(o offsets) asm.Instructions {
	code := asm.Instructions{asm.Mov.Imm(asm.R1, 0)}

	for at := range nameSize / 8 {
		code = append(code, asm.StoreMem(asm.RFP, int16(stackName+8*at), asm.R1, asm.DWord))
	}

	code = append(code,
		asm.FnGetCurrentTaskBtf.Call(),
		asm.LoadMem(asm.R1, asm.R0, o.taskGroups, asm.DWord),
		asm.LoadMem(asm.R1, asm.R1, o.groupsDefault, asm.DWord),
		asm.LoadMem(asm.R1, asm.R1, o.groupNode, asm.DWord),
		asm.LoadMem(asm.R3, asm.R1, o.nodeName, asm.DWord),
		asm.Mov.Reg(asm.R1, asm.RFP),
		asm.Add.Imm(asm.R1, stackName),
		asm.Mov.Imm(asm.R2, nameSize),
		asm.FnProbeReadKernelStr.Call(),
	)

	var name [nameSize]byte

	copy(name[:], service)

	for at := range nameSize / 8 {
		code = append(code,
			asm.LoadMem(asm.R1, asm.RFP, int16(stackName+8*at), asm.DWord),
			asm.LoadImm(asm.R2, int64(binary.NativeEndian.Uint64(name[8*at:])), asm.DWord),
			asm.JNE.Reg(asm.R1, asm.R2, "refuse"))
	}

	return code
}

func allow() asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, 0).WithSymbol("allow"), asm.Return()}
}

// refuse counts and tells it.
func refuse(refused *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm(asm.R1, 1).WithSymbol("refuse"),
		asm.StoreXAdd(asm.R8, asm.R1, asm.DWord),
		asm.FnGetCurrentPidTgid.Call(),
		asm.StoreMem(asm.RFP, stackRecord, asm.R0, asm.DWord),
		asm.LoadMem(asm.R1, asm.RFP, stackDevice, asm.Word),
		asm.StoreMem(asm.RFP, stackRecord+recordDev, asm.R1, asm.DWord),
		asm.Mov.Reg(asm.R1, asm.RFP),
		asm.Add.Imm(asm.R1, stackRecord+recordComm),
		asm.Mov.Imm(asm.R2, recordSize-recordComm),
		asm.FnGetCurrentComm.Call(),
		asm.LoadMapPtr(asm.R1, refused.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackRecord),
		asm.Mov.Imm(asm.R3, recordSize),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(), // a ring that is full loses what is told, and the count has it
		// As if the device itself was read-only: who can do with less opens it again.
		asm.Mov.Imm(asm.R0, -int32(unix.EROFS)),
		asm.Return(),
	}
}
