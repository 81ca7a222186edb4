//go:build !no_asr

package scan

import (
	"raid-assembler/pkg/metadata"
	"raid-assembler/pkg/metadata/asr"
)

func asrFormat() []metadata.Format { return []metadata.Format{asr.Format{}} }
