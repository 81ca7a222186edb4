package ddf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// GUID identifies a container, an array or a disk. It is text in part.
type GUID [guidSize]byte

// MarshalText implements [encoding.TextMarshaler]. What cannot be printed is
// escaped.
func (g GUID) MarshalText() ([]byte, error) {
	quoted := strconv.Quote(string(g[:]))

	return []byte(quoted[1 : len(quoted)-1]), nil
}

// Section is where a section is, in sectors from the header.
type Section struct {
	Offset uint32 `json:"offset"`
	Length uint32 `json:"length"`
}

func (s Section) end() uint64 { return uint64(s.Offset) + uint64(s.Length) }

// Header is an anchor or one of the two headers.
type Header struct {
	GUID               GUID    `json:"guid"`
	Revision           string  `json:"revision"`
	Seq                uint32  `json:"seq"`
	Timestamp          uint32  `json:"timestamp"` // seconds since 1980
	Open               uint8   `json:"openflag"`
	PrimaryLBA         uint64  `json:"primary_lba"`
	SecondaryLBA       uint64  `json:"secondary_lba"`
	Type               uint8   `json:"type"`
	WorkspaceLBA       uint64  `json:"workspace_lba"`
	MaxPhysical        uint16  `json:"max_pd_entries"`
	MaxVirtual         uint16  `json:"max_vd_entries"`
	MaxPartitions      uint16  `json:"max_partitions"`
	ConfigRecordLength uint16  `json:"config_record_len"`
	MaxPrimaryElements uint16  `json:"max_primary_element_entries"`
	Controller         Section `json:"controller_section"`
	Physical           Section `json:"phys_section"`
	Virtual            Section `json:"virt_section"`
	Config             Section `json:"config_section"`
	Data               Section `json:"data_section"`
	BadBlocks          Section `json:"bbm_section"`
	Diagnostic         Section `json:"diag_space"`
	Vendor             Section `json:"vendor_section"`
}

// sections returns those that are read, in the order in which they are written.
func (h *Header) sections() [5]Section {
	return [...]Section{h.Controller, h.Physical, h.Virtual, h.Config, h.Data}
}

// elements returns how many members a config record has room for.
func (h *Header) elements() int {
	// Adaptec leaves it open.
	if h.MaxPrimaryElements == 0xffff {
		return int(h.MaxPhysical)
	}

	return int(h.MaxPrimaryElements)
}

// PhysicalDisk is an entry of the physical section.
type PhysicalDisk struct {
	Index  int    `json:"index"`
	GUID   GUID   `json:"guid"`
	Refnum uint32 `json:"refnum"`
	Type   uint16 `json:"type"`
	State  uint16 `json:"state"`
	Room   uint64 `json:"config_size"` // sectors in front of the metadata
}

// working reports whether the data of the disk is of any use.
func (p *PhysicalDisk) working() bool {
	return p.State&(pdOnline|pdFailed|pdMissing) == pdOnline
}

// VirtualDisk is an entry of the virtual section.
type VirtualDisk struct {
	Index     int    `json:"index"`
	GUID      GUID   `json:"guid"`
	Unit      uint16 `json:"unit"`
	State     uint8  `json:"state"`
	InitState uint8  `json:"init_state"`
	Name      string `json:"name"`
}

// Config is a record of an array, or of a part of one with a secondary level.
type Config struct {
	GUID         GUID     `json:"guid"`
	Timestamp    uint32   `json:"timestamp"`
	Seq          uint32   `json:"seqnum"`
	Primaries    uint16   `json:"prim_elmnt_count"`
	ChunkShift   uint8    `json:"chunk_shift"`
	PRL          uint8    `json:"prl"`
	RLQ          uint8    `json:"rlq"`
	Secondaries  uint8    `json:"sec_elmnt_count"`
	SecondarySeq uint8    `json:"sec_elmnt_seq"`
	SRL          uint8    `json:"srl"`
	Blocks       uint64   `json:"blocks"`
	ArrayBlocks  uint64   `json:"array_blocks"`
	Refnums      []uint32 `json:"phys_refnum"`
	Offsets      []uint64 `json:"lba_offset"`

	places []int // of the members, among the places that there are for them
}

// Raw is what lies on a disk: that of its two copies that counts.
type Raw struct {
	Anchor        Header         `json:"anchor"`
	Header        Header         `json:"header"`
	Controller    GUID           `json:"controller_guid"`
	PhysicalDisks []PhysicalDisk `json:"physical_disks"`
	VirtualDisks  []VirtualDisk  `json:"virtual_disks"`
	Configs       []Config       `json:"configs"`
	Refnum        uint32         `json:"refnum"` // of this disk

	form     form
	host     string
	anchorAt raid.Sectors
	block    int
	copies   []*area // the primary and the secondary; nil if it is not whole
	active   *area
}

// decodeHeader decodes the anchor or header in buf, and says how it is written.
//
// Returns an error wrapping [metadata.ErrNotFound] if there is none, and one
// wrapping [metadata.ErrCorrupt] if it is not whole.
func decodeHeader(buf []byte) (*Header, form, error) {
	var f form

	switch {
	case binary.BigEndian.Uint32(buf) == magicHeader:
		f.order = binary.BigEndian
	case binary.LittleEndian.Uint32(buf) == magicHeader:
		f.order = binary.LittleEndian
	default:
		return nil, f, metadata.ErrNotFound
	}

	buf = buf[:raid.SectorSize]
	if !f.whole(buf) {
		f.inverted = true
	}

	if !f.whole(buf) {
		return nil, f, fmt.Errorf("header: checksum %#08x, computed %#08x: %w",
			f.order.Uint32(buf[offCRC:]), f.sum(buf), metadata.ErrCorrupt)
	}

	o := f.order
	h := &Header{
		GUID: GUID(buf[offGUID:]), Revision: string(buf[offRevision:offSeq]),
		Seq: o.Uint32(buf[offSeq:]), Timestamp: o.Uint32(buf[offTimestamp:]), Open: buf[offOpen],
		PrimaryLBA: o.Uint64(buf[offPrimaryLBA:]), SecondaryLBA: o.Uint64(buf[offSecondaryLBA:]),
		Type: buf[offType], WorkspaceLBA: o.Uint64(buf[offWorkspaceLBA:]),
	}

	for i, field := range []*uint16{
		&h.MaxPhysical, &h.MaxVirtual, &h.MaxPartitions, &h.ConfigRecordLength, &h.MaxPrimaryElements,
	} {
		*field = o.Uint16(buf[offCounts+2*i:])
	}

	for i, field := range []*Section{
		&h.Controller, &h.Physical, &h.Virtual, &h.Config, &h.Data, &h.BadBlocks, &h.Diagnostic, &h.Vendor,
	} {
		*field = Section{o.Uint32(buf[offSections+8*i:]), o.Uint32(buf[offSections+8*i+4:])}
	}

	switch h.Revision {
	case "01.00.00", "01.02.00", "02.00.00":
		return h, f, nil
	default:
		return nil, f, fmt.Errorf("header: revision %q: %w", h.Revision, metadata.ErrCorrupt)
	}
}

// spanMax bounds what is read of a copy: the largest tables that the
// specification knows, with 64 arrays of 4096 members on a disk.
const spanMax = 8192

// span returns how many sectors a copy takes, or why its header cannot be right.
func (h *Header) span() (raid.Sectors, error) {
	all := h.sections()
	end := uint64(1)

	for i, s := range all {
		if s.Offset < 1 || s.Length < 1 || s.end() > spanMax {
			return 0, fmt.Errorf("section of sectors %d to %d, of at most %d", s.Offset, s.end(), spanMax)
		}

		for _, other := range all[:i] {
			if uint64(s.Offset) < other.end() && uint64(other.Offset) < s.end() {
				return 0, fmt.Errorf("sections at %d and %d overlap", s.Offset, other.Offset)
			}
		}

		end = max(end, s.end())
	}

	if h.BadBlocks.Offset != none32 && h.BadBlocks.Length > 0 && h.BadBlocks.Offset < spanMax {
		end = max(end, uint64(h.BadBlocks.Offset)+1) // of which the head is read
	}

	record := int(h.ConfigRecordLength) * raid.SectorSize

	switch {
	case record < offRefnums+12*h.elements() || h.elements() < 1:
		return 0, fmt.Errorf("config records of %d sectors for %d members", h.ConfigRecordLength, h.elements())
	case uint64(h.ConfigRecordLength) > uint64(h.Config.Length):
		return 0, fmt.Errorf("config records of %d sectors, in %d", h.ConfigRecordLength, h.Config.Length)
	default:
		return raid.Sectors(end), nil
	}
}

var errEntries = errors.New("more entries than the section has room for")

// entriesOf returns the entries of the physical or the virtual section.
func entriesOf(f form, section []byte, magic uint32) ([]byte, error) {
	if f.order.Uint32(section) != magic {
		return nil, fmt.Errorf("magic %#08x, want %#08x", f.order.Uint32(section), magic)
	}

	if !f.whole(section) {
		return nil, fmt.Errorf("section %#08x: checksum %#08x, computed %#08x",
			magic, f.order.Uint32(section[offCRC:]), f.sum(section))
	}

	n := int(f.order.Uint16(section[offMax:]))
	if headSize+n*entrySize > len(section) {
		return nil, fmt.Errorf("section %#08x: %d: %w", magic, n, errEntries)
	}

	return section[headSize:][:n*entrySize], nil
}

func decodePhysical(f form, section []byte) ([]PhysicalDisk, error) {
	entries, err := entriesOf(f, section, magicPhysical)
	if err != nil {
		return nil, err
	}

	var all []PhysicalDisk

	for i := range len(entries) / entrySize {
		e := entries[i*entrySize:]
		p := PhysicalDisk{
			Index: i, GUID: GUID(e), Refnum: f.order.Uint32(e[offRefnum:]),
			Type: f.order.Uint16(e[offPDType:]), State: f.order.Uint16(e[offPDState:]),
			Room: f.order.Uint64(e[offRoom:]),
		}

		if p.Refnum != none32 && p.Refnum != 0 && !unset(e) {
			all = append(all, p)
		}
	}

	return all, nil
}

func decodeVirtual(f form, section []byte) ([]VirtualDisk, error) {
	entries, err := entriesOf(f, section, magicVirtual)
	if err != nil {
		return nil, err
	}

	var all []VirtualDisk

	for i := range len(entries) / entrySize {
		e := entries[i*entrySize:]
		if unset(e) {
			continue
		}

		// The name ends where it is padded.
		name, _, _ := strings.Cut(string(e[offName:offName+nameSize]), "\x00")
		name, _, _ = strings.Cut(name, " ")
		all = append(all, VirtualDisk{
			Index: i, GUID: GUID(e), Unit: f.order.Uint16(e[offUnit:]),
			State: e[offState], InitState: e[offInit], Name: name,
		})
	}

	return all, nil
}

// decodeConfig decodes the record of an array with room for as many members as
// given.
func decodeConfig(f form, record []byte, elements int) (*Config, error) {
	if !f.whole(record) {
		return nil, fmt.Errorf("config record: checksum %#08x, computed %#08x",
			f.order.Uint32(record[offCRC:]), f.sum(record))
	}

	c := &Config{
		GUID: GUID(record[offGUID:]), Timestamp: f.order.Uint32(record[offConfTimestamp:]),
		Seq: f.order.Uint32(record[offConfSeq:]), Primaries: f.order.Uint16(record[offPrimaries:]),
		ChunkShift: record[offChunkShift], PRL: record[offPRL], RLQ: record[offRLQ],
		Secondaries: record[offSecondaries], SecondarySeq: record[offSecondarySeq], SRL: record[offSRL],
		Blocks: f.order.Uint64(record[offBlocks:]), ArrayBlocks: f.order.Uint64(record[offArrayBlocks:]),
	}

	for i := 0; i < elements && len(c.places) < int(c.Primaries); i++ {
		refnum := f.order.Uint32(record[offRefnums+4*i:])
		if refnum == none32 {
			continue // not a place of a member at all
		}

		c.places = append(c.places, i)
		c.Refnums = append(c.Refnums, refnum)
		c.Offsets = append(c.Offsets, f.order.Uint64(record[offRefnums+4*elements+8*i:]))
	}

	if c.Primaries < 1 || len(c.places) < int(c.Primaries) {
		return nil, fmt.Errorf("config record: %d of %d members", len(c.places), c.Primaries)
	}

	return c, nil
}
