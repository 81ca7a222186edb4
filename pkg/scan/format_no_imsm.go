//go:build no_imsm

package scan

import "raid-assembler/pkg/metadata"

func imsmFormat() []metadata.Format { return nil }
