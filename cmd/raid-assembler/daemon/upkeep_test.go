package daemon

import (
	"context"
	"strings"
	"testing"
	"time"

	"raid-assembler/pkg/api"
	"raid-assembler/pkg/raid"
)

func (d *Daemon) upkeepOf(verb string) func(context.Context, api.ChangeParameters) (api.ChangeReply, error) {
	return map[string]func(context.Context, api.ChangeParameters) (api.ChangeReply, error){
		"check": d.check, "repair": d.repair, "idle": d.idle, "replace": d.replace, "limit": d.limit, "bitmap": d.bitmap,
		"access": d.access, "grow": d.grow,
	}[verb]
}

func syncing(action raid.SyncAction) func(a *api.Array) {
	return func(a *api.Array) { a.Sync = &api.Sync{Action: string(action)} }
}

func inState(s raid.ArrayState) func(a *api.Array) {
	return func(a *api.Array) { a.State = string(s) }
}

// TestUpkeep checks what the engine is asked, and what it is not.
func TestUpkeep(t *testing.T) {
	const uuid = "64000000:00000000:00000000:00000000"

	for _, tt := range []struct {
		verb    string
		name    string
		level   raid.Level
		tweak   func(a *api.Array)
		p       api.ChangeParameters
		asks    string // of the engine, or nothing
		refused string // a piece of why it is not asked
	}{
		{verb: "check", asks: "Sync {Array:" + uuid + " Action:check From:0 To:0 Reason:asked for by the operator}"},
		{
			verb: "check", name: "a part", p: api.ChangeParameters{From: 4096, To: 8192},
			asks: "Sync {Array:" + uuid + " Action:check From:4096 To:8192 Reason:asked for by the operator}",
		},
		{verb: "check", name: "no part", p: api.ChangeParameters{From: 8192, To: 4096}, refused: "there is nothing"},
		{verb: "check", name: "raid0", level: raid.Level0, refused: "data is a raid0, which has nothing to compare"},
		{verb: "check", name: "broken", tweak: inState(raid.Broken), refused: "data is broken"},
		{verb: "check", name: "busy", tweak: syncing(raid.Recover), refused: "a recover of data goes on"},
		{
			verb: "check", name: "degraded raid5", level: raid.Level5, tweak: func(a *api.Array) { a.Degraded = 1 },
			refused: "its parity has to stand in for what is missing",
		},
		{verb: "check", name: "read-only", tweak: inState(raid.ReadOnly), refused: "raid-assembler readwrite data first"},
		{verb: "repair", asks: "Sync {Array:" + uuid + " Action:repair"},
		{verb: "repair", name: "read-only", tweak: inState(raid.ReadOnly), refused: "raid-assembler readwrite data first"},
		{verb: "idle", name: "check", tweak: syncing(raid.Check), asks: "Sync {Array:" + uuid + " Action:idle"},
		{verb: "idle", name: "replace", tweak: syncing(raid.Replace), refused: "raid-assembler fail data SUCCESSOR ends that"},
		{verb: "idle", name: "nothing"},
		{verb: "idle", name: "resync", tweak: syncing(raid.Resync), refused: "without which it is not redundant"},
		{
			verb: "replace", name: "by a spare", p: array("data", "/dev/sda"),
			asks: "Replace {Array:" + uuid + " Device:/dev/sda With: Reason",
		},
		{
			verb: "replace", name: "by serials", p: array("data", "data0", "FREE"),
			asks: "Replace {Array:" + uuid + " Device:/dev/sda With:/dev/sdd Reason",
		},
		{
			verb: "replace", name: "by its own spare", p: array("data", "/dev/sda", "/dev/sdc"),
			asks: "Replace {Array:" + uuid + " Device:/dev/sda With:/dev/sdc Reason",
		},
		{verb: "replace", name: "nobody", p: array("data"), refused: "is to be named"},
		{verb: "replace", name: "by itself", p: array("data", "/dev/sda", "/dev/sda"), refused: "is a member of a running array"},
		{verb: "replace", name: "a spare", p: array("data", "/dev/sdc"), refused: "only a member in sync can be copied from"},
		{verb: "replace", name: "no array", p: array("nothing", "/dev/sda"), refused: ""},
		{
			verb: "replace", name: "twice", p: array("data", "/dev/sda"),
			tweak: func(a *api.Array) { a.Members[1].Replaces = true }, refused: "having a member replaced already",
		},
		{
			verb: "replace", name: "without a spare", p: array("data", "/dev/sda"),
			tweak: func(a *api.Array) { a.Members = a.Members[:2] }, refused: "name the device that replaces /dev/sda",
		},
		{
			verb: "limit", p: api.ChangeParameters{Minimum: new(int64(1 << 20)), Maximum: new(int64(1 << 30))},
			asks: "Limit {Array:" + uuid,
		},
		{verb: "limit", name: "the default", p: api.ChangeParameters{Maximum: new(int64(0))}, asks: "Limit {"},
		{verb: "limit", name: "none", refused: "no limit is named"},
		{
			verb: "limit", name: "crossed", p: api.ChangeParameters{Minimum: new(int64(3)), Maximum: new(int64(2))},
			refused: "at least 3 and at most 2 bytes a second cannot be",
		},
		{
			verb: "limit", name: "crossed with what holds", p: api.ChangeParameters{Maximum: new(int64(2))},
			tweak: func(a *api.Array) { a.Limits.Minimum = 3 }, refused: "at least 3 and at most 2",
		},
		{verb: "limit", name: "negative", p: api.ChangeParameters{Minimum: new(int64(-1))}, refused: "cannot be"},
		{
			verb: "bitmap", name: "larger", tweak: marked(4), p: api.ChangeParameters{Chunk: 1 << 20},
			asks: "Bitmap {Array:" + uuid + " Chunk:1048576}",
		},
		{verb: "bitmap", name: "as it is", tweak: marked(1024), p: api.ChangeParameters{Chunk: 1 << 20}},
		{verb: "bitmap", name: "none", p: api.ChangeParameters{Chunk: 1 << 20}, refused: "data has no bitmap"},
		{verb: "bitmap", name: "odd", tweak: marked(4), p: api.ChangeParameters{Chunk: 12 << 10}, refused: "12288 bytes"},
		{
			verb: "bitmap", name: "busy", p: api.ChangeParameters{Chunk: 1 << 20}, refused: "a resync of data goes on",
			tweak: func(a *api.Array) { marked(4)(a); syncing(raid.Resync)(a) },
		},
		{
			verb: "access", name: "read-only", p: api.ChangeParameters{ReadOnly: true},
			asks: "Access {Array:" + uuid + " ReadOnly:true}",
		},
		{verb: "access", name: "writable", tweak: inState(raid.ReadOnly), asks: "Access {Array:" + uuid + " ReadOnly:false}"},
		{verb: "access", name: "read-only already", tweak: inState(raid.ReadOnly), p: api.ChangeParameters{ReadOnly: true}},
		{verb: "access", name: "broken", tweak: inState(raid.Broken), refused: "data is broken"},
		{verb: "grow", name: "raid0", level: raid.Level0, refused: "data is a raid0, which uses all of its members"},
		{verb: "grow", name: "degraded", tweak: func(a *api.Array) { a.Degraded = 1 }, refused: "data is degraded"},
		{verb: "grow", name: "busy", tweak: syncing(raid.Resync), refused: "a resync of data goes on"},
		{verb: "grow", name: "negative", p: api.ChangeParameters{Size: -1}, refused: "-1 bytes are no size"},
		{verb: "grow", name: "read-only", tweak: inState(raid.ReadOnly), refused: "data is readonly"},
	} {
		t.Run(tt.verb+" "+tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				if tt.level == 0 && tt.name != "raid0" {
					tt.level = raid.Level1
				}

				spares := 0
				if tt.level.HasRedundancy() {
					spares = 1
				}

				w.plug(w.set("data", tt.level, 2+int(tt.level)/5, spares)...)
				w.plug(w.disk("FREE"))
				w.tweak = tt.tweak
				w.run()
				w.pass(time.Second)

				if tt.p.Array == "" {
					tt.p.Array = "data"
				}

				dry := tt.p
				dry.DryRun = true

				_, dryErr := w.daemon.upkeepOf(tt.verb)(t.Context(), dry)
				if len(w.asked) > 0 {
					t.Errorf("a dry run asked %q", w.asked)
				}

				out, err := w.daemon.upkeepOf(tt.verb)(t.Context(), tt.p)
				if (err == nil) != (dryErr == nil) {
					t.Errorf("dry run: %v, in earnest: %v", dryErr, err)
				}

				switch {
				case tt.refused != "":
					mustRefuse(t, err, tt.refused)
				case tt.p.Array != "data":
					if err == nil || !strings.Contains(reply(err).Error(), ".NotFound") {
						t.Errorf("error = %v, want that there is no such array", err)
					}
				case err != nil || len(out.Done) != 1 || out.Array == nil:
					t.Errorf("%+v, %v", out, err)
				}

				if got := strings.Join(w.asked, "; "); tt.asks == "" && got != "" || !strings.HasPrefix(got, tt.asks) {
					t.Errorf("the engine was asked %q, want %q", got, tt.asks)
				}
			})
		})
	}
}

// locked changes what the fake engine does while the daemon may ask it.
func (w *world) locked(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()

	change()
}

// TestGrow checks that an array is started again, with so much of each member,
// and that it comes back as it was if that cannot be.
func TestGrow(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.plug(w.set("data", raid.Level5, 3, 1)...)
		w.run()
		w.pass(time.Second)

		if _, err := w.daemon.grow(t.Context(), api.ChangeParameters{Array: "data", DryRun: true}); err != nil || w.starts != 1 {
			t.Errorf("dry run = %v, %d starts", err, w.starts)
		}

		out, err := w.daemon.grow(t.Context(), api.ChangeParameters{Array: "data", Size: 1 << 20})
		if err != nil || out.Array == nil || w.starts != 2 {
			t.Fatalf("grow = %+v, %v, %d starts", out, err, w.starts)
		}

		if grow := w.arrays[raid.UUID{'d'}].GrowTo; grow == nil || *grow != 1<<20 {
			t.Errorf("it was started to grow to %v", grow)
		}

		w.mustBe("data 0:data0:in-sync 1:data1:in-sync 2:data2:in-sync S:data3:spare")

		w.locked(func() {
			w.noGrowth = "there is no room"
		})

		_, err = w.daemon.grow(t.Context(), api.ChangeParameters{Array: "data"})
		mustRefuse(t, err, "there is no room")
		w.pass(time.Second)
		w.mustBe("data 0:data0:in-sync 1:data1:in-sync 2:data2:in-sync S:data3:spare")

		if grow := w.arrays[raid.UUID{'d'}].GrowTo; grow != nil {
			t.Errorf("it came back to grow to %d", *grow)
		}
	})
}

// TestReadOnly checks that the kernel refuses writes before the engine does, and
// takes them again after, or if the engine does not do it.
func TestReadOnly(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.plug(w.set("data", raid.Level1, 2, 0)...)
		w.run()
		w.pass(time.Second)

		p := api.ChangeParameters{Array: "data", ReadOnly: true}
		w.locked(func() {
			w.answer = refused("writes are in flight")
		})

		_, err := w.daemon.access(t.Context(), p)
		mustRefuse(t, err, "writes are in flight")

		if got, asked := w.readOnly["/dev/ublkb0"]; got || !asked {
			t.Errorf("the kernel refuses writes: %v; it was asked: %v", got, asked)
		}

		w.locked(func() {
			w.answer = nil
		})

		if _, err := w.daemon.access(t.Context(), p); err != nil || !w.readOnly["/dev/ublkb0"] {
			t.Errorf("access = %v, the kernel refuses writes: %v", err, w.readOnly["/dev/ublkb0"])
		}

		w.locked(func() {
			w.tweak = inState(raid.ReadOnly)
			p.ReadOnly = false
		})

		if _, err := w.daemon.access(t.Context(), p); err != nil || w.readOnly["/dev/ublkb0"] {
			t.Errorf("access = %v, the kernel refuses writes: %v", err, w.readOnly["/dev/ublkb0"])
		}

		// Likewise if it is started so.
		if _, err := w.daemon.stop(t.Context(), array("data")); err != nil {
			t.Fatal(err)
		}

		p.ReadOnly = true

		if _, err := w.daemon.assemble(t.Context(), p); err != nil || !w.readOnly["/dev/ublkb0"] {
			t.Errorf("assemble = %v, the kernel refuses writes: %v", err, w.readOnly["/dev/ublkb0"])
		}
	})
}

// TestCommandLine checks what the journal says that somebody asked for.
func TestCommandLine(t *testing.T) {
	for _, tt := range []struct {
		verb string
		p    api.ChangeParameters
		want string
	}{
		{"stop", array("data"), "stop data"},
		{"add", api.ChangeParameters{Array: "data", Devices: []string{"a", "b"}, Force: true}, "add data a b --force"},
		{
			"assemble",
			api.ChangeParameters{Array: "data", AcceptLoss: true, Force: true, ReadOnly: true},
			"assemble data --accept-loss --force --readonly",
		},
		{"check", api.ChangeParameters{Array: "data", From: 512, To: 1024}, "check data --from 512 --to 1024"},
		{"bitmap", api.ChangeParameters{Array: "data", Chunk: 4096}, "bitmap data --chunk 4096"},
		{"limit", api.ChangeParameters{Array: "data", Minimum: new(int64), Maximum: new(int64(5))}, "limit data --min 0 --max 5"},
	} {
		if got := commandLine(tt.verb, tt.p); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

// marked has an array have a bitmap of which a bit stands for so much.
func marked(kib int64) func(a *api.Array) {
	return func(a *api.Array) { a.Bitmap = &api.Bitmap{ChunkKiB: kib} }
}
