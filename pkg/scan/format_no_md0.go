//go:build no_md0

package scan

import "raid-assembler/pkg/metadata"

func md0Format() []metadata.Format { return nil }
