//go:build !no_ddf

package scan

import (
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/ddf"
)

func ddfFormat() []metadata.Format { return []metadata.Format{ddf.Format{}} }
