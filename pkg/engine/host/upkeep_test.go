package host

import (
	"errors"
	"testing"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/api/varlink"
	"raid-assembler/pkg/raid"
)

// TestSectors rounds outwards to whole sectors.
func TestSectors(t *testing.T) {
	for _, tt := range []struct {
		from, to int64
		want     raid.Range
		refused  bool
	}{
		{0, 0, raid.Range{From: 0, To: raid.MaxSectors}, false},
		{4096, 0, raid.Range{From: 8, To: raid.MaxSectors}, false},
		{1000, 1025, raid.Range{From: 1, To: 3}, false},
		{4096, 4096, raid.Range{}, true},
		{4096, 512, raid.Range{}, true},
		{-1, 0, raid.Range{}, true},
		{0, -1, raid.Range{}, true},
	} {
		got, err := sectors(tt.from, tt.to)
		if errors.Is(err, ErrRefused) != tt.refused || err == nil && got != tt.want {
			t.Errorf("sectors(%d, %d) = %v, %v, want %v, refused %v", tt.from, tt.to, got, err, tt.want, tt.refused)
		}
	}
}

// TestUpkeepOfNothing checks that requests about arrays that are not there say
// so, whatever they ask for.
func TestUpkeepOfNothing(t *testing.T) {
	h := New(Config{})

	for name, err := range map[string]error{
		"sync":    h.Sync(api.SyncParameters{Array: "data", Action: "check"}),
		"replace": h.Replace(api.ReplaceParameters{Array: "data", Device: "sda"}),
		"access":  h.Access(api.AccessParameters{Array: "data"}),
		"fail":    h.Fail("data", "sda", ""),
		"remove":  h.Remove("data", "sda", ""),
		"add":     h.Add(api.MemberParameters{Array: "data", Device: "sda"}),
		"stop":    h.Stop(t.Context(), "data"),
	} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s = %v, want that there is no such array", name, err)
		}
	}
}

// TestInterfaceAgrees holds the methods against their description: an engine
// whose do not agree does not start.
func TestInterfaceAgrees(t *testing.T) {
	if _, err := varlink.NewServer(varlink.Service{}, varlink.Options{}, New(Config{}).Interface()); err != nil {
		t.Error(err)
	}
}
