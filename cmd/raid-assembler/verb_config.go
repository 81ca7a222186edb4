package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"raid-assembler/pkg/config"
	"raid-assembler/pkg/policy"
)

func (p *program) configVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "check and show the configuration",
		Long: `Check and show the configuration, which is described in raid-assembler.conf(5).
None is needed.`,
		Args: cobra.NoArgs,
		RunE: verb(func(*cobra.Command, []string) (exitCode, error) {
			return exitUsage, fmt.Errorf("config: one of check, show and import-mdadm is missing")
		}),
	}

	root := cmd.PersistentFlags().String("root", "/", "look for the files below this directory")
	cmd.AddCommand(p.configCheckVerb(root), p.configShowVerb(root), p.importMdadmVerb())

	return cmd
}

// configFault is a fault as --json prints it.
type configFault struct {
	File    string `json:"file"`
	Line    int    `json:"line"` // 0 for the file as a whole
	Section string `json:"section"`
	Text    string `json:"text"`
}

func configFaults(c config.Config) []configFault {
	faults := []configFault{}

	for _, f := range c.Faults {
		section := ""
		if f.Section != (config.Section{}) {
			section = f.Section.String()
		}

		faults = append(faults, configFault{f.File, f.Line, section, f.Text})
	}

	return faults
}

func (p *program) configCheckVerb(root *string) *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE...]",
		Short: "say what is wrong with the configuration",
		Long: `Say what is wrong with the configuration, with file and line, or with the files
given in its stead. Nothing is changed.

With --json the output is one object with "faults", a list of objects: "file",
"line", "section", "text".

Exit status: 0 if nothing is wrong, 1 if something is, 2 if a file given could
not be read.`,
		RunE: verb(func(_ *cobra.Command, args []string) (exitCode, error) {
			c := config.Config{}

			if len(args) == 0 {
				c = config.Read(os.DirFS(*root))
			} else {
				files, err := readFiles(args)
				if err != nil {
					return exitFailed, err
				}

				c = config.Parse(files...)
			}

			code := exitDone
			if len(c.Faults) > 0 {
				code = exitAttention
			}

			if p.json {
				return code, printJSON(p.out, map[string]any{"faults": configFaults(c)})
			}

			for _, f := range c.Faults {
				p.notef("%s\n", word(f.Error()))
			}

			return code, nil
		}),
	}
}

func readFiles(paths []string) ([]config.File, error) {
	var files []config.File

	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}

		files = append(files, config.File{Path: path, Text: string(text)})
	}

	return files, nil
}

func (p *program) configShowVerb(root *string) *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "show what the configuration says, and where",
		Long: `Show what the files of the configuration say now, with where each value was
written, and what is built in. The daemon works by that from its next start or
reload on. The output is a configuration that says the same.

With --json the output is one object with "settings", a list of objects:
"section", "key", "value", "file", "line", where "file" is empty for what is
built in; and "faults", as with check.

Exit status: 0, or 1 if something is wrong with the configuration.`,
		Args: cobra.NoArgs,
		RunE: verb(func(*cobra.Command, []string) (exitCode, error) {
			c := config.Read(os.DirFS(*root))
			settings := withDefaults(c)

			code := exitDone
			if len(c.Faults) > 0 {
				code = exitAttention
			}

			if p.json {
				return code, printJSON(p.out, map[string]any{
					"settings": configSettings(settings), "faults": configFaults(c),
				})
			}

			p.printf("%s", printable(config.Text(settings)))

			for _, f := range c.Faults {
				p.notef("%s\n", word(f.Error()))
			}

			return code, nil
		}),
	}
}

// withDefaults returns the settings of c, before them what is built in and not
// set.
func withDefaults(c config.Config) []config.Setting {
	base := policy.DefaultConfig()

	defaults := slices.DeleteFunc(config.Defaults(base.Deadline, base.Readd), func(d config.Setting) bool {
		return slices.ContainsFunc(c.Settings, func(s config.Setting) bool {
			return s.Section == d.Section && s.Key == d.Key
		})
	})

	return append(defaults, c.Settings...)
}

// configSetting is a setting as --json prints it.
type configSetting struct {
	Section string `json:"section"`
	Key     string `json:"key"`
	Value   string `json:"value"`
	File    string `json:"file"`
	Line    int    `json:"line"`
}

func configSettings(settings []config.Setting) []configSetting {
	out := make([]configSetting, 0, len(settings))
	for _, s := range settings {
		out = append(out, configSetting{s.Section.String(), s.Key, s.Value, s.File, s.Line})
	}

	return out
}

func (p *program) importMdadmVerb() *cobra.Command {
	return &cobra.Command{
		Use:   "import-mdadm [FILE]",
		Short: "turn an mdadm.conf into a configuration of ours",
		Long: `Print the configuration that says what an mdadm.conf says, by default
/etc/mdadm/mdadm.conf or /etc/mdadm.conf, and on the standard error output what
has no counterpart, by line. Put it where raid-assembler.conf(5) says; nothing is
changed by itself. Most files need no counterpart at all: arrays are started
without being named.

With --json the output is one object with "text" and "notes", a list of objects:
"line", "text".

Exit status: 0 if all of it has a counterpart or needs none, 1 if something has
none, 2 if the file could not be read.`,
		Args: cobra.MaximumNArgs(1),
		RunE: verb(func(_ *cobra.Command, args []string) (exitCode, error) {
			file, text, err := mdadmConf(args)
			if err != nil {
				return exitFailed, err
			}

			ours, notes := config.ImportMdadm(filepath.Base(file), text)

			code := exitDone
			if len(notes) > 0 {
				code = exitAttention
			}

			if p.json {
				return code, printJSON(p.out, map[string]any{
					"text": ours, "notes": append([]config.Note{}, notes...),
				})
			}

			p.printf("%s", printable(ours))

			for _, n := range notes {
				p.notef("%s:%d: %s\n", word(file), n.Line, word(n.Text))
			}

			return code, nil
		}),
	}
}

// mdadmConf reads the file named, or mdadm's own.
func mdadmConf(args []string) (file, text string, err error) {
	if len(args) == 0 {
		args = []string{"/etc/mdadm/mdadm.conf"}
		if _, err := os.Stat(args[0]); err != nil {
			args[0] = "/etc/mdadm.conf"
		}
	}

	b, err := os.ReadFile(args[0])

	return args[0], string(b), err
}
