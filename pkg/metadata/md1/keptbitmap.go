package md1

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"

	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// pageSize is that in which md writes a bitmap, and in which its blocks are
// counted.
const pageSize = 4096

// keptBitmap is the internal bitmap of a running array. It is kept once somebody
// has asked for it.
//
// All copies of it are alike, on every member that has a slot. Its superblock
// is written before those of the members and with their event count, so that
// md believes it when it finds it.
type keptBitmap struct {
	keeper *keeper
	header bitmap
	info   metadata.BitmapInfo
	image  []byte // all of it, in whole pages; the superblock is filled in when it is written
	stale  []byte // the first page, of a bitmap that md must not believe
	kept   bool
	writes []metadata.Write
}

// newKeptBitmap returns the bitmap that header is the superblock of, every bit
// set. Preconditions: header is valid for sectors.
func newKeptBitmap(k *keeper, header *bitmap, sectors raid.Sectors) *keptBitmap {
	b := &keptBitmap{keeper: k, header: *header, info: header.info(sectors), stale: make([]byte, pageSize)}
	b.resize()

	for i := range b.bits() {
		b.bits()[i] = 0xff
	}

	return b
}

// resize makes the image one of clear bits, as large as info says.
func (b *keptBitmap) resize() {
	bytes := b.bytes()
	b.image = make([]byte, (bytes+pageSize-1)/pageSize*pageSize)
}

func (b *keptBitmap) bytes() int64 { return bitmapBytes(b.info.Sectors, b.info.Chunk) }
func (b *keptBitmap) bits() []byte { return b.image[bitmapHeaderSize:b.bytes()] }

// Info implements [metadata.Bitmap].
func (b *keptBitmap) Info() metadata.BitmapInfo { return b.info }

// Bits implements [metadata.Bitmap].
func (b *keptBitmap) Bits() []byte { return b.bits() }

// Blocks implements [metadata.Bitmap].
func (b *keptBitmap) Blocks() (size, skip int) { return pageSize, bitmapHeaderSize }

// SetCleared implements [metadata.Bitmap].
func (b *keptBitmap) SetCleared(events uint64) { b.info.Cleared = events }

// Write implements [metadata.Bitmap].
func (b *keptBitmap) Write(block int) []metadata.Write {
	b.writes = b.writes[:0]
	if block == 0 {
		b.fill()
	}

	for i, m := range b.keeper.members {
		if m != nil && m.slotted {
			b.writes = append(b.writes, b.write(metadata.MemberID(i), m, block))
		}
	}

	return b.writes
}

// write returns the write of a block to a member.
func (b *keptBitmap) write(id metadata.MemberID, m *member, block int) metadata.Write {
	data := b.image[block*pageSize:][:pageSize]

	// What lies behind the last page may be somebody else's.
	if rest := b.bytes() - int64(block)*pageSize; rest < pageSize {
		whole := int64(max(m.block, raid.SectorSize))
		data = data[:(rest+whole-1)/whole*whole]
	}

	return metadata.Write{Member: id, Sector: m.bitmapAt + raid.Sectors(block*pageSize/raid.SectorSize), Data: data}
}

// fill makes the superblock in the image say what info does.
func (b *keptBitmap) fill() {
	le := binary.LittleEndian
	h := &b.header

	le.PutUint64(h[offBitmapEvents:], b.info.Events)
	le.PutUint64(h[offBitmapEventsCleared:], b.info.Cleared)
	le.PutUint64(h[offBitmapSyncSize:], uint64(b.info.Sectors))
	le.PutUint32(h[offBitmapState:], h.state()&^(bitmapStale|bitmapWriteError))
	le.PutUint32(h[offBitmapChunk:], uint32(b.info.Chunk.Bytes()))
	copy(b.image, h[:])
}

// record appends to the stages of a record the writes that make the bitmap on
// each member with a slot say what the array does. Where it says something
// else altogether it is made stale first: a crash between its blocks would
// leave bits behind that mean nothing.
func (b *keptBitmap) record() (stages [3][]metadata.Write) {
	k := b.keeper
	b.info.Events, b.info.Stale = k.events, false
	// md would set it back as well if it lost the last record.
	b.info.Cleared = min(b.info.Cleared, k.events)
	b.fill()

	k.bitmapStale, k.bitmapBody, k.bitmapHead = k.bitmapStale[:0], k.bitmapBody[:0], k.bitmapHead[:0]

	for i, m := range k.members {
		if m == nil {
			continue
		}

		if !m.slotted {
			m.hasBitmap = false // it misses what is written from now on

			continue
		}

		id := metadata.MemberID(i)

		if !m.hasBitmap {
			w := b.write(id, m, 0)
			copy(b.stale, b.image)
			clear(b.stale[offBitmapEvents : offBitmapEventsCleared+8])
			w.Data = b.stale[:len(w.Data)]
			k.bitmapStale = append(k.bitmapStale, w)

			for block := 1; block*pageSize < len(b.image); block++ {
				k.bitmapBody = append(k.bitmapBody, b.write(id, m, block))
			}

			m.hasBitmap = true
		}

		k.bitmapHead = append(k.bitmapHead, b.write(id, m, 0))
	}

	return [...][]metadata.Write{k.bitmapStale, k.bitmapBody, k.bitmapHead}
}

// Rechunk implements [metadata.Bitmap].
func (b *keptBitmap) Rechunk(chunk raid.Sectors) error {
	const chunkMin = 4096 / raid.SectorSize // as mdadm has it

	if chunk < chunkMin || chunk.Bytes() > math.MaxInt32 || bits.OnesCount64(uint64(chunk)) != 1 {
		return fmt.Errorf("md1: a bitmap chunk of %d sectors is no power of two of at least %d", chunk, chunkMin)
	}

	bytes := bitmapBytes(b.info.Sectors, chunk)
	if bytes > bitmapHeaderSize+bitmapBytesMax {
		return fmt.Errorf("md1: a bitmap of %d bytes exceeds %d", bytes, bitmapHeaderSize+bitmapBytesMax)
	}

	for _, m := range b.keeper.members {
		if m != nil && m.bitmapRoom < bytes {
			return fmt.Errorf("md1: a bitmap of %d bytes has no room in %d", bytes, m.bitmapRoom)
		}
	}

	b.reshape(b.info.Sectors, chunk)

	return nil
}

// reshape makes it a bitmap of sectors in chunks of the size given, and has all
// of it written. A bit is set that covers a sector of one that was, or one that
// is new.
func (b *keptBitmap) reshape(sectors, chunk raid.Sectors) {
	old, was := b.bits(), b.info
	b.info.Sectors, b.info.Chunk = sectors, chunk
	b.resize()

	mark := func(from, to raid.Sectors) {
		for n := from / chunk; n*chunk < min(to, sectors); n++ {
			b.bits()[n/8] |= 1 << (n % 8)
		}
	}

	for c := range raid.Sectors(len(old)) * 8 {
		if old[c/8]&(1<<(c%8)) != 0 {
			mark(c*was.Chunk, min((c+1)*was.Chunk, was.Sectors))
		}
	}

	mark(was.Sectors, sectors)

	for _, m := range b.keeper.members {
		if m != nil {
			m.hasBitmap = false
		}
	}
}

// chunkFor returns the chunk with which a bitmap of sectors fits into the room
// that there is on every member, the one that there is if it does.
func (b *keptBitmap) chunkFor(sectors raid.Sectors) (raid.Sectors, error) {
	room := int64(bitmapHeaderSize + bitmapBytesMax)

	for _, m := range b.keeper.members {
		if m != nil {
			room = min(room, m.bitmapRoom)
		}
	}

	chunk := b.info.Chunk
	for bitmapBytes(sectors, chunk) > room {
		if chunk *= 2; chunk.Bytes() > math.MaxInt32 {
			return 0, fmt.Errorf("no bitmap of %d sectors fits into %d bytes", sectors, room)
		}
	}

	return chunk, nil
}

// placeBitmap notes where the bitmap of a member lies, if it has room for it.
// Preconditions: raw was checked.
func (m *member) placeBitmap(raw *Raw, src metadata.Source) {
	m.bitmapAt, m.bitmapRoom = bitmapPlace(raw), 0

	if bitmapFits(raw, src.Size, raid.SectorSize, src.Block) == nil {
		block := int64(max(src.Block, raid.SectorSize))
		m.bitmapRoom = (bitmapEnd(raw, src.Size) - m.bitmapAt).Bytes() / block * block
	}
}

// loadBitmap finds the array's bitmap on its members: that of one which was in
// sync by the last record and has it as new as that. If there is none, it is
// one with every bit set. Members that have another one get it by the next
// Record that gives them a slot.
func (k *keeper) loadBitmap(raws []*Raw, members []metadata.Attachment) {
	sectors := syncSectors(k.like)
	if k.bitmap == nil || k.bitmap.valid(sectors) != nil {
		return
	}

	bytes := bitmapBytes(sectors, k.bitmap.chunkSectors())
	for i, m := range k.members {
		if m.placeBitmap(k.inArray(raws[i]), members[i].Source); m.bitmapRoom < bytes {
			return // md could not keep it there either
		}
	}

	k.intent = newKeptBitmap(k, k.bitmap, sectors)

	if !k.findBits(raws, members) {
		k.intent.info.Stale = true
		k.intent.info.Cleared = k.like.Events

		return
	}

	for i, a := range members {
		found, err := k.intent.read(k.inArray(raws[i]), a.Source)
		k.members[i].hasBitmap = err == nil && sameBitmap(found, k.intent.image[:k.intent.bytes()])
	}
}

// findBits has the bits read from the members that md would believe one of, and
// reports whether there are any. What is set on one of them is set: the write of
// a bit may have failed on the others, and nobody had recorded that yet.
func (k *keeper) findBits(raws []*Raw, members []metadata.Attachment) (found bool) {
	b := k.intent

	for i, raw := range raws {
		_, slotted := k.like.role(raw.DevNumber).Slot()
		if !slotted || raw.FeatureMap&FeatureRecoveryOffset != 0 || raw.DevNumber != uint32(k.members[i].number) {
			continue
		}

		copied, err := b.read(k.inArray(raw), members[i].Source)
		if err != nil {
			continue
		}

		header := bitmap(copied[:bitmapHeaderSize])
		info := header.info(b.info.Sectors)

		valid := header.valid(b.info.Sectors) == nil && info.Chunk == b.info.Chunk
		if !valid || info.Stale || info.Events < k.like.Events {
			continue
		}

		if !found {
			b.header, b.info, found = header, info, true
			copy(b.image, copied)
		}

		for i, bits := range copied[bitmapHeaderSize:] {
			b.bits()[i] |= bits
		}

		b.info.Cleared = max(b.info.Cleared, info.Cleared)
	}

	return found
}

// read reads what a member has for a bitmap.
func (b *keptBitmap) read(raw *Raw, src metadata.Source) ([]byte, error) {
	if _, err := readBitmap(raw, src); err != nil {
		return nil, err
	}

	buf := make([]byte, b.bytes())
	if n, err := src.ReadAt(buf, bitmapPlace(raw).Bytes()); n < len(buf) {
		return nil, fmt.Errorf("read %d bytes at sector %d: %w", len(buf), bitmapPlace(raw), err)
	}

	return buf, nil
}

// sameBitmap reports whether two bitmaps are alike but for what a record that
// was cut off explains.
func sameBitmap(a, b []byte) bool {
	return bytes.Equal(a[offBitmapSyncSize:], b[offBitmapSyncSize:])
}

// Bitmap implements [metadata.Keeper]. An array whose bitmap nobody asks for is
// recorded with one that md does not believe.
func (k *keeper) Bitmap() metadata.Bitmap {
	if k.intent == nil {
		return nil
	}

	k.intent.kept = true

	return k.intent
}
