// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rest

import "time"

// ReleaseSpec begins the upload of a release: POST /api/v1/releases. The same envelope
// again is the same release, so that an upload that was cut goes on.
type ReleaseSpec struct {
	// Envelope is the signed manifest, as `fulmar release sign` wrote it.
	Envelope []byte `json:"envelope"`
}

// The states of a release.
const (
	ReleaseIncomplete = "incomplete" // objects are missing: no rollout takes it
	ReleaseReady      = "ready"
)

// Release is a release that the fleet knows.
type Release struct {
	Release  string    `json:"release"` // its name: 1.9.0
	State    string    `json:"state"`   // incomplete, ready
	Epoch    uint64    `json:"epoch"`
	Notes    string    `json:"notes,omitempty"`
	Manifest string    `json:"manifest"`         // SHA-256 of the manifest, hex
	Signers  []string  `json:"signers"`          // ids of the release keys that signed it
	Trusted  bool      `json:"trusted"`          // the key set in force takes it; false: keys were dropped since, and boards refuse it
	Author   string    `json:"author"`           // who brought it
	Created  time.Time `json:"created"`          // when it began to come
	Bytes    int64     `json:"bytes"`            // of all its objects
	Have     int64     `json:"have"`             // of them that are here
	Boards   int       `json:"boards"`           // that run any of it, as they say
	InUse    []string  `json:"in_use,omitempty"` // rollouts for whose sake it cannot be removed

	Components []ReleaseComponent `json:"components"`
	// Missing are the objects that are not here whole, at most 4,096: the manifest has no more.
	Missing []ReleaseObject `json:"missing,omitempty"`
	// Patches were made here, or are being made, for what boards run.
	Patches []ReleasePatch `json:"patches,omitempty"`
}

// ReleaseComponent is one component of a release.
type ReleaseComponent struct {
	Name    string        `json:"name"` // agent, worker, config, rootfs or model/NAME
	Version string        `json:"version"`
	Files   int           `json:"files"`
	Bytes   int64         `json:"bytes"`           // of its files as they are
	Travel  int64         `json:"travel"`          // what a board downloads that has nothing: the smallest encoding without a base
	Boards  int           `json:"boards"`          // that run it
	Needs   string        `json:"needs,omitempty"` // a sentence
	Ways    []ReleaseWay  `json:"ways"`
	Runs    []ReleaseRuns `json:"runs,omitempty"` // what boards run of this component, most first, at most 20
}

// ReleaseWay is one way in which a component can travel.
type ReleaseWay struct {
	Codec string  `json:"codec"`          // raw, zstd, a patch's codec
	From  string  `json:"from,omitempty"` // release that it is applied to; the hash where that is not known here
	Bytes int64   `json:"bytes"`
	Share float64 `json:"share"`          // of the files as they are
	Made  bool    `json:"made,omitempty"` // by this fleet
}

// ReleaseRuns is how many boards run a release of a component.
type ReleaseRuns struct {
	Release string `json:"release"`
	Boards  int    `json:"boards"`
}

// ReleaseObject is an object of a release: PUT /api/v1/objects/TREE?offset=HAVE brings the
// rest of it.
type ReleaseObject struct {
	Tree   string `json:"tree"`   // root over its pieces, hex
	SHA256 string `json:"sha256"` // hex
	Size   int64  `json:"size"`
	Have   int64  `json:"have"` // bytes that are here: where to go on
	Done   bool   `json:"done"` // all of it is here and its hashes are right
}

// ReleasePatch is a patch that the fleet makes for what boards run.
type ReleasePatch struct {
	Component string    `json:"component"`
	Path      string    `json:"path"`            // of the file
	From      string    `json:"from"`            // release
	Boards    int       `json:"boards"`          // that run From
	State     string    `json:"state"`           // waiting, making, made, failed, useless (longer than what is there)
	Bytes     int64     `json:"bytes,omitempty"` // of the patch
	Full      int64     `json:"full,omitempty"`  // of what it stands for: the smallest encoding without it
	Codec     string    `json:"codec,omitempty"`
	Say       string    `json:"say,omitempty"` // why it failed
	At        time.Time `json:"at"`
}
