package asr

import (
	"fmt"
	"strings"
)

// hex is a number that is not counted with.
type hex uint32

// MarshalText implements [encoding.TextMarshaler].
func (h hex) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%#x", uint32(h)), nil }

// ReservedBlock is what is in the last sector of a disk.
type ReservedBlock struct {
	Code         hex    `json:"b0idcode"`
	FirstBlock   uint32 `json:"fstrsvrb"` // that is reserved
	StorageTid   uint16 `json:"svBlockStorageTid"`
	Tid          uint16 `json:"svtid"`
	Version      uint8  `json:"resver"`
	DriveMagic   hex    `json:"drivemagic"`
	SoftwareCode hex    `json:"smagic"`
	Table        uint32 `json:"raidtbl"`
}

// Table is the header of the table of arrays.
type Table struct {
	Code            hex    `json:"ridcode"`
	Version         uint32 `json:"rversion"`
	Max             uint16 `json:"maxelm"`
	Count           uint16 `json:"elmcnt"`
	LineSize        uint16 `json:"elmsize"`
	Sum             hex    `json:"rchksum"`
	Flags           hex    `json:"raidFlags"`
	Timestamp       hex    `json:"timestamp"`
	IROCFlags       uint8  `json:"irocFlags"`
	Open            uint8  `json:"dirty"`
	Priority        uint8  `json:"actionPriority"`
	SpareID         uint8  `json:"spareid"`
	SpareDriveMagic hex    `json:"sparedrivemagic"`
	ArrayMagic      hex    `json:"raidmagic"` // of the array whose spare this is
	VerifyDate      hex    `json:"verifyDate"`
	RecreateDate    hex    `json:"recreateDate"`
	Stamp           *stamp `json:"stamp"` // ours, where the format reserves bytes
}

// Line is a line of the table: an array or a member.
type Line struct {
	Members    uint16 `json:"raidcnt"` // of an array
	Seq        uint16 `json:"raidseq"`
	Magic      hex    `json:"raidmagic"`
	Level      uint8  `json:"raidlevel"` // which kind of line this is
	Type       uint8  `json:"raidtype"`
	State      uint8  `json:"raidstate"`
	Flags      uint8  `json:"flags"`
	References uint8  `json:"refcnt"`
	HBA        uint8  `json:"raidhba"`
	Channel    uint8  `json:"raidchnl"`
	LUN        uint8  `json:"raidlun"`
	ID         uint32 `json:"raidid"`
	Offset     uint32 `json:"loffset"`
	Capacity   uint32 `json:"lcapcty"`
	Stripe     uint16 `json:"strpsize"`
	BIOSInfo   uint16 `json:"biosInfo"`
	LSU        hex    `json:"lsu"`
	Added      uint8  `json:"addedDrives"`
	SleepRate  uint8  `json:"appSleepRate"`
	StorageTid uint16 `json:"blockStorageTid"`
	Append     uint32 `json:"curAppBlock"`
	Burst      uint32 `json:"appBurstCount"`
	Name       string `json:"name"`
}

// member reports whether l is of a disk.
func (l *Line) member() bool { return l.Level == levelPhysical }

// works reports whether the disk is in the array: with its content, or being filled.
func (l *Line) works() bool {
	switch l.State {
	case memberOptimal, memberRebuilding, memberBuilding, memberReplaced:
		return true
	default:
		return false
	}
}

// place is where the disk is attached; the order of members is that of places.
func (l *Line) place() uint64 {
	return uint64(l.HBA)<<48 | uint64(l.Channel)<<40 | uint64(l.LUN)<<32 | uint64(l.ID)
}

// Raw is what is on a disk.
type Raw struct {
	Reserved ReservedBlock `json:"reserved_block"`
	Table    Table         `json:"table"`
	Lines    []Line        `json:"lines"`

	block, table []byte
	group        group
}

// group is the lines of one array.
type group struct {
	at, end int // lines: the array, and behind its last member
	own     int // the line of this disk; that of a spare is in no group
	members []int
	spare   bool // the disk is a spare: of this array, or of any if at is below 0
}

func decodeBlock(b []byte) ReservedBlock {
	return ReservedBlock{
		Code: hex(order.Uint32(b)), FirstBlock: order.Uint32(b[0x34:]),
		StorageTid: order.Uint16(b[offStorageTid:]), Tid: order.Uint16(b[offTid:]), Version: b[offVersion],
		DriveMagic: hex(order.Uint32(b[offDrive:])), SoftwareCode: hex(order.Uint32(b[offSoftware:])),
		Table: order.Uint32(b[offTable:]),
	}
}

func decodeTable(b []byte) Table {
	return Table{
		Code: hex(order.Uint32(b)), Version: order.Uint32(b[offTableVersion:]), Max: order.Uint16(b[offMax:]),
		Count: order.Uint16(b[offCount:]), LineSize: order.Uint16(b[offLineSize:]), Sum: hex(order.Uint16(b[offSum:])),
		Flags: hex(order.Uint32(b[24:])), Timestamp: hex(order.Uint32(b[offTimestamp:])), IROCFlags: b[32],
		Open: b[offOpen], Priority: b[offPriority], SpareID: b[offSpareID],
		SpareDriveMagic: hex(order.Uint32(b[offSpareDrive:])), ArrayMagic: hex(order.Uint32(b[offSpareArray:])),
		VerifyDate: hex(order.Uint32(b[44:])), RecreateDate: hex(order.Uint32(b[48:])),
	}
}

func decodeLine(b []byte) Line {
	return Line{
		Members: order.Uint16(b), Seq: order.Uint16(b[offSeq:]), Magic: hex(order.Uint32(b[offMagic:])),
		Level: b[offLevel], Type: b[offType], State: b[offState], Flags: b[offFlags], References: b[12],
		HBA: b[13], Channel: b[14], LUN: b[15], ID: order.Uint32(b[offID:]), Offset: order.Uint32(b[20:]),
		Capacity: order.Uint32(b[offCapacity:]), Stripe: order.Uint16(b[offStripe:]), BIOSInfo: order.Uint16(b[30:]),
		LSU: hex(order.Uint32(b[32:])), Added: b[offAdded], SleepRate: b[37], StorageTid: order.Uint16(b[offLineTid:]),
		Append: order.Uint32(b[offAppend:]), Burst: order.Uint32(b[44:]),
		Name: strings.TrimRight(string(b[offName:][:nameSize]), " \x00"),
	}
}

// lineOf returns the bytes of a line of a table.
func lineOf(table []byte, i int) []byte { return table[headSize+i*lineSize:][:lineSize] }
