package imsm

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// Hex is a number that people read in hexadecimal digits.
type Hex uint32

// MarshalText implements [encoding.TextMarshaler].
func (h Hex) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%08x", uint32(h)), nil }

// Disk is an entry of the disk table. Sizes are in sectors, here and below.
type Disk struct {
	Serial Serial `json:"serial"`
	Total  uint64 `json:"total_blocks"`
	SCSI   Hex    `json:"scsi_id"`
	Status Hex    `json:"status"`
}

// Map is what a volume is, or is to become.
type Map struct {
	Start      uint64 `json:"pba_of_lba0"`
	Blocks     uint64 `json:"blocks_per_member"`
	Stripes    uint64 `json:"num_data_stripes"`
	Strip      uint32 `json:"blocks_per_strip"`
	State      uint8  `json:"map_state"`
	Level      uint8  `json:"raid_level"`
	Members    uint8  `json:"num_members"`
	Domains    uint8  `json:"num_domains"`
	FailedSlot uint8  `json:"failed_disk_num"`
	Ords       []Hex  `json:"disk_ord_tbl"`
}

// Volume is an array of the container.
type Volume struct {
	Name      string `json:"volume"`
	Size      uint64 `json:"size"`
	Status    Hex    `json:"status"`
	Number    uint16 `json:"my_vol_raid_dev_num"`
	Policy    uint8  `json:"rwh_policy"`
	Unit      uint64 `json:"curr_migr_unit"`
	Migrating uint8  `json:"migr_state"`
	Migration uint8  `json:"migr_type"`
	Dirty     uint8  `json:"dirty"`
	Maps      []Map  `json:"map"`

	name [nameSize]byte
	at   int // in the record
}

// BadBlock is an entry of the log of bad blocks.
type BadBlock struct {
	Disk   uint8  `json:"disk"`
	Start  uint64 `json:"start"`
	Length uint32 `json:"length"`
}

// Raw is what lies on a disk.
type Raw struct {
	Version    string     `json:"version"`
	Checksum   Hex        `json:"check_sum"`
	Size       uint32     `json:"mpb_size"`
	Family     Hex        `json:"family_num"`
	OrigFamily Hex        `json:"orig_family_num"`
	Generation uint32     `json:"generation_num"`
	Attributes Hex        `json:"attributes"`
	Cycles     uint32     `json:"pwr_cycle_count"`
	Created    uint64     `json:"creation_time"`
	Serial     Serial     `json:"serial"` // of this disk
	Disks      []Disk     `json:"disks"`
	Volumes    []Volume   `json:"volumes"`
	BadBlocks  []BadBlock `json:"bad_blocks"`

	index int    // of this disk
	block int    // size in bytes
	mpb   []byte // the record
	rest  []byte // of it, between the volumes and the log
}

// unit returns how many sectors the numbers on disk count.
func unit(block int) uint64 { return uint64(block / raid.SectorSize) }

// scale returns a number from the disk in sectors. What is too large for any
// device is still too large afterwards.
func (r *Raw) scale(disk uint64) uint64 { return min(disk, 1<<50) * unit(r.block) }

// wide joins the two words of a number, of which the high one may be of no account.
func (r *Raw) wide(low, high []byte) uint64 {
	n := uint64(order.Uint32(low))
	if r.Attributes&attrBigDisks != 0 {
		n |= uint64(order.Uint32(high)) << 32
	}

	return n
}

var errShort = errors.New("the record ends before what it holds does")

// decode decodes a record, whose checksum was verified.
func decode(mpb []byte, block int) (*Raw, error) {
	r := &Raw{
		Version:  cut(mpb[len(signature):signatureSize]),
		Checksum: Hex(order.Uint32(mpb[offSum:])), Size: uint32(len(mpb)),
		Family: Hex(order.Uint32(mpb[offFamily:])), OrigFamily: Hex(order.Uint32(mpb[offOrigFamily:])),
		Generation: order.Uint32(mpb[offGeneration:]), Attributes: Hex(order.Uint32(mpb[offAttributes:])),
		Cycles: order.Uint32(mpb[offCycles:]), Created: order.Uint64(mpb[offCreated:]),
		block: block, mpb: mpb, index: -1,
	}

	at, disks := headSize, int(mpb[offDiskCount])
	if at+disks*diskSize > len(mpb) {
		return nil, fmt.Errorf("%d disks: %w", disks, errShort)
	}

	for range disks {
		e := mpb[at:][:diskSize]
		r.Disks = append(r.Disks, Disk{
			Serial: Serial(e), Total: r.scale(r.wide(e[offTotal:], e[offTotalHigh:])),
			SCSI: Hex(order.Uint32(e[offSCSI:])), Status: Hex(order.Uint32(e[offStatus:])),
		})
		at += diskSize
	}

	for i := range int(mpb[offVolCount]) {
		v, size, err := r.volume(mpb[at:])
		if err != nil {
			return nil, fmt.Errorf("volume %d: %w", i, err)
		}

		v.at = at
		r.Volumes = append(r.Volumes, v)
		at += size
	}

	return r, r.decodeLog(at)
}

// volume decodes the volume that buf begins with, and returns its size.
func (r *Raw) volume(buf []byte) (Volume, int, error) {
	if len(buf) < volSize {
		return Volume{}, 0, errShort
	}

	v := Volume{
		Name: cut(buf[:nameSize]), name: [nameSize]byte(buf),
		Size: r.scale(uint64(order.Uint32(buf[offVolSize:])) |
			uint64(order.Uint32(buf[offVolSizeHigh:]))<<32),
		Status: Hex(order.Uint32(buf[offVolStatus:])), Number: order.Uint16(buf[offVolNumber:]),
		Policy: buf[offPolicy], Migrating: buf[offMigrating], Migration: buf[offMigration], Dirty: buf[offDirty],
		Unit: r.scale(uint64(order.Uint32(buf[offUnit:])) | uint64(order.Uint32(buf[offUnitHigh:]))<<32),
	}

	size, maps := volSize, 1
	if v.Migrating != 0 {
		maps = mapsOfEach
	}

	for range maps {
		m, took, err := r.decodeMap(buf[size:])
		if err != nil {
			return Volume{}, 0, err
		}

		v.Maps = append(v.Maps, m)
		size += took
	}

	return v, size, nil
}

// decodeMap decodes the map that buf begins with, and returns its size.
func (r *Raw) decodeMap(buf []byte) (Map, int, error) {
	if len(buf) < mapSize || len(buf) < mapSize+4*int(buf[offMembers]) {
		return Map{}, 0, errShort
	}

	m := Map{
		Start:   r.scale(r.wide(buf[offStart:], buf[offStartHigh:])),
		Blocks:  r.scale(r.wide(buf[offBlocks:], buf[offBlocksHigh:])),
		Stripes: min(r.wide(buf[offStripes:], buf[offStripesHigh:]), 1<<34),
		Strip:   uint32(order.Uint16(buf[offStrip:])) * uint32(unit(r.block)),
		State:   buf[offState], Level: buf[offLevel], Members: buf[offMembers],
		Domains: buf[offDomains], FailedSlot: buf[offFailedSlot],
	}

	if m.Members < 1 {
		return Map{}, 0, errors.New("no members")
	}

	for i := range int(m.Members) {
		m.Ords = append(m.Ords, Hex(order.Uint32(buf[mapSize+4*i:])))
	}

	return m, mapSize + 4*int(m.Members), nil
}

// decodeLog decodes the log of bad blocks, which is at the end of the record. at
// is where the volumes end.
func (r *Raw) decodeLog(at int) error {
	size := int(order.Uint32(r.mpb[offLogSize:]))
	start := len(r.mpb) - size

	if size < 0 || start < at {
		return fmt.Errorf("bad block log of %d bytes: %w", size, errShort)
	}

	r.rest = r.mpb[at:start]

	if size == 0 {
		return nil
	}

	log := r.mpb[start:]
	if size < logHead || order.Uint32(log) != logMagic {
		return errors.New("no bad block log where one should be")
	}

	count := order.Uint32(log[4:])
	if count > logMax || size != logHead+int(count)*logEntry {
		return fmt.Errorf("bad block log of %d entries in %d bytes", count, size)
	}

	for i := range int(count) {
		e := log[logHead+i*logEntry:]
		if int(e[1]) >= len(r.Disks) {
			return fmt.Errorf("bad blocks of disk %d of %d", e[1], len(r.Disks))
		}

		start := uint64(order.Uint16(e[2:])) | uint64(order.Uint32(e[4:]))<<16
		r.BadBlocks = append(r.BadBlocks, BadBlock{
			Disk: e[1], Start: r.scale(start), Length: (uint32(e[0]) + 1) * uint32(unit(r.block)),
		})
	}

	return nil
}

// failed reports whether a disk has failed.
func (d *Disk) failed() bool { return d.Status&diskFailed != 0 }

// index returns the entry of the disk table that is in a slot, and whether what
// the disk has is not in sync.
func (m *Map) disk(slot int) (index int, rebuild bool) {
	return int(m.Ords[slot] & ordIndex), m.Ords[slot]&ordRebuild != 0
}

// container returns the UUID of the container: zero if there is none.
func (r *Raw) container() raid.UUID {
	if len(r.Volumes) == 0 {
		return raid.UUID{}
	}

	return uuidOf(r.family())
}

// family returns what identifies the container. Old versions of mdadm did not
// set the original family.
func (r *Raw) family() []byte {
	if r.OrigFamily == 0 {
		return order.AppendUint32(nil, uint32(r.Family))
	}

	return order.AppendUint32(nil, uint32(r.OrigFamily))
}

// array returns the UUID of a volume.
func (r *Raw) array(index int) raid.UUID {
	return uuidOf(r.family(), order.AppendUint32(nil, uint32(index)), r.Volumes[index].name[:])
}

// find returns the entry of the disk with a serial, or -1.
func (r *Raw) find(serial Serial) int {
	if serial == (Serial{}) {
		return -1
	}

	for i := range r.Disks {
		if r.Disks[i].Serial.same(serial) {
			return i
		}
	}

	return -1
}

// serials lists the first serials of the table, in words for people.
func (r *Raw) serials() string {
	const most = 8

	var all []string
	for i := range r.Disks[:min(len(r.Disks), most)] {
		all = append(all, strconv.Quote(r.Disks[i].Serial.String()))
	}

	if len(r.Disks) > most {
		all = append(all, "...")
	}

	return "[" + strings.Join(all, " ") + "]"
}

// recordBlocks returns how many blocks a record takes.
func recordBlocks(size, block int) int { return (size + block - 1) / block }

// place returns where the record of a disk is, and how many sectors it takes.
func place(src metadata.Source, size int) (raid.Sectors, raid.Sectors) {
	block := blockOf(src)
	sectors := raid.Sectors(recordBlocks(size, block) * (block / raid.SectorSize))

	return src.Size - raid.Sectors(block/raid.SectorSize) - sectors, sectors
}
