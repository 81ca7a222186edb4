package main

import (
	"net"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"raid-assembler/pkg/doctor"
)

func (p *program) doctorVerb() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "check whether this host can run arrays",
		Long: `Check what arrays need of this host: the kernel, ublk, io_uring, the units, the
udev rules, that nobody else assembles the same arrays, who runs which now, and
where /var is mounted later, whether the initramfs knows who has the newest data.
What is not well comes with its remedy.

With --json the output is a list of objects: "check", "status" (ok, warn, fail),
"text" and "remedy", which is empty if all is well.

Exit status: 0 if all is well, 1 if something is not as it should be, 2 if
arrays will not run.`,
		Args: cobra.NoArgs,
		RunE: verb(func(*cobra.Command, []string) (exitCode, error) {
			return p.printFindings(doctor.Examine(thisHost()))
		}),
	}
}

// thisHost returns the host that the program runs on.
func thisHost() doctor.Host {
	return doctor.Host{
		FS: os.DirFS("/"),
		Run: func(name string, args ...string) (string, error) {
			out, err := exec.Command(name, args...).Output()

			return string(out), err
		},
		Dial: func(path string) error {
			conn, err := net.Dial("unix", path)
			if err != nil {
				return err
			}

			return conn.Close()
		},
	}
}

func (p *program) printFindings(findings []doctor.Finding) (exitCode, error) {
	codes := map[doctor.Status]exitCode{doctor.OK: exitDone, doctor.Warn: exitAttention, doctor.Fail: exitFailed}
	code := codes[doctor.Worst(findings)]

	if p.json {
		return code, printJSON(p.out, findings)
	}

	for _, f := range findings {
		p.printf("%-4s  %s: %s\n", f.Status, word(f.Check), word(f.Text))

		if f.Remedy != "" {
			p.printf("      remedy: %s\n", word(f.Remedy))
		}
	}

	return code, nil
}
