//go:build no_asr

package scan

import "raid-assembler/pkg/metadata"

func asrFormat() []metadata.Format { return nil }
