package guard

import (
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// TestOffset finds members also where the kernel has them in unions and structs without a
// name, and not within others.
func TestOffset(t *testing.T) {
	word := &btf.Int{Name: "u64", Size: 8}
	within := &btf.Struct{Size: 16, Members: []btf.Member{{Name: "a", Type: word}, {Name: "b", Type: word, Offset: 64}}}
	members := []btf.Member{
		{Name: "first", Type: word},
		{Name: "named", Type: within, Offset: 64},
		{Type: &btf.Union{Size: 16, Members: []btf.Member{
			{Name: "u", Type: word},
			{Type: &btf.Const{Type: within}},
		}}, Offset: 192},
		{Name: "last", Type: word, Offset: 320},
	}

	for name, want := range map[string]uint32{"first": 0, "named": 8, "u": 24, "a": 24, "b": 32, "last": 40} {
		if got, found := offset(members, name); !found || got != want {
			t.Errorf("%s is at %d, %v, want %d", name, got, found, want)
		}
	}

	if at, found := offset(members, "none"); found {
		t.Errorf("none is at %d", at)
	}
}

// TestParse reads what the program writes.
func TestParse(t *testing.T) {
	record := make([]byte, recordSize)
	binary.NativeEndian.PutUint64(record, 1234<<32|1235)
	binary.NativeEndian.PutUint32(record[recordDev:], number(unix.Mkdev(4095, 1048575)))
	copy(record[recordComm:], "dd")

	want := Refusal{Process: 1234, Command: "dd", Device: "4095:1048575"}
	if got, err := parse(record); err != nil || got != want {
		t.Errorf("parse() = %+v, %v, want %+v", got, err, want)
	}

	if _, err := parse(record[1:]); err == nil {
		t.Error("a record that is too short was read")
	}
}

// TestServiceFits: the name that the program compares ends within what it reads.
func TestServiceFits(t *testing.T) {
	if len(service) >= nameSize || nameSize%8 != 0 {
		t.Errorf("%q has %d bytes, of %d", service, len(service), nameSize)
	}
}
