//go:build !no_md0

package scan

import (
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/md0"
)

func md0Format() []metadata.Format { return []metadata.Format{md0.Format{}} }
