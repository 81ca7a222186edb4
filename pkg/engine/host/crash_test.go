package host

import (
	"bytes"
	"testing"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/engine/crashlog"
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/raid"
)

// TestTold starts a dirty array of which a member is being recovered, after an engine
// has died that left what it was writing, or not.
func TestTold(t *testing.T) {
	for _, tt := range []struct {
		name string
		left func(*crashlog.Log)
		// The event count that another array of its container was started with, which
		// has recorded since; 0 if there is none.
		beside uint64
		want   string
		from   raid.Sectors // where it goes on to recover
	}{
		{"nothing is left", nil, 0, "dirty and degraded", 0},
		{"it was resyncing", func(l *crashlog.Log) { l.Trust(false) }, 0, "dirty and degraded", 0},
		{"somebody used it since", func(l *crashlog.Log) { l.Events(9) }, 0, "dirty and degraded", 0},
		{"all is known", func(*crashlog.Log) {}, 0, "", 64},
		{"the superblocks are older", func(l *crashlog.Log) { l.Events(11) }, 0, "", 64},
		{"the engine itself recorded since", func(l *crashlog.Log) { l.Events(7) }, 7, "", 64},
		{"somebody used it before that", func(l *crashlog.Log) { l.Events(5) }, 7, "dirty and degraded", 0},
		{"somebody used it, and it looks as if not", func(*crashlog.Log) {}, 7, "dirty and degraded", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := candidates()
			for _, c := range all {
				c.sb.ResyncOffset, c.sb.Events = 0, 10
			}

			all[2] = all[2].recovered(64)
			uuid := raid.UUID{7}
			h := New(Config{Left: make(map[raid.UUID]*crashlog.Left)})

			var neighbour *running
			if tt.beside != 0 {
				all[0].sb.EventsShared = true
				neighbour = &running{first: &metadata.Superblock{Events: tt.beside, EventsShared: true}}
			}

			if tt.left != nil {
				memory := make([]byte, crashlog.Size(1, 3))

				l, err := crashlog.New(memory, 1, 3, nil)
				if err != nil {
					t.Fatal(err)
				}

				l.Trust(true)
				l.Events(10)
				l.Recorded()
				tt.left(l)

				if h.cfg.Left[uuid], err = crashlog.Read(bytes.NewReader(memory)); err != nil {
					t.Fatal(err)
				}
			}

			cfg, err := h.plan(all, api.StartParameters{}, h.leftOf(uuid, all[0].sb, neighbour))
			checkRefused(t, err, tt.want)

			if err != nil {
				return
			}

			if m := cfg.Setup.Members[2]; m.State != raid.Recovering || m.Recovered != tt.from {
				t.Errorf("slot 2 is %v from %d on, want recovering from %d on", m.State, m.Recovered, tt.from)
			}

			if cfg.Setup.Resynced != raid.MaxSectors {
				t.Errorf("redundancy is right below %d, want everywhere", cfg.Setup.Resynced)
			}
		})
	}
}
