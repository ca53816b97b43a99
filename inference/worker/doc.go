// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package worker is the border between fulmard and fulmar-infer: commands go in,
// detections come out, frames never cross. It is the only package under
// inference that fulmard links, so it imports schema and the standard library.
package worker
