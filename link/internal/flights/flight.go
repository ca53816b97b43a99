// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package flights

import (
	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/link/internal/suspect"
	"fulmar/schema"
)

// Span is a range of numbers, both inclusive.
type Span = [2]uint64

// Picture is one that is on its way: its index record, and how much of it is in
// flight.
type Picture struct {
	Name   string
	Record schema.Stored
	flying int // pieces and index in flight; the window's lock guards it
}

// Flight is a message that was published and not acknowledged yet.
type Flight struct {
	Class schema.Class
	Epoch uint64
	Bytes int
	Order uint64   // among all that was handed to the client; set before Sent
	Runs  []Span   // numbers of its records, in runs without holes; none for a piece of a picture
	Pic   *Picture // the picture it is a piece or the index of
	// Fleet is closed by the fleet's own word for all records; nil where a PUBACK is
	// enough.
	Fleet chan struct{}

	left  []Span     // what the fleet has not acknowledged
	token mqtt.Token // nil until it was handed to the client; the window's lock guards it
}

// Add notes the next record's number.
func (f *Flight) Add(seq uint64) {
	if n := len(f.Runs); n > 0 && f.Runs[n-1][1]+1 == seq {
		f.Runs[n-1][1] = seq
		return
	}
	f.Runs = append(f.Runs, Span{seq, seq})
}

// AwaitFleet makes the flight wait for the fleet's own word.
func (f *Flight) AwaitFleet() {
	f.Fleet, f.left = make(chan struct{}), append([]Span(nil), f.Runs...)
}

// Records is how many records the flight carries.
func (f *Flight) Records() uint64 { return count(f.Runs) }

// Alarm tells whether it asks nobody's leave.
func (f *Flight) Alarm() bool { return f.Class == schema.ClassAlarm }

// Message names what it carries, by the index record where it is a piece of a
// picture.
func (f *Flight) Message() suspect.Message {
	m := suspect.Message{Class: f.Class, Epoch: f.Epoch, Size: f.Bytes}
	if f.Pic != nil {
		m.First, m.Last = f.Pic.Record.Seq, f.Pic.Record.Seq
	} else {
		m.First, m.Last = f.Runs[0][0], f.Runs[len(f.Runs)-1][1]
	}
	return m
}

// acknowledged tells whether its PUBACK has come.
func (f *Flight) acknowledged() bool {
	select {
	case <-f.token.Done():
		return f.token.Error() == nil
	default:
		return false
	}
}
