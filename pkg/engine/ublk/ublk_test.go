package ublk

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestParamsEncode(t *testing.T) {
	good := Params{
		Sectors: 1 << 40, LogicalBlock: 512, PhysicalBlock: 4096, MinimumIO: 64 << 10, OptimalIO: 128 << 10,
		MaxSectors: 512, ChunkSectors: 384, ReadOnly: true,
	}
	for _, tc := range []struct {
		name   string
		change func(*Params)
		want   paramsABI
		err    string
	}{
		{
			name: "basic", change: func(*Params) {},
			want: paramsABI{
				Len: 60, Types: 1, Attrs: 1 | 4 | 8, LogicalShift: 9, PhysicalShift: 12, MinimumShift: 16,
				OptimalShift: 17, MaxSectors: 512, ChunkSectors: 384, Sectors: 1 << 40,
			},
		},
		{
			name: "discard",
			change: func(p *Params) {
				p.ReadOnly, p.Rotational = false, true
				p.Discard = &DiscardParams{Granularity: 4096, MaxSectors: 8192, MaxWriteZeroesSectors: 64}
			},
			want: paramsABI{
				Len: 60, Types: 3, Attrs: 2 | 4 | 8, LogicalShift: 9, PhysicalShift: 12, MinimumShift: 16,
				OptimalShift: 17, MaxSectors: 512, ChunkSectors: 384, Sectors: 1 << 40,
				DiscardGranularity: 4096, MaxDiscardSectors: 8192, MaxWriteZeroesSectors: 64, MaxDiscardSegments: 1,
			},
		},
		{name: "no logical block", change: func(p *Params) { p.LogicalBlock = 0 }, err: "logical block of 0 bytes"},
		{name: "physical", change: func(p *Params) { p.PhysicalBlock = 520 }, err: "physical block of 520 bytes"},
		{name: "three chunks", change: func(p *Params) { p.OptimalIO = 192 << 10 }, err: "optimal I/O of 196608 bytes"},
		{name: "small", change: func(p *Params) { p.MinimumIO = 256 }, err: "minimum I/O of 256 bytes"},
		{name: "granularity", change: func(p *Params) { p.Discard = &DiscardParams{} }, err: "discard granularity 0"},
	} {
		p := good
		tc.change(&p)
		got, err := p.encode()
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) || !errors.Is(err, unix.EINVAL) {
				t.Errorf("%s: encode() = %v, want %q", tc.name, err, tc.err)
			}
			continue
		}
		if err != nil || got != tc.want {
			t.Errorf("%s: encode() = %+v, %v, want %+v", tc.name, got, err, tc.want)
		}
	}
}

func TestDevInfoRoundTrip(t *testing.T) {
	want := DevInfo{
		ID: AnyDevice, Queues: 4, Depth: 128, MaxIO: 1 << 20, ServerFlags: 0x1234567890,
		Features: UserRecovery | UserRecoveryReissue,
	}
	raw, err := want.encode()
	if err != nil {
		t.Fatal(err)
	}
	if raw.DevID != 0xffffffff {
		t.Errorf("any device is %#x, want 0xffffffff", raw.DevID)
	}
	want.Features |= CmdIoctlEncode
	if diff := cmp.Diff(want, raw.decode()); diff != "" {
		t.Errorf("decode (-want +got):\n%s", diff)
	}
}

func TestDevInfoRefusesWhatTheDriverWould(t *testing.T) {
	for _, tc := range []struct {
		change func(*DevInfo)
		err    string
	}{
		{func(i *DevInfo) { i.Queues = 0 }, "0 queues"},
		{func(i *DevInfo) { i.Queues = 4097 }, "4097 queues"},
		{func(i *DevInfo) { i.Depth = 0 }, "queue depth 0"},
		{func(i *DevInfo) { i.Depth = 4097 }, "queue depth 4097"},
		{func(i *DevInfo) { i.MaxIO = 512 }, "largest request of 512 bytes"},
		{func(i *DevInfo) { i.MaxIO = 64 << 20 }, "largest request of 67108864 bytes"},
	} {
		info := DevInfo{Queues: 1, Depth: 1, MaxIO: 4096}
		tc.change(&info)
		_, err := info.encode()
		if err == nil || !strings.Contains(err.Error(), tc.err) || !errors.Is(err, unix.EINVAL) {
			t.Errorf("encode(%+v) = %v, want %q", info, err, tc.err)
		}
	}
}

func TestRequests(t *testing.T) {
	info := DevInfo{ID: 3, Queues: 1, Depth: 2, MaxIO: 4096}
	params := Params{Sectors: 8, LogicalBlock: 512, PhysicalBlock: 512, MinimumIO: 512, OptimalIO: 512, MaxSectors: 8}
	for _, tc := range []struct {
		cmd  Command
		op   uint32
		want ctrlCmd
	}{
		{Command{Op: OpFeatures, Device: 7}, cmdGetFeatures, ctrlCmd{QueueID: 0xffff, Len: 8}},
		{Command{Op: OpAddDev, Device: 9, Info: &info}, cmdAddDev, ctrlCmd{DevID: 3, QueueID: 0xffff, Len: 64}},
		{Command{Op: OpDevInfo, Device: 7}, cmdGetDevInfo, ctrlCmd{DevID: 7, QueueID: 0xffff, Len: 64}},
		{
			Command{Op: OpSetParams, Device: 7, Params: &params},
			cmdSetParams,
			ctrlCmd{DevID: 7, QueueID: 0xffff, Len: 60},
		},
		{Command{Op: OpStartDev, Device: 7, PID: 99}, cmdStartDev, ctrlCmd{DevID: 7, QueueID: 0xffff, Data: 99}},
		{
			Command{Op: OpEndUserRecovery, Device: 7, PID: 99},
			cmdEndUserRecovery,
			ctrlCmd{DevID: 7, QueueID: 0xffff, Data: 99},
		},
		{Command{Op: OpStartUserRecovery, Device: 7}, cmdStartUserRecovery, ctrlCmd{DevID: 7, QueueID: 0xffff}},
		{Command{Op: OpStopDev, Device: 7}, cmdStopDev, ctrlCmd{DevID: 7, QueueID: 0xffff}},
		{Command{Op: OpDelDev, Device: 7}, cmdDelDev, ctrlCmd{DevID: 7, QueueID: 0xffff}},
		{Command{Op: OpDelDevAsync, Device: 7}, cmdDelDevAsync, ctrlCmd{DevID: 7, QueueID: 0xffff}},
	} {
		req, err := newRequest(tc.cmd)
		if err != nil {
			t.Errorf("%s: %v", tc.cmd.Op, err)
			continue
		}
		if req.op != tc.op || req.payload != tc.want {
			t.Errorf("%s: %#x %+v, want %#x %+v", tc.cmd.Op, req.op, req.payload, tc.op, tc.want)
		}
	}
	req, err := newRequest(Command{Op: OpAddDev, Info: &info})
	if err != nil {
		t.Fatal(err)
	}
	info.Features = CmdIoctlEncode
	if diff := cmp.Diff(Reply{Info: info}, req.reply(OpAddDev)); diff != "" {
		t.Errorf("reply to what was asked (-want +got):\n%s", diff)
	}
	for _, cmd := range []Command{{Op: "format"}, {Op: OpAddDev}, {Op: OpSetParams}, {Op: OpAddDev, Info: &DevInfo{}}} {
		if _, err := newRequest(cmd); !errors.Is(err, unix.EINVAL) {
			t.Errorf("newRequest(%+v) = %v, want %v", cmd, err, unix.EINVAL)
		}
	}
}

func TestTexts(t *testing.T) {
	for o, want := range map[ReqOp]string{
		Read: "read", Write: "write", Flush: "flush", Discard: "discard", WriteZeroes: "write-zeroes", 9: "operation 9",
	} {
		if got := o.String(); got != want {
			t.Errorf("ReqOp(%d).String() = %q, want %q", uint8(o), got, want)
		}
	}
	for s, want := range map[DeviceState]string{
		Dead: "dead", Live: "live", Quiesced: "quiesced", FailIO: "fail-io", 9: "state 9",
	} {
		if got := s.String(); got != want {
			t.Errorf("DeviceState(%d).String() = %q, want %q", uint16(s), got, want)
		}
	}
	if got := DeviceID(12).ServerPath() + " " + DeviceID(12).BlockPath(); got != "/dev/ublkc12 /dev/ublkb12" {
		t.Errorf("paths %s, want /dev/ublkc12 /dev/ublkb12", got)
	}
}
