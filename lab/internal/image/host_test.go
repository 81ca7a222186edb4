package image

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMirror reads the forms of apt's sources that Debian 12 and 13 hosts have.
func TestMirror(t *testing.T) {
	for _, tt := range []struct{ name, file, text, want string }{
		{"deb822", "sources.list.d/d.sources", "Types: deb\nURIs: http://a.example/debian\n", "http://a.example/debian"},
		{"one line", "sources.list", "deb http://b.example/debian/ bookworm main\n", "http://b.example/debian"},
		{"options", "sources.list", "deb [a=b c=/d] https://c.example/debian a b\n", "https://c.example/debian"},
		{"security only", "sources.list", "deb http://d.example/debian-security trixie-security main\n", defaultMirror},
		{"not Debian", "sources.list.d/other.list", "deb https://e.example/apt other main\n", defaultMirror},
		{"commented out", "sources.list", "# deb http://f.example/debian trixie main\n", defaultMirror},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, tt.file)

			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}

			if err := os.WriteFile(file, []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}

			if got := mirror(dir); got != tt.want {
				t.Errorf("mirror() = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestParseKernel(t *testing.T) {
	for name, want := range map[string]Kernel{"": Stock, "stock": Stock, "backports": Backports} {
		if got, err := ParseKernel(name); err != nil || got != want {
			t.Errorf("ParseKernel(%q) = %q, %v, want %q", name, got, err, want)
		}
	}

	if got, err := ParseKernel("6.1"); err == nil {
		t.Errorf("ParseKernel(6.1) = %q, want an error", got)
	}
}
