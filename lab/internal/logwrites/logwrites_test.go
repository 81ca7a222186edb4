package logwrites

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// record writes a log by having the real QEMU do known requests.
func record(t *testing.T, commands ...string) (log *Log, content []byte) {
	t.Helper()

	dir := t.TempDir()
	disk, path := filepath.Join(dir, "disk"), filepath.Join(dir, "log")

	for _, name := range []string{disk, path} {
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}

	if err := os.Truncate(disk, 1<<20); err != nil {
		t.Fatal(err)
	}

	argv := []string{"--image-opts", "-t", "writeback", "-d", "unmap"}
	for _, c := range commands {
		argv = append(argv, "-c", c)
	}

	argv = append(argv, fmt.Sprintf("driver=blklogwrites,file.driver=file,file.filename=%s,file.discard=unmap,"+
		"log.driver=file,log.filename=%s", disk, path))
	if out, err := exec.CommandContext(t.Context(), "qemu-io", argv...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-io: %v: %s", err, out)
	}

	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	if log, err = Read(bytes.NewReader(raw), int64(len(raw))); err != nil {
		t.Fatal(err)
	}

	if content, err = os.ReadFile(disk); err != nil {
		t.Fatal(err)
	}

	return log, content
}

// drawn shows entries as the tests write them.
func (l *Log) drawn() string {
	var all []string

	for _, e := range l.entries {
		word := "write"

		switch {
		case e.flush():
			word = "flush"
		case e.discard():
			word = "discard"
		}

		all = append(all, fmt.Sprintf("%s %d+%d", word, e.sector, e.sectors))
	}

	return strings.Join(all, ", ")
}

// TestReadsWhatQEMUWrites checks each kind of request as QEMU logs it.
func TestReadsWhatQEMUWrites(t *testing.T) {
	log, content := record(t, "write -P 1 0 4k", "write -P 2 8k 512", "flush", "discard 0 4k", "write -f -P 3 16k 1k",
		"write -z 32k 4k")

	if !log.Whole() {
		t.Error("the log has a hole")
	}

	// A write with FUA is one and then a flush. (QEMU leaves that flush out
	// where nothing else was written since the last one. The lab's disks do not
	// offer FUA, so that guests flush by themselves.)
	want := "write 0+8, write 16+1, flush 0+0, discard 0+8, write 32+2, flush 0+0, write 64+8"
	// qemu-io flushes when it ends.
	if got := strings.TrimSuffix(log.drawn(), ", flush 0+0"); got != want {
		t.Errorf("log is %s, want %s", got, want)
	}

	disk := make(memory, 1<<20)
	if _, err := log.Replay(disk, 512, rand.New(rand.NewPCG(1, 1))); err != nil {
		t.Fatal(err)
	}

	if !bytes.Equal(disk, content) {
		t.Error("the replayed disk is not what QEMU left")
	}
}

type memory []byte

func (m memory) WriteAt(p []byte, at int64) (int, error) { return copy(m[at:], p), nil }

// draw makes a log by hand: each word is a request, w a write of one page, W one
// with FUA, d a discard, and f a flush. Write i has the byte i+1 in page i.
func draw(t *testing.T, requests string) *Log {
	t.Helper()

	const sectors = 8

	raw := make([]byte, SectorSize)
	binary.LittleEndian.PutUint64(raw, magic)
	binary.LittleEndian.PutUint32(raw[24:], SectorSize)

	for i, r := range requests {
		header := make([]byte, SectorSize)
		binary.LittleEndian.PutUint64(header, uint64(i*sectors))
		binary.LittleEndian.PutUint64(header[8:], sectors)

		data := bytes.Repeat([]byte{byte(i + 1)}, sectors*SectorSize)

		switch r {
		case 'f':
			header, data = make([]byte, SectorSize), nil
			header[16] = flagFlush
		case 'W':
			header[16] = flagFUA
		case 'd':
			header[16], data = flagDiscard, nil
		}

		raw = append(append(raw, header...), data...)
	}

	log, err := Read(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}

	if !log.Whole() {
		t.Errorf("the log of %s has a hole", requests)
	}

	return log
}

// TestReadSeesHole has a log in which the second entry is not written yet and
// the third one is.
func TestReadSeesHole(t *testing.T) {
	raw := make([]byte, 4*SectorSize)
	raw[SectorSize+16], raw[3*SectorSize+16] = flagFlush, flagFlush

	log, err := Read(bytes.NewReader(raw), int64(len(raw)))
	if err != nil || log.Whole() || len(log.entries) != 1 {
		t.Errorf("Read() = %+v, %v, want one entry before a hole", log, err)
	}

	raw[2*SectorSize+8] = 2 // of which only one is there

	log, err = Read(bytes.NewReader(raw), int64(len(raw)))
	if err != nil || log.Whole() || len(log.entries) != 1 {
		t.Errorf("Read() = %+v, %v, want one entry before one that is not complete", log, err)
	}
}

// TestReplay checks over many seeds that what was flushed is never lost, that
// everything else is lost at times, and that a torn write is torn between
// sectors.
func TestReplay(t *testing.T) {
	const pages = 6

	log := draw(t, "wwfwWw")

	var lost, torn [pages]int

	for seed := range uint64(200) {
		disk := make(memory, pages*4096)

		cut, err := log.Replay(disk, 512, rand.New(rand.NewPCG(seed, 0)))
		if err != nil {
			t.Fatal(err)
		}

		if cut.Requests != pages || cut.Unflushed != 3 {
			t.Fatalf("Replay() = %+v", cut)
		}

		for i := range pages {
			page := disk[i*4096:][:4096]

			switch count := bytes.Count(page, []byte{byte(i + 1)}); {
			case count == 0:
				lost[i]++
			case count < 4096:
				torn[i]++

				if count%SectorSize != 0 || cut.Torn != count/SectorSize {
					t.Errorf("seed %d: page %d has %d bytes, cut is %+v", seed, i, count, cut)
				}
			}
		}
	}

	for i, may := range []bool{false, false, true, true, false, true} { // page 2 is the flush, and holds nothing
		if may != (lost[i] > 0) {
			t.Errorf("page %d was lost with %d of 200 seeds", i, lost[i])
		}
	}

	if torn[5] == 0 || slices.Max(torn[:5]) > 0 {
		t.Errorf("pages were torn %v times, want only the last", torn)
	}
}

func TestReplayTearsBetweenLargeSectors(t *testing.T) {
	log := draw(t, "w") // one sector of such a disk

	for seed := range uint64(20) {
		cut, err := log.Replay(make(memory, 4096), 4096, rand.New(rand.NewPCG(seed, 0)))
		if err != nil || cut.Torn != 0 {
			t.Errorf("Replay() = %+v, %v, want nothing torn", cut, err)
		}
	}
}

func TestReadRejects(t *testing.T) {
	entry := func(sectors, flags uint64) []byte {
		raw := make([]byte, 3*SectorSize)
		binary.LittleEndian.PutUint64(raw[SectorSize+8:], sectors)
		binary.LittleEndian.PutUint64(raw[SectorSize+16:], flags)

		return raw
	}
	super := make([]byte, SectorSize)
	super[0] = 1

	for _, tt := range []struct {
		raw  []byte
		want string
	}{
		{super, "magic 0x1"},
		{entry(1<<62, 0), "entry 0: 4611686018427387904 sectors"},
		{entry(1<<63, 0), "entry 0: -9223372036854775808 sectors"},
		{entry(1, 16), "entry 0: flags 0x10"},
	} {
		_, err := Read(bytes.NewReader(tt.raw), int64(len(tt.raw)))
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Read() = %v, want %q", err, tt.want)
		}
	}
}
