//go:build !no_imsm

package scan

import (
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/imsm"
)

func imsmFormat() []metadata.Format { return []metadata.Format{imsm.Format{}} }
