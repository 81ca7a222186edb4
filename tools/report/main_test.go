package main

import (
	"strings"
	"testing"
)

// TestReport checks what passes: the events, and a list that has one test.
func TestReport(t *testing.T) {
	may := expected("# what may be skipped\npkg/a TestMay # older systems lack it\n")

	for _, tt := range []struct{ name, events, shows, err string }{
		{
			name: "passed", shows: "ok m/pkg/a",
			events: `{"Action":"output","Package":"m/pkg/a","Test":"TestX","Output":"quiet\n"}
{"Action":"pass","Package":"m/pkg/a","Test":"TestX"}
{"Action":"output","Package":"m/pkg/a","Output":"ok m/pkg/a\n"}
{"Action":"pass","Package":"m/pkg/a"}`,
		},
		{
			name: "passed after long", shows: "PASS: TestX (21s)",
			events: `{"Action":"pass","Package":"m/pkg/a","Test":"TestX","Elapsed":21.1}
{"Action":"pass","Package":"m/pkg/a"}`,
		},
		{
			name: "no tests", shows: "no test files",
			events: `{"Action":"output","Package":"m/pkg/b","Output":"?  m/pkg/b [no test files]\n"}
{"Action":"skip","Package":"m/pkg/b"}`,
		},
		{
			name: "skipped as it may be", shows: "is missing",
			events: `{"Action":"output","Package":"m/pkg/a","Test":"TestMay","Output":"    x.go:1: it is missing\n"}
{"Action":"skip","Package":"m/pkg/a","Test":"TestMay"}
{"Action":"pass","Package":"m/pkg/a"}`,
		},
		{
			name: "skipped elsewhere", shows: "is missing", err: "skipped, and not listed as what may be: m/pkg/b TestMay",
			events: `{"Action":"output","Package":"m/pkg/b","Test":"TestMay","Output":"    x.go:1: it is missing\n"}
{"Action":"skip","Package":"m/pkg/b","Test":"TestMay"}
{"Action":"pass","Package":"m/pkg/b"}`,
		},
		{
			name: "failed", shows: "got 1", err: "failed: m/pkg/a TestX, m/pkg/a",
			events: `{"Action":"output","Package":"m/pkg/a","Test":"TestX","Output":"    x.go:1: got 1\n"}
{"Action":"fail","Package":"m/pkg/a","Test":"TestX"}
{"Action":"fail","Package":"m/pkg/a"}`,
		},
		{name: "nothing", err: "no package was tested"},
		{
			name: "not built", shows: "undefined", err: "failed: m/pkg/a",
			events: `{"ImportPath":"m/pkg/a","Action":"build-output","Output":"x.go:1:2: undefined: y\n"}
{"ImportPath":"m/pkg/a","Action":"build-fail"}
{"Action":"fail","Package":"m/pkg/a","FailedBuild":"m/pkg/a"}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder

			err := report(may, strings.NewReader(tt.events), &out)

			got := ""
			if err != nil {
				got = err.Error()
			}

			if got != tt.err || !strings.Contains(out.String(), tt.shows) || strings.Contains(out.String(), "quiet") {
				t.Errorf("report = %q, want %q; it printed %q, want %q in it", got, tt.err, out.String(), tt.shows)
			}
		})
	}
}
