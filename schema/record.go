// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import "fmt"

// Version is the wire version written into each message. A reader refuses a
// higher one and names it.
const Version = 1

// Class is the delivery class of a record: its own spool chain, its own
// sequence numbers, its own place in the queue. Lower is more urgent.
// The numbers are on the wire and on disk; they are append-only.
type Class uint8

// The classes.
const (
	ClassAlarm    Class = 0 // alarms, command results, gaps, audit: durable at once
	ClassEvent    Class = 1 // detections and other events: durable before Append returns
	ClassMetric   Class = 2 // sample batches: in memory for at most the loss window
	ClassSnapshot Class = 3 // index of pictures; the pictures are blobs
	NumClasses          = 4
)

// String names the class as it stands in topics, metrics and folder names.
func (c Class) String() string {
	switch c {
	case ClassAlarm:
		return "alarm"
	case ClassEvent:
		return "event"
	case ClassMetric:
		return "metric"
	case ClassSnapshot:
		return "snapshot"
	}
	return fmt.Sprintf("class-%d", uint8(c))
}

// ParseClass is the inverse of [Class.String].
func ParseClass(s string) (Class, error) {
	for c := range Class(NumClasses) {
		if c.String() == s {
			return c, nil
		}
	}
	return 0, fmt.Errorf("unknown class %q (alarm, event, metric, snapshot)", clip(s))
}

// Classes lists all classes, most urgent first.
func Classes() []Class { return []Class{ClassAlarm, ClassEvent, ClassMetric, ClassSnapshot} }

// ID is the identity of a record, everywhere and for ever.
type ID struct {
	Board string
	Class Class
	Epoch uint64 // random, new whenever the class's spool is created anew
	Seq   uint64 // from 1, without holes
}

// String gives the form used in logs: board/class/epoch/seq, epoch in hex.
func (id ID) String() string {
	return fmt.Sprintf("%s/%s/%016x/%d", id.Board, id.Class, id.Epoch, id.Seq)
}

// Kind says what a record's payload is. On the wire, append-only.
type Kind uint8

// The kinds of records.
const (
	KindSamples  Kind = 1 // Samples
	KindEvent    Kind = 2 // Event
	KindGap      Kind = 3 // Gap
	KindSnapshot Kind = 4 // Snapshot
	KindReport   Kind = 5 // Report: a state the board tells about itself
	KindAnchor   Kind = 6 // Anchor: how wall clock and monotonic clock stand to each other
)

// String names the kind.
func (k Kind) String() string {
	switch k {
	case KindSamples:
		return "samples"
	case KindEvent:
		return "event"
	case KindGap:
		return "gap"
	case KindSnapshot:
		return "snapshot"
	case KindReport:
		return "report"
	case KindAnchor:
		return "anchor"
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// Stored is one record as the spool keeps it and the link sends it: its place in
// the sequence of its class and its encoded payload (see [EncodeRecord]).
type Stored struct {
	Class   Class
	Epoch   uint64
	Seq     uint64
	Payload []byte
}

// Time is a moment as a board without a trusted clock can tell it. Order within
// one boot is Mono; Wall may be wrong by decades and is only shown. The fleet
// re-times records from anchors.
type Time struct {
	Boot uint64 `cbor:"1,keyasint"` // first 8 bytes of the kernel's boot id
	Mono int64  `cbor:"2,keyasint"` // CLOCK_BOOTTIME, nanoseconds since boot
	Wall int64  `cbor:"3,keyasint"` // wall clock, milliseconds since 1970 UTC
}

// Record is the decoded payload of one spooled record. Exactly one of the
// pointers that Kind names is set.
type Record struct {
	Kind     Kind      `cbor:"1,keyasint"`
	Time     Time      `cbor:"2,keyasint"`
	Samples  *Samples  `cbor:"3,keyasint,omitempty"`
	Event    *Event    `cbor:"4,keyasint,omitempty"`
	Gap      *Gap      `cbor:"5,keyasint,omitempty"`
	Snapshot *Snapshot `cbor:"6,keyasint,omitempty"`
	Report   *Report   `cbor:"7,keyasint,omitempty"`
	Anchor   *Anchor   `cbor:"8,keyasint,omitempty"`
}

// Validate checks the record against the limits and that Kind and body agree.
func (r *Record) Validate() error {
	n := 0
	for _, set := range []bool{r.Samples != nil, r.Event != nil, r.Gap != nil, r.Snapshot != nil, r.Report != nil, r.Anchor != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("record of kind %s has %d bodies, wants 1", r.Kind, n)
	}
	switch {
	case r.Kind == KindSamples && r.Samples != nil:
		return r.Samples.Validate()
	case r.Kind == KindEvent && r.Event != nil:
		return r.Event.Validate()
	case r.Kind == KindGap && r.Gap != nil:
		return r.Gap.Validate()
	case r.Kind == KindSnapshot && r.Snapshot != nil:
		return r.Snapshot.Validate()
	case r.Kind == KindReport && r.Report != nil:
		return r.Report.Validate()
	case r.Kind == KindAnchor && r.Anchor != nil:
		return r.Anchor.Validate()
	}
	return fmt.Errorf("record of kind %s carries another body", r.Kind)
}
