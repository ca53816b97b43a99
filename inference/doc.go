// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package inference looks at cameras with models: it is the inside of fulmar-infer.
//
// # A frame's way
//
// Each camera has a goroutine that takes frames from its source into one slot. A
// newer frame replaces one that still waits there, which is counted as late: a slow
// model makes a camera skip frames, never lag behind. Lanes (goroutines, as many as
// the CPU threads allow) take the waiting frame with the earliest deadline over all
// cameras whose model is free. A frame's deadline is its capture plus one frame
// time, at most 100 ms; a frame that replaces another takes over its deadline, so no
// camera waits for ever behind a faster one. Each model looks at one frame at a time.
//
// Detections are matched with the truth where the source knows it. A frame with at
// least one detection becomes an event, at most one each Camera.EventEvery, and its
// picture is kept at most once each Camera.SnapshotEvery: the source's own JPEG
// untouched, or encoded. Keeping a picture waits for a disk, so events pass through
// a short queue per camera, in order; when it is full the event is dropped and
// counted in Status.ResultsDropped.
//
// # Failure
//
// A camera or a model that fails is tried again with growing waits and stops
// nothing else; the status says why in a sentence. A frame that cannot be read, or
// that its model cannot look at, is counted as bad.
//
// # Concurrency
//
// [Pipeline.Apply] and [Pipeline.Status] may be called from any goroutine and do not
// block. A [Detector] and a camera.Source are used by one goroutine at a time.
package inference
