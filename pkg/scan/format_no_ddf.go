//go:build no_ddf

package scan

import "raid-assembler/pkg/metadata"

func ddfFormat() []metadata.Format { return nil }
