// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package wire is what fulmard and fulmar-rootfs say to each other: one line of JSON each
// way, and the bytes of an image between them. It is linked by the one program of ours that
// is root, and imports next to nothing.
package wire

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"fulmar/internal/strictjson"
)

// Socket is where fulmar-rootfs is asked.
const Socket = "/run/fulmar/rootfs.sock"

// The verbs of a [Request].
const (
	VerbStatus  = "status"
	VerbWrite   = "write" // followed by the bytes from the offset that is answered
	VerbSwitch  = "switch"
	VerbLook    = "look"
	VerbConfirm = "confirm"
	VerbBack    = "back"
	VerbSweep   = "sweep"
	VerbSpace   = "space"
	VerbRestart = "restart" // of the machine, where one is due
)

// The kinds of what is written.
const (
	KindImage   = "image"   // of the root file system, raw
	KindCapsule = "capsule" // of the boot chain's firmware, UEFI
)

// The standings, as ota names them.
const (
	NotYet  = "not yet"
	OnTrial = "on trial"
	InForce = "in force"
	Fallen  = "fallen"
)

// maxLine bounds a request or an answer, in bytes.
const maxLine = 8 << 10

// Request is one call: a line of JSON.
type Request struct {
	V       int      `json:"v"`
	Verb    string   `json:"verb"`
	Token   string   `json:"token,omitempty"`
	Version string   `json:"version,omitempty"`
	Kind    string   `json:"kind,omitempty"`
	Size    int64    `json:"size,omitempty"`
	SHA256  string   `json:"sha256,omitempty"`
	Capsule int64    `json:"capsule,omitempty"` // bytes of the capsule that belongs to the image, 0 none
	Why     string   `json:"why,omitempty"`
	Keep    []string `json:"keep,omitempty"`
}

// Answer is one line of JSON.
type Answer struct {
	Error    string  `json:"error,omitempty"`
	Full     bool    `json:"full,omitempty"`   // the error is that there is no room
	Offset   int64   `json:"offset,omitempty"` // where to go on writing
	More     bool    `json:"more,omitempty"`   // the bytes are expected now
	Version  string  `json:"version,omitempty"`
	Standing string  `json:"standing,omitempty"`
	Why      string  `json:"why,omitempty"`
	Restart  bool    `json:"restart,omitempty"` // of the board
	Need     int64   `json:"need,omitempty"`
	Free     int64   `json:"free,omitempty"`
	Status   *Status `json:"status,omitempty"`
}

// Status is how the board's two systems stand, for people and for the agent.
type Status struct {
	Current   string   `json:"current"` // A or B: the slot that runs
	Active    string   `json:"active"`  // the one that is booted next
	Proven    bool     `json:"proven"`  // / lies on the partition of Current
	Version   string   `json:"version,omitempty"`
	BootID    string   `json:"boot_id,omitempty"`
	Slots     []Slot   `json:"slots"`
	Trial     string   `json:"trial,omitempty"` // token
	Boots     int      `json:"boots,omitempty"` // on trial
	Obstacles []string `json:"obstacles,omitempty"`
}

// Slot is one of the two systems.
type Slot struct {
	Name    string `json:"name"`
	Retry   int    `json:"retry"`  // tries that the firmware has left for it
	Status  string `json:"status"` // normal, unbootable
	Device  string `json:"device"`
	Size    int64  `json:"size"`
	Version string `json:"version,omitempty"`
	Token   string `json:"token,omitempty"`
}

// ReadRequest reads one.
func ReadRequest(r *bufio.Reader) (Request, error) {
	var q Request
	if err := ReadLine(r, &q); err != nil {
		return Request{}, fmt.Errorf("request: %w", err)
	}
	if q.V != 1 {
		return Request{}, fmt.Errorf("request of version %d, this program knows 1: install the package fulmar-agent again", q.V)
	}
	return q, nil
}

// ReadLine reads a line of JSON of bounded length.
func ReadLine(r *bufio.Reader, into any) error {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if line = append(line, part...); len(line) > maxLine {
			return fmt.Errorf("over %d bytes", maxLine)
		}
		if err == nil {
			return strictjson.Decode(line, maxLine, into)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// Write writes a request or an answer as a line.
func Write(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) >= maxLine {
		return fmt.Errorf("%d bytes, at most %d", len(b), maxLine)
	}
	_, err = w.Write(append(b, '\n'))
	return err
}
