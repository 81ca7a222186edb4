package config

import (
	"fmt"
	"strings"
	"testing"

	"raid-assembler/pkg/policy"
)

// TestImportMdadm checks what lines of an mdadm.conf become, by what mdadm.conf(5)
// says that they mean.
func TestImportMdadm(t *testing.T) {
	const (
		uuid  = "01000000:00000000:00000000:00000000"
		array = "[Array " + uuid + "]"
	)

	for _, tt := range []struct{ name, text, want, notes string }{
		{"nothing", "# mdadm.conf\n\n", "", ""},
		{
			"as Debian installs it", "HOMEHOST <system>\nMAILADDR root\nARRAY /dev/md/data metadata=1.2 UUID=" + uuid + " name=here:data\n",
			"", "2: MAILADDR: nobody is mailed",
		},
		{"arrays that are ignored", "ARRAY <ignore> UUID=" + uuid + "\n", array + " Assemble=no", ""},
		{"by name", "array <ignore> name=here:my\n", "[Array my] Assemble=no", ""},
		{"by node", "ARRAY /dev/md/web spare-group=g\n", "[Domain g] Array=web", ""},
		{
			"spare groups", "ARRAY /dev/md/a UUID=" + uuid + " spare-group=g\nARRAY /dev/md/b\n   spare-group=g name=b\n",
			"[Domain g] Array=" + uuid + "\n[Domain g] Array=b", "",
		},
		{"of nothing", "ARRAY devices=/dev/sda\n", "", "1: it names no array"},
		{"a bitmap in a file", "ARRAY /dev/md/a bitmap=/x\n", "", "1: bitmaps in a file"},
		{"quoted", `ARRAY <ignore> "name=my data" # comment` + "\n", "[Array my data] Assemble=no", ""},
		{"keywords are as short as three letters", "ARR <ignore> name=x\nMAI me\n", "[Array x] Assemble=no", "2: MAILADDR: nobody is mailed"},
		{"unknown", "FOO bar\n", "", `1: unknown keyword "FOO"`},
		{"nothing by itself", "AUTO -all\n", "[Assembly] Assemble=no", ""},
		{
			"but what is named", "AUTO -all\nARRAY /dev/md/a\nARRAY <ignore> name=b\n",
			"[Assembly] Assemble=no\n[Array a] Assemble=yes\n[Array b] Assemble=no", "",
		},
		{"all but some", "AUTO -imsm -1.x +all\n", "[Format 1.0] Assemble=no\n[Format 1.1] Assemble=no\n[Format 1.2] Assemble=no\n[Format imsm] Assemble=no", ""},
		{"some", "AUTO +1.x +ddf -all\n", "[Format 0.90] Assemble=no\n[Format asr] Assemble=no\n[Format imsm] Assemble=no", ""},
		{"the first word counts", "AUTO +ddf -ddf\n", "", ""},
		{"what follows all does not", "AUTO +all -ddf\n", "", ""},
		{"only our own", "AUTO homehost -all\n", "[Assembly] Foreign=no", ""},
		{"and others of a format", "AUTO +imsm homehost -all\n", "[Assembly] Foreign=no", "1: AUTO: arrays of other hosts are not started, of whatever format"},
		{"only our own of a format", "AUTO homehost -ddf\n", "[Assembly] Foreign=no", "1: AUTO: arrays of other hosts are not started, of whatever format, and not only of ddf"},
		{"words without a sign", "AUTO all +foo\n", "", "1: AUTO: \"all\" begins with neither\n1: AUTO: \"+foo\" has no counterpart"},
		{"twice", "AUTO -ddf\nAUTO -imsm\n", "[Format ddf] Assemble=no", "2: AUTO counts once, and was there in line 1"},
		{"all devices", "DEVICE partitions containers\n", "", ""},
		{"some devices", "DEVICE /dev/sd[ab]1 /dev/sdc\n", "", "1: DEVICE: all devices are looked at, not only /dev/sd[ab]1"},
		{"other names of this host", "HOMEHOST old\n", "[Assembly] Host=old", ""},
		{"no host", "HOMEHOST <none>\nHOMEHOST <ignore>\n", "", "1: HOMEHOST: this host has its name"},
		{
			"domains", "POLICY domain=d path=pci-0000:00:1f.2-ata-[1-4] type=disk action=include\nPOLICY domain=d path=x*\n",
			"[Domain d] Path=pci-0000:00:1f.2-ata-[1-4]\n[Domain d] Path=x*", "",
		},
		{
			"what is done to disks", "POLICY domain=d path=* action=spare-same-slot metadata=imsm\nPOLICY domain=e action=re-add\nPOLICY path=* action=eat\n",
			"[Domain d] Blank=same-slot\n[Domain d] Path=*",
			"1: POLICY: metadata=imsm has no counterpart\n" +
				"2: POLICY: domain=e without a path= has no counterpart\n3: POLICY: unknown action",
		},
		{"a pattern that is none", "POLICY domain=d path=[a type=part\n", "", "1: POLICY: type=part\n1: POLICY: path=[a is no pattern"},
		{"partitions", "PART-POLICY type=gpt\n", "", "1: PART-POLICY: partitions of spares"},
		{
			"the rest", "MAILFROM a\nPROGRAM /x\nCREATE group=disk\nSYSFS name=x a=1\nMONITORDELAY 5\nHOMECLUSTER c\nPROBING ddf_extended\n",
			"", "1: MAILFROM\n2: PROGRAM\n3: CREATE\n4: SYSFS\n5: MONITORDELAY\n6: HOMECLUSTER\n7: PROBING",
		},
		{"no text", "ARRAY <ignore> name=\x01\n", "", `1: "name=\x01" is not text`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text, notes := ImportMdadm("mdadm.conf", tt.text)
			c := Parse(File{"f", text})

			var lines []string
			for _, s := range c.Settings {
				lines = append(lines, fmt.Sprintf("%v %s=%s", s.Section, s.Key, s.Value))
			}

			if got := strings.Join(lines, "\n"); got != tt.want || len(c.Faults) > 0 {
				t.Errorf("imported:\n%s\nwant:\n%s\nfaults: %v", got, tt.want, c.Faults)
			}

			lines = nil
			for _, n := range notes {
				lines = append(lines, fmt.Sprintf("%d: %s", n.Line, n.Text))
			}

			want := strings.Split(tt.notes, "\n")
			for i := range max(len(lines), len(want)) {
				if i >= len(lines) && tt.notes != "" || i < len(lines) && (i >= len(want) || tt.notes == "" || !strings.HasPrefix(lines[i], want[i])) {
					t.Fatalf("notes:\n%s\nwant:\n%s", strings.Join(lines, "\n"), tt.notes)
				}
			}
		})
	}
}

// TestImportIsStrong checks that an array that is named is started though AUTO
// forbids its host.
func TestImportIsStrong(t *testing.T) {
	text, _ := ImportMdadm("m", "AUTO homehost -all\nARRAY /dev/md/data\n")
	c := Parse(File{"f", text})

	if got := c.Policy(policy.DefaultConfig(), "here").For(away).Mode; got != policy.Run {
		t.Errorf("mode of a named foreign array %v, want %v", got, policy.Run)
	}
}

// FuzzImportMdadm: whatever an mdadm.conf says, what is made of it is sound.
func FuzzImportMdadm(f *testing.F) {
	f.Add("AUTO homehost +1.x -all\nARRAY /dev/md/0 UUID=0:0 spare-group='a b'\n  name=x:y\nPOLICY domain=d path=a\\ action=spare\n")
	f.Add("HOMEHOST \"a b\nARRAY <ignore> name=x]y\n")
	f.Fuzz(func(t *testing.T, text string) {
		ours, notes := ImportMdadm("mdadm.conf", text)

		if c := Parse(File{"f", ours}); len(c.Faults) > 0 {
			t.Errorf("%q becomes %q: %v", text, ours, c.Faults)
		}

		for _, n := range notes {
			if n.Line < 1 || n.Line > strings.Count(text, "\n")+1 {
				t.Errorf("%q: note %+v", text, n)
			}
		}
	})
}
