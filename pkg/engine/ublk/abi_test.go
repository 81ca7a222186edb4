package ublk

import (
	"testing"
	"unsafe"
)

// The offsets are those of include/uapi/linux/ublk_cmd.h, Linux 6.12.
func TestLayouts(t *testing.T) {
	var (
		c ctrlCmd
		i devInfo
		o ioCmd
		d ioDesc
		p paramsABI
	)
	for _, tc := range []struct {
		name      string
		got, want uintptr
	}{
		{"ctrl_cmd.queue_id", unsafe.Offsetof(c.QueueID), 4},
		{"ctrl_cmd.len", unsafe.Offsetof(c.Len), 6},
		{"ctrl_cmd.addr", unsafe.Offsetof(c.Addr), 8},
		{"ctrl_cmd.data", unsafe.Offsetof(c.Data), 16},
		{"ctrl_cmd.dev_path_len", unsafe.Offsetof(c.DevPathLen), 24},
		{"dev_info.queue_depth", unsafe.Offsetof(i.Depth), 2},
		{"dev_info.state", unsafe.Offsetof(i.State), 4},
		{"dev_info.max_io_buf_bytes", unsafe.Offsetof(i.MaxIO), 8},
		{"dev_info.dev_id", unsafe.Offsetof(i.DevID), 12},
		{"dev_info.ublksrv_pid", unsafe.Offsetof(i.PID), 16},
		{"dev_info.flags", unsafe.Offsetof(i.Flags), 24},
		{"dev_info.ublksrv_flags", unsafe.Offsetof(i.ServerFlags), 32},
		{"dev_info.owner_uid", unsafe.Offsetof(i.UID), 40},
		{"io_cmd.tag", unsafe.Offsetof(o.Tag), 2},
		{"io_cmd.result", unsafe.Offsetof(o.Result), 4},
		{"io_cmd.addr", unsafe.Offsetof(o.Addr), 8},
		{"io_desc.nr_sectors", unsafe.Offsetof(d.Sectors), 4},
		{"io_desc.start_sector", unsafe.Offsetof(d.StartSector), 8},
		{"io_desc.addr", unsafe.Offsetof(d.Addr), 16},
		{"params.types", unsafe.Offsetof(p.Types), 4},
		{"params.basic", unsafe.Offsetof(p.Attrs), 8},
		{"basic.logical_bs_shift", unsafe.Offsetof(p.LogicalShift), 12},
		{"basic.physical_bs_shift", unsafe.Offsetof(p.PhysicalShift), 13},
		{"basic.io_opt_shift", unsafe.Offsetof(p.OptimalShift), 14},
		{"basic.io_min_shift", unsafe.Offsetof(p.MinimumShift), 15},
		{"basic.max_sectors", unsafe.Offsetof(p.MaxSectors), 16},
		{"basic.chunk_sectors", unsafe.Offsetof(p.ChunkSectors), 20},
		{"basic.dev_sectors", unsafe.Offsetof(p.Sectors), 24},
		{"basic.virt_boundary_mask", unsafe.Offsetof(p.VirtualBoundary), 32},
		{"params.discard", unsafe.Offsetof(p.DiscardAlignment), 40},
		{"discard.discard_granularity", unsafe.Offsetof(p.DiscardGranularity), 44},
		{"discard.max_discard_sectors", unsafe.Offsetof(p.MaxDiscardSectors), 48},
		{"discard.max_write_zeroes_sectors", unsafe.Offsetof(p.MaxWriteZeroesSectors), 52},
		{"discard.max_discard_segments", unsafe.Offsetof(p.MaxDiscardSegments), 56},
		{"params.devt", unsafe.Offsetof(p.MaxDiscardSegments) + 4, paramsLen},
	} {
		if tc.got != tc.want {
			t.Errorf("%s is at %d, want %d", tc.name, tc.got, tc.want)
		}
	}
}

// TestCommandNumbers derives the numbers as the header does: direction, size of the payload, 'u', number.
func TestCommandNumbers(t *testing.T) {
	ctrl, io := uint32(unsafe.Sizeof(ctrlCmd{})), uint32(unsafe.Sizeof(ioCmd{}))
	const read, readWrite = 2, 3
	for _, tc := range []struct {
		name           string
		got            uint32
		dir, size, num uint32
	}{
		{"GET_DEV_INFO", cmdGetDevInfo, read, ctrl, 0x02},
		{"ADD_DEV", cmdAddDev, readWrite, ctrl, 0x04},
		{"DEL_DEV", cmdDelDev, readWrite, ctrl, 0x05},
		{"START_DEV", cmdStartDev, readWrite, ctrl, 0x06},
		{"STOP_DEV", cmdStopDev, readWrite, ctrl, 0x07},
		{"SET_PARAMS", cmdSetParams, readWrite, ctrl, 0x08},
		{"START_USER_RECOVERY", cmdStartUserRecovery, readWrite, ctrl, 0x10},
		{"END_USER_RECOVERY", cmdEndUserRecovery, readWrite, ctrl, 0x11},
		{"GET_FEATURES", cmdGetFeatures, read, ctrl, 0x13},
		{"DEL_DEV_ASYNC", cmdDelDevAsync, read, ctrl, 0x14},
		{"FETCH_REQ", ioFetchReq, readWrite, io, 0x20},
		{"COMMIT_AND_FETCH_REQ", ioCommitAndFetchReq, readWrite, io, 0x21},
	} {
		if want := tc.dir<<30 | tc.size<<16 | 'u'<<8 | tc.num; tc.got != want {
			t.Errorf("%s = %#x, want %#x", tc.name, tc.got, want)
		}
	}
}
