// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package inference looks at cameras with models: it is the inside of fulmar-infer.
//
// # A frame's way
//
// Each camera has a goroutine that takes frames from its source into one slot. A
// newer frame replaces one that still waits there, which is counted as late: a slow
// model makes a camera skip frames, never lag behind. Lanes (goroutines) take the
// waiting frame with the earliest deadline over all cameras whose model is free. A
// frame's deadline is its capture plus one frame time, at most 100 ms; a frame that
// replaces another takes over its deadline, so no camera waits for ever behind a faster
// one. No two frames of a camera are looked at at once.
//
// A model is free while one of its units (Loaded.Detectors) is: a GPU and its DLA
// cores work side by side, each on frames of its own. There are as many lanes as
// units were ever loaded at once; those of models that compute on the CPU are at work
// only as many at a time as its threads allow, those of devices wait for the device.
//
// # Batches
//
// Where a unit is a [Batcher], the frames of other cameras that wait for the same
// model at that moment join the first one, in the order of their deadlines. Nobody
// ever waits for a batch to fill: a camera that is alone has each frame looked at at
// once, and under load batches fill by themselves, since frames gather while a run
// takes its time. How many join is decided by how long runs of that size took before:
//
//   - the run must not cost the first frame its deadline (the others have later ones),
//     if alone it would be in time,
//   - nor take longer than the shortest frame time among the cameras of the model: a
//     frame that comes when the run has just begun is taken before its next one comes;
//   - but when the first frame's deadline has passed, all join: the model has too much
//     to do, and a batch does it faster.
//
// A unit that is no faster in batches should say so by a MaxBatch of 1.
//
// # Events
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
// that its model cannot look at, is counted as bad; those in one batch with it are not
// touched, also if it was a panic.
//
// A model may change its engine while it stands (Loaded.Tend): it leaves the board
// between two frames and comes back with the new one; the frames wait meanwhile. An
// error that wraps [ErrDeviceLost] ends the pipeline.
//
// # Concurrency
//
// [Pipeline.Apply] and [Pipeline.Status] may be called from any goroutine and do not
// block. A [Detector] and a camera.Source are used by one goroutine at a time.
package inference
