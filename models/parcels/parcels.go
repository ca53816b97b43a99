// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package parcels is the detector we train and ship: parcels, damaged parcels and
// labels on a sorting line, INT8 and FP32, with the pictures that prove at load
// that it runs as it should. CARD.md says what it was made from, how good it is
// and where it fails; train/ makes it again.
package parcels

import (
	"embed"
	"io/fs"
)

//go:embed model.yaml CARD.md parcels_fp32.onnx parcels_int8.onnx golden gate
var files embed.FS

// Files is the model package: model.yaml and what it names.
func Files() fs.FS { return files }
