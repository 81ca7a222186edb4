package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manVerb is for the build.
func (p *program) manVerb() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIRECTORY",
		Short:  "write the manual page",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: verb(func(cmd *cobra.Command, args []string) (exitCode, error) {
			page := manPage(cmd.Root())

			return exitDone, os.WriteFile(filepath.Join(args[0], "raid-assembler.8"), []byte(page), 0o644)
		}),
	}
}

// manPage returns the manual page of all verbs, in the language of man(7). It
// says what --help says, so that neither can be wrong alone.
func manPage(root *cobra.Command) string {
	var b strings.Builder

	fmt.Fprintf(&b, ".TH RAID-ASSEMBLER 8 \"\" \"raid-assembler %s\" \"System Administration\"\n", roff(version))
	fmt.Fprintf(&b, ".SH NAME\nraid-assembler \\- %s\n", roff(root.Short))
	b.WriteString(".SH SYNOPSIS\n.B raid-assembler\n.I VERB\n[\\fIARGUMENTS\\fR]\n")
	fmt.Fprintf(&b, ".SH DESCRIPTION\n%s", paragraphs(root.Long))
	b.WriteString(".SH VERBS\n")

	for _, verb := range root.Commands() {
		if verb.Hidden || verb.Name() == "help" {
			continue
		}

		long := verb.Long
		if verb.Name() == "completion" {
			long = verb.Short + "."
		}

		fmt.Fprintf(&b, ".SS %s\n%s", roff(verb.Use), paragraphs(long))
		flagList(&b, verb.NonInheritedFlags())

		if verb.Name() == "completion" {
			continue
		}

		for _, sub := range verb.Commands() {
			fmt.Fprintf(&b, ".SS %s %s\n%s", roff(verb.Use), roff(sub.Use), paragraphs(sub.Long))
			flagList(&b, sub.NonInheritedFlags())
		}
	}

	b.WriteString(".SH OPTIONS\nAll verbs take these.\n")
	flagList(&b, root.PersistentFlags())
	b.WriteString(".SH EXIT STATUS\n")

	for _, line := range []string{
		"0: done, or healthy", "1: degraded, or in need of attention", "2: failed, or broken",
		"3: refused, with the reason on stderr", "4: could not tell", "64: called wrongly",
	} {
		code, meaning, _ := strings.Cut(line, ": ")
		fmt.Fprintf(&b, ".TP\n.B %s\n%s.\n", code, roff(meaning))
	}

	b.WriteString(".SH SEE ALSO\n.BR raid-assembler.conf (5),\n.BR raid-engine (8),\n.BR mdadm (8)\n")

	return b.String()
}

func flagList(b *strings.Builder, flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}

		name := "--" + f.Name
		if kind := f.Value.Type(); kind != "bool" {
			name += " " + strings.ToUpper(kind)
		}

		fmt.Fprintf(b, ".TP\n.B %s\n%s.\n", roff(name), roff(f.Usage))
	})
}

// paragraphs sets plain text with empty lines between its paragraphs.
func paragraphs(text string) string {
	var b strings.Builder

	for i, p := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}

		b.WriteString(roff(p) + "\n")
	}

	return b.String()
}

// roff escapes what means something to man: backslashes, dashes that are
// typed, and what begins a line.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)

	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}

	return strings.Join(lines, "\n")
}
