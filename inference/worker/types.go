// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"time"

	"fulmar/schema"
)

// Setup is all a worker needs to know; the newest one stands. Sent by fulmard
// on each connection and whenever the config changes.
type Setup struct {
	Cameras []Camera `cbor:"1,keyasint"`
	Models  []Model  `cbor:"2,keyasint"`
	// BlobDir is where pictures are written; BlobQuota bounds it, in bytes.
	BlobDir   string `cbor:"3,keyasint"`
	BlobQuota int64  `cbor:"4,keyasint"`
	// Threads is how many CPU threads an engine may use; 0 means 1.
	Threads int `cbor:"5,keyasint"`
}

// Camera is one source of frames and the model that looks at them.
type Camera struct {
	Name string `cbor:"1,keyasint"`
	Kind string `cbor:"2,keyasint"` // "files" or "scene"
	// Path is the folder of pictures (files).
	Path string `cbor:"3,keyasint,omitempty"`
	// FPS is the rate at which frames are taken, per second.
	FPS float64 `cbor:"4,keyasint"`
	// Seed and Density shape the drawn scene (scene).
	Seed    uint64  `cbor:"5,keyasint,omitempty"`
	Density float64 `cbor:"6,keyasint,omitempty"`
	Model   string  `cbor:"7,keyasint"` // Model.Name
	// EventEvery is the shortest time between two events of this camera; frames
	// between are still looked at and counted.
	EventEvery time.Duration `cbor:"8,keyasint"`
	// SnapshotEvery is the shortest time between two kept pictures; 0 keeps none.
	SnapshotEvery time.Duration `cbor:"9,keyasint"`
}

// Model names a model package on this board.
type Model struct {
	Name    string `cbor:"1,keyasint"`
	Path    string `cbor:"2,keyasint"`           // folder with model.yaml; "builtin:parcels" is the one inside the worker
	Variant string `cbor:"3,keyasint,omitempty"` // "" lets the package choose
}

// Result is what one frame gave: an event and perhaps a picture.
type Result struct {
	Time     schema.Time      `cbor:"1,keyasint"` // capture
	Event    schema.Event     `cbor:"2,keyasint"`
	Snapshot *schema.Snapshot `cbor:"3,keyasint,omitempty"`
}

// Status is what the worker says of itself about once a second.
type Status struct {
	Release string         `cbor:"1,keyasint"`
	Cameras []CameraStatus `cbor:"2,keyasint"`
	Models  []ModelStatus  `cbor:"3,keyasint"`
	// ResultsDropped counts results that found no reader: fulmard was away or slow.
	ResultsDropped uint64 `cbor:"4,keyasint"`
	BlobBytes      int64  `cbor:"5,keyasint"`
	BlobsEvicted   uint64 `cbor:"6,keyasint"`
}

// CameraStatus counts what a camera did since the worker started.
type CameraStatus struct {
	Name     string  `cbor:"1,keyasint"`
	State    string  `cbor:"2,keyasint"` // "running", "failed"
	Error    string  `cbor:"3,keyasint,omitempty"`
	Frames   uint64  `cbor:"4,keyasint"`  // taken from the source
	Inferred uint64  `cbor:"5,keyasint"`  // looked at by the model
	Late     uint64  `cbor:"6,keyasint"`  // dropped: a newer frame was there
	Bad      uint64  `cbor:"7,keyasint"`  // could not be read, decoded or looked at
	FPS      float64 `cbor:"8,keyasint"`  // inferred, over the last 5 s
	P50Us    uint32  `cbor:"9,keyasint"`  // capture to detections, last 256 frames
	P99Us    uint32  `cbor:"10,keyasint"` // the same
	// True, False and Missed count boxes against ground truth (scene).
	True   uint64 `cbor:"11,keyasint,omitempty"`
	False  uint64 `cbor:"12,keyasint,omitempty"`
	Missed uint64 `cbor:"13,keyasint,omitempty"`
}

// ModelStatus tells how a model runs.
type ModelStatus struct {
	Name    string `cbor:"1,keyasint"`
	State   string `cbor:"2,keyasint"` // "loading", "ready", "refused"
	Error   string `cbor:"3,keyasint,omitempty"`
	Engine  string `cbor:"4,keyasint,omitempty"` // "onnxruntime-cpu/int8"
	Version string `cbor:"5,keyasint,omitempty"`
	SHA256  string `cbor:"6,keyasint,omitempty"` // of the ONNX file that runs, hex
}
