// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package detect turns the raw outputs of a detection network into boxes of the
// picture, and measures boxes against the truth.
//
// A [Decoder] is made once for a network's outputs, which it tells apart by their
// shapes, since names in real files lie; it allocates nothing for a frame once its
// destination has room, and belongs to one goroutine at a time.
package detect
