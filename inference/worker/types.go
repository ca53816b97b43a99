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
	// Engines says how engines are built and kept.
	Engines Engines `cbor:"6,keyasint,omitempty"`
	// Asked counts, by camera, the pictures that somebody asked for: whenever it changes the
	// camera's next frame is kept, with an event, whatever is in it.
	Asked map[string]uint64 `cbor:"7,keyasint,omitempty"`
	// Life, where it is not 0 and another than in the first setup that a worker got, has
	// that worker end, so that who keeps it starts it anew.
	Life uint64 `cbor:"8,keyasint,omitempty"`
}

// Engines is what holds for the engines of all models that are built on the board.
type Engines struct {
	// Cache is the folder of built engines, Quota bounds it, in bytes; without a folder
	// none is built.
	Cache string `cbor:"1,keyasint,omitempty"`
	Quota int64  `cbor:"2,keyasint,omitempty"`
	// DLA says that cores of a DLA may be used beside the GPU.
	DLA bool `cbor:"3,keyasint,omitempty"`
	// MaxBatch is how many pictures one run may look at; 0 means 1.
	MaxBatch int `cbor:"4,keyasint,omitempty"`
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
	// Engine is what may run it: EngineAuto ("" too), EngineONNX or EngineTensorRT.
	Engine string `cbor:"4,keyasint,omitempty"`
}

// What may run a model.
const (
	// EngineAuto takes TensorRT where it is, and ONNX Runtime until its engine is built
	// and where it is not.
	EngineAuto = "auto"
	// EngineONNX takes ONNX Runtime, nothing else.
	EngineONNX = "onnxruntime"
	// EngineTensorRT takes TensorRT, nothing else: no frame is looked at before its
	// engine is built.
	EngineTensorRT = "tensorrt"
)

// ExitDeviceLost is the worker's exit code after an error of the GPU that only a new
// process gets over.
const ExitDeviceLost = 5

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
	// EngineVersion is what the engine is of and on: "TensorRT 10.3.0 on Orin".
	EngineVersion string `cbor:"7,keyasint,omitempty"`
	// Build tells how a better engine comes along: "building, 40 %, about 3 min left".
	Build string `cbor:"8,keyasint,omitempty"`
	// Fallback is why the model runs on ONNX Runtime though TensorRT was asked for or
	// would have been taken; it changes seldom.
	Fallback string `cbor:"9,keyasint,omitempty"`
	// Path is that of the setup which this is about: after a change of the package the first
	// words may still be of the one before. "" from an older worker.
	Path string `cbor:"10,keyasint,omitempty"`
}
