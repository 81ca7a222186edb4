package crashlog_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"raid-assembler/pkg/engine/crashlog"
	"raid-assembler/pkg/engine/uring"
	"raid-assembler/pkg/raid"
)

const (
	entries = 8
	slots   = 5
	block   = 4096
	blocks  = 64
)

// disk is what of a slot is written.
type disk map[raid.Sectors]string

// unflushed is where a disk notes that it may lose what was written.
const unflushed = -1

// Write implements [crashlog.Target].
func (d disk) Write(p []byte, at raid.Sectors) error {
	d[at], d[unflushed] = string(p), ""

	return nil
}

// Flush implements [crashlog.Target].
func (d disk) Flush() error {
	delete(d, unflushed)

	return nil
}

// inOrder does all, until one fails.
func inOrder(each []func() error) error {
	for _, do := range each {
		if err := do(); err != nil {
			return err
		}
	}

	return nil
}

// redo returns what a log has done again, by slot.
func redo(t *testing.T, memory []byte) []disk {
	t.Helper()

	left, err := crashlog.Read(bytes.NewReader(memory))
	if err != nil {
		t.Fatal(err)
	}

	disks := make([]disk, slots)
	targets := make(map[raid.Slot][]crashlog.Target)

	for i := range disks {
		disks[i] = make(disk)
		targets[raid.Slot(i)] = []crashlog.Target{disks[i]}
	}

	if err := left.Redo(1<<20, targets, inOrder); err != nil {
		t.Fatal(err)
	}

	return disks
}

// memory is a log's, with blocks to write from after its head.
func memory(t *testing.T) (all []byte, part func(i int) []byte, log *crashlog.Log) {
	t.Helper()

	head := (crashlog.Size(entries, slots) + block - 1) / block * block
	all = make([]byte, head+blocks*block)
	part = func(i int) []byte { return all[head+i*block : head+(i+1)*block : head+(i+1)*block] }

	log, err := crashlog.New(all[:head], entries, slots, func(p []byte) int {
		for i := range blocks {
			for at := 0; at < block; at += raid.SectorSize {
				if &part(i)[at] == &p[0] {
					return head + i*block + at
				}
			}
		}

		t.Fatal("memory that is not of the log")

		return 0
	})
	if err != nil {
		t.Fatal(err)
	}

	return all, part, log
}

// TestLog has writes begin, move and end in any order, and compares what is done again
// with what was going on.
func TestLog(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	all, part, log := memory(t)
	going := make(map[int]map[raid.Slot]int) // by number: which block each slot is written from
	at := make(map[int]raid.Range)

	for range 3000 {
		id := rng.IntN(entries)

		switch {
		case going[id] == nil:
			data := make([][]byte, slots)
			going[id] = make(map[raid.Slot]int)
			n := 1 + rng.IntN(block/raid.SectorSize)
			from := raid.Sectors(1000*id + rng.IntN(900))
			at[id] = raid.Range{From: from, To: from + raid.Sectors(n)}

			for slot := range raid.Slot(slots) {
				if rng.IntN(2) == 0 {
					i := id*slots + int(slot)
					going[id][slot] = i
					binary.LittleEndian.PutUint64(part(i), rng.Uint64())
					data[slot] = part(i)[:n*raid.SectorSize]
				}
			}

			log.Begin(id, at[id], data)
		case rng.IntN(3) == 0:
			for slot, i := range going[id] {
				to := entries*slots + rng.IntN(blocks-entries*slots)
				if slices.ContainsFunc(slices.Collect(maps.Values(going)), func(w map[raid.Slot]int) bool {
					return slices.Contains(slices.Collect(maps.Values(w)), to)
				}) {
					continue
				}

				copy(part(to), part(i))
				log.Move(part(i), part(to))
				clear(part(i)) // it is used anew
				going[id][slot] = to
			}
		default:
			log.End(id)
			delete(going, id)
		}

		want := make([]disk, slots)
		for slot := range want {
			want[slot] = make(disk)

			for id, w := range going {
				if i, ok := w[raid.Slot(slot)]; ok {
					want[slot][at[id].From] = string(part(i)[:(at[id].To - at[id].From).Bytes()])
				}
			}
		}

		if diff := cmp.Diff(want, redo(t, all)); diff != "" {
			t.Fatal(diff)
		}
	}
}

// TestTells: a log is believed of an array that nobody used since.
func TestTells(t *testing.T) {
	all, _, log := memory(t)

	read := func() *crashlog.Left {
		left, err := crashlog.Read(bytes.NewReader(all))
		if err != nil {
			t.Fatal(err)
		}

		return left
	}

	if log.Events(7); read().Tells(7) {
		t.Error("believed, although redundancy was not right")
	}

	log.Trust(true)

	for events, want := range map[uint64]bool{5: false, 6: true, 7: true, 8: false} {
		if got := read().Tells(events); got != want {
			t.Errorf("with event count %d: %v, want %v", events, got, want)
		}
	}

	if read().Recorded() {
		t.Error("superblocks of the engine are on disk, and it wrote none")
	}

	if log.Recorded(); !read().Recorded() {
		t.Error("superblocks of the engine are not on disk")
	}
}

// TestReadHostile reads what is no log.
func TestReadHostile(t *testing.T) {
	all, _, _ := memory(t)

	for name, memory := range map[string][]byte{
		"nothing": nil, "zeroes": make([]byte, 1<<16), "the head alone": all[:64],
		"another version": append([]byte("RACRASH9"), all[8:]...),
		"many slots":      slices.Concat(all[:16], []byte{0xff, 0xff, 0xff, 0xff}, all[20:]),
		"many writes":     slices.Concat(all[:8], []byte{0xff, 0xff, 0xff, 0xff, 0xff}, all[13:]),
	} {
		if _, err := crashlog.Read(bytes.NewReader(memory)); !errors.Is(err, crashlog.ErrUnreadable) {
			t.Errorf("%s: %v, want %v", name, err, crashlog.ErrUnreadable)
		}
	}
}

// TestRedoElsewhere: what does not lie in the component is not written.
func TestRedoElsewhere(t *testing.T) {
	all, part, log := memory(t)
	data := make([][]byte, slots)
	data[1] = part(0)[:raid.SectorSize]
	log.Begin(0, raid.Range{From: 99, To: 100}, data)

	left, err := crashlog.Read(bytes.NewReader(all))
	if err != nil {
		t.Fatal(err)
	}

	d := make(disk)
	targets := map[raid.Slot][]crashlog.Target{1: {d}}

	if err := left.Redo(99, targets, inOrder); !errors.Is(err, crashlog.ErrUnreadable) || len(d) > 0 {
		t.Errorf("%d writes, error %v; want none, and %v", len(d), err, crashlog.ErrUnreadable)
	}

	if err := left.Redo(100, targets, inOrder); err != nil || len(d) != 1 {
		t.Errorf("%d writes, error %v; want one", len(d), err)
	}
}

// TestKill kills a process while it writes its log, again and again: each write that
// the log has is whole, wherever the process was.
func TestKill(t *testing.T) {
	if os.Getenv("CRASHLOG_VICTIM") != "" {
		victim()
	}

	found := 0

	for range 40 {
		file, err := uring.SharedMemory("log", 1<<20)
		if err != nil {
			t.Fatal(err)
		}

		cmd := exec.Command(os.Args[0], "-test.run", "^TestKill$")
		cmd.Env = append(os.Environ(), "CRASHLOG_VICTIM=yes")
		cmd.ExtraFiles = []*os.File{file}

		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}

		var left *crashlog.Left
		for left == nil { // until it writes
			left, _ = crashlog.Read(file)
		}

		time.Sleep(rand.N(20 * time.Millisecond))

		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}

		_ = cmd.Wait() // it was killed

		all := make([]byte, 1<<20)
		if _, err := file.ReadAt(all, 0); err != nil {
			t.Fatal(err)
		}

		for slot, d := range redo(t, all) {
			for at, data := range d {
				found++

				if want := strings.Repeat(string([]byte{pattern(at, slot)}), len(data)); data != want {
					t.Fatalf("slot %d is to hold %x at %d, want %x", slot, data[:8], at, want[:8])
				}
			}
		}

		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}

	if found < 20 {
		t.Errorf("%d writes were cut off in all, want 20 or more", found)
	}
}

func pattern(at raid.Sectors, slot int) byte { return byte(int(at)*7 + slot*31 + 1) }

// victim logs writes until it is killed.
func victim() {
	arena, err := uring.NewArena(uring.ArenaConfig{Size: 1 << 20, File: os.NewFile(3, "log")})
	if err != nil {
		panic(err)
	}

	head, _ := arena.Block(crashlog.Size(entries, slots))

	log, err := crashlog.New(head, entries, slots, arena.Offset)
	if err != nil {
		panic(err)
	}

	parts := make([][]byte, entries*slots)
	for i := range parts {
		parts[i], _ = arena.Block(raid.SectorSize)
	}

	for n := 0; ; n++ {
		id := n % entries
		at := raid.Range{From: raid.Sectors(n % 1000), To: raid.Sectors(n%1000 + 1)}
		data := make([][]byte, slots)

		for slot := range data {
			data[slot] = parts[id*slots+slot]
			for i := range data[slot] {
				data[slot][i] = pattern(at.From, slot)
			}
		}

		log.Begin(id, at, data)

		if n >= entries/2 {
			log.End((n - entries/2) % entries)
		}
	}
}

// store is a [crashlog.Store].
type store map[string]*os.File

func (s store) Keep(name string, file *os.File) error {
	s[name] = file

	return nil
}

func (s store) Drop(name string) error {
	if s[name] == nil {
		return errors.New("there is no such log")
	}

	defer delete(s, name)

	return s[name].Close()
}

func (s store) All() map[string]*os.File { return s }

// content reads the first bytes of a file.
func content(t *testing.T, file *os.File) string {
	t.Helper()

	text := make([]byte, 3)
	if _, err := file.ReadAt(text, 0); err != nil {
		t.Fatal(err)
	}

	return string(text)
}

// TestKeeper hands files over and takes them back.
func TestKeeper(t *testing.T) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}

	var ends [2]*net.UnixConn

	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "end")

		conn, err := net.FileConn(file)
		if err = errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}

		ends[i] = conn.(*net.UnixConn)
	}

	kept := make(store)
	done := make(chan error, 1)

	turn := make(chan struct{})

	go func() { done <- crashlog.Serve(ends[1], kept, func() { <-turn }) }()

	keeper := crashlog.NewKeeper(ends[0])

	for _, text := range []string{"one", "two"} {
		file, err := uring.SharedMemory(text, block)
		if err != nil {
			t.Fatal(err)
		}

		if _, err := file.WriteAt([]byte(text), 0); err != nil {
			t.Fatal(err)
		}

		if err := errors.Join(keeper.Keep(text, file), file.Close()); err != nil {
			t.Fatal(err)
		}
	}

	if err := keeper.Drop("one"); err != nil {
		t.Error(err)
	}

	if err := keeper.Drop("three"); err == nil || !strings.Contains(err.Error(), "no such log") {
		t.Errorf("error %v, want the shelf's", err)
	}

	time.AfterFunc(50*time.Millisecond, func() { close(turn) })

	all, err := keeper.All()

	select {
	case <-turn:
	default:
		t.Error("it is told before its turn")
	}

	if err != nil || len(all) != 1 || content(t, all["two"]) != "two" {
		t.Errorf("all are %v, %v; want two", all, err)
	}

	if err := keeper.Drop("three"); err == nil {
		t.Error("there is no answer any more")
	}

	if err := ends[0].Close(); err != nil {
		t.Fatal(err)
	}

	if err := <-done; err != nil {
		t.Errorf("the end of an engine is an error: %v", err)
	}

	if len(kept) != 1 || content(t, kept["two"]) != "two" {
		t.Errorf("kept: %v, want two", kept)
	}
}

// TestNoAllocation: the log is in the path of requests.
func TestNoAllocation(t *testing.T) {
	_, part, log := memory(t)
	data := make([][]byte, slots)
	data[1], data[3] = part(0), part(1)

	if n := testing.AllocsPerRun(100, func() {
		log.Begin(3, raid.Range{From: 8, To: 16}, data)
		log.Trust(true)
		log.Events(3)
		log.End(3)
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}
