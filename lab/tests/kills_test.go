package tests

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"raid-assembler/lab"
	"raid-assembler/pkg/api"
	"raid-assembler/pkg/raid"
)

// killed are arrays large enough for file systems, of which one lacks a member.
var killed = []kind{
	{"one", raid.Level1, "", mib(80, 2), "", 1},
	{"five", raid.Level5, "left-symmetric", mib(40, 4), "64", 1},
	{"short", raid.Level5, "left-symmetric", mib(40, 4), "64", 1},
	{"six", raid.Level6, "left-symmetric", mib(40, 5), "64", 2},
}

// number is what a variable of the environment says, or what is usual.
func number(t *testing.T, variable string, usual int) int {
	t.Helper()

	text := os.Getenv(variable)
	if text == "" {
		return usual
	}

	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}

	return n
}

// served are arrays that run, in whatever state.
func served(api.Array) bool { return true }

// TestTortureKills kills the engine again and again, while fio writes to file systems and
// verifies: no error, no byte that differs, and nothing changed that nobody wrote. First
// every half to two seconds, whether it serves yet or not; then as long after all arrays
// are served again. In the end it halts an array's thread, which the guardian finds.
// RAID_LAB_KILLS is how often it kills in each of these ways.
func TestTortureKills(t *testing.T) {
	takesLong(t)

	kills := number(t, "RAID_LAB_KILLS", 200)
	most := time.Duration(kills) * 5 * time.Second

	f := newFleet(t, killed, false)
	f.torture(burden{"kills in the midst of take-overs", kills*3/2 + 5, func() {
		f.MustGo(fmt.Sprintf("for i in $(seq %d); do %s; pkill -KILL %s || true; done",
			kills, aWhile, theEngine)).MustWait(most + patience)
	}}, burden{"kills when all were served", kills*5/2 + 5, func() {
		f.MustGo(fmt.Sprintf(`for i in $(seq %d); do
	%s
	pkill -KILL %s
	for a in $(seq %d); do read -r -t 60 _; done
done < <(journalctl -f -n 0 -o cat RAID_EVENT=ArrayAssembled + RAID_EVENT=ArrayStartedDegraded)`, kills, aWhile, theEngine, len(f.kinds))).MustWait(most + patience)
	}}, burden{"a thread that hung", 30, func() {
		f.MustShell("sleep 5\nset -- $(" + arrayThreads + ")\ntimeout 60 exercise halt $(basename $1)")
	}})

	out := f.MustShell("journalctl -b -o cat RAID_EVENT=EngineDied")
	if !strings.Contains(out, "an array was not served any more") {
		t.Errorf("no word of a thread that hung: %s", out)
	}

	t.Logf("%d engines died of %d kills", strings.Count(out, "the engine died"), 2*kills)
}

// aWhile waits for half a second to two.
const aWhile = "sleep $((RANDOM % 2)).$((RANDOM % 5 + 5))"

// TestTortureRestarts restarts the engine again and again, as an upgrade does, judged as
// by TestTortureKills: each is followed by one of another version, which does not
// understand what this one has left. RAID_LAB_RESTARTS is how often.
func TestTortureRestarts(t *testing.T) {
	takesLong(t)

	restarts := number(t, "RAID_LAB_RESTARTS", 50)
	f := newFleet(t, killed, false)
	f.MustInstall(otherVersion(t))
	f.torture(burden{"restarts", restarts*3 + 25, func() {
		for range restarts {
			f.MustShell(`cp /usr/sbin/raid-engine /root/raid-engine.was
mv /root/raid-engine.next /usr/sbin/raid-engine
mv /root/raid-engine.was /root/raid-engine.next
systemctl restart raid-engine.service`)
			time.Sleep(rand.N(2 * time.Second))
		}
	}})

	if out := f.MustShell("journalctl -b -o cat RAID_EVENT=EngineDied"); out != "" {
		t.Errorf("engines died: %s", out)
	}

	if out := f.MustShell("journalctl -b -o cat -u raid-engine.service"); !strings.Contains(out, "version 2 is not understood") {
		t.Error("both versions understand each other")
	}
}

// otherVersion makes an engine that keeps what it leaves to the next one in another
// version of both formats, as /root/raid-engine.next below the directory that it returns.
func otherVersion(t *testing.T) string {
	t.Helper()

	var (
		dir     = t.TempDir()
		overlay = struct{ Replace map[string]string }{make(map[string]string)}
	)

	for file, change := range map[string][2]string{
		"../../pkg/engine/crashlog/log.go": {`"RACRASH1"`, `"RACRASH2"`},
		"../../pkg/engine/host/served.go":  {"servedVersion = 1", "servedVersion = 2"},
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}

		changed := strings.Replace(string(text), change[0], change[1], 1)
		if changed == string(text) {
			t.Fatalf("%s does not say %s", file, change[0])
		}

		from, err := filepath.Abs(file)
		if err != nil {
			t.Fatal(err)
		}

		overlay.Replace[from] = filepath.Join(dir, filepath.Base(file))
		if err := os.WriteFile(overlay.Replace[from], []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	text, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}

	file, root := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "root")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}

	build := exec.Command("go", "build", "-overlay", file, "-trimpath", "-ldflags", "-s -w",
		"-o", filepath.Join(root, "root/raid-engine.next"), "../../cmd/raid-engine")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")

	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}

	return root
}

// burden is what arrays have to bear while fio writes to them.
type burden struct {
	name    string
	seconds int // that fio writes for
	happens func()
}

// torture makes the arrays, of which one lacks a member, puts file systems on them, and
// has fio write to these while one burden after the other happens. Then it judges all.
func (f *fleet) torture(all ...burden) {
	f.t.Helper()
	f.create()
	f.engineStarts()

	short := func(k kind) bool { return k.name == "short" }
	f.eachOf(short, "set -- $D\nraid-assembler fail $A $2 >/dev/null\nraid-assembler remove $A $2 >/dev/null")
	f.each(mountScript + `
head -c 16M /dev/urandom >/srv/$A/still
sha256sum /srv/$A/still >/run/$A.sum
sync`)

	for _, b := range all {
		f.bear(b)
		f.awaitAll("served after "+b.name, served)
	}

	f.MustShell("echo 3 >/proc/sys/vm/drop_caches")
	f.each("sha256sum --quiet -c /run/$A.sum\numount /srv/$A")
	f.eachOf(short, "set -- $D\nraid-assembler add --force $A $2 >/dev/null")
	f.awaitAll("whole in the end", whole)
	f.each(`case $A in
one | five) xfs_repair -n /dev/raid/$A ;;
*) fsck.ext4 -f -n /dev/raid/$A ;;
esac
raid-assembler stop $A`)
	f.MustShell("systemctl stop raid-assembler.service")
	f.each("mdadm --assemble --quiet /dev/md/$A $D\nthere /dev/md/$A")
	f.mdIsContent()
	f.kernelIsContent()
}

// bear has fio write to the file systems while a burden happens.
func (f *fleet) bear(b burden) {
	f.t.Helper()

	loads := make([]*lab.Job, len(f.kinds))
	for i, k := range f.kinds {
		loads[i] = f.MustGo(fmt.Sprintf("fio --name=load --directory=/srv/%s --size=12M --direct=1 "+
			"--ioengine=libaio --iodepth=8 --rw=randwrite --bsrange=4k-64k --verify=crc32c --verify_backlog=32 "+
			"--do_verify=1 --randseed=%d --time_based --runtime=%d --output-format=json", k.name, 80+i, b.seconds))
	}

	b.happens()

	for i, load := range loads {
		f.t.Logf("%s: the longest stall of %s was %v", f.kinds[i].name, b.name, longestStall(f.t, load.MustWait(patience)))
	}
}
