// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"fmt"
	"math"
)

// Quality says what a reading is worth. On the wire, append-only. A reading that
// is not [QualityGood] has no number: an offline zone is never 0 °C.
type Quality uint8

// The qualities of a reading.
const (
	QualityGood    Quality = 0
	QualityOffline Quality = 1 // powered down or not answering (EAGAIN, ENXIO)
	QualityError   Quality = 2 // answered with an error or nonsense
	QualityStale   Quality = 3 // no new value within the sensor's deadline
)

// String names the quality.
func (q Quality) String() string {
	switch q {
	case QualityGood:
		return "good"
	case QualityOffline:
		return "offline"
	case QualityError:
		return "error"
	case QualityStale:
		return "stale"
	}
	return fmt.Sprintf("quality-%d", uint8(q))
}

// Samples is one batch of readings, all of one moment (the record's Time) or
// within the batch's tick. The slices run in parallel and have equal length.
type Samples struct {
	// Series names each reading: sensor and unit, e.g. "cpu.load_percent",
	// "thermal.cpu_celsius". Units are part of the name.
	Series []string `cbor:"1,keyasint"`
	// Value holds each number; 0 where the quality is not good.
	Value []float64 `cbor:"2,keyasint"`
	// Quality holds each reading's quality; nil means that all are good.
	Quality []Quality `cbor:"3,keyasint,omitempty"`
	// Over is set in a summary that stands for many batches.
	Over *Over `cbor:"4,keyasint,omitempty"`
}

// Over makes a batch a summary: Value is then the mean over the span that begins
// at the record's Time. The slices run in parallel to Series.
type Over struct {
	SpanMs int64     `cbor:"1,keyasint"` // length of the span, 1 ms to a day
	Min    []float64 `cbor:"2,keyasint"`
	Max    []float64 `cbor:"3,keyasint"`
	Count  []uint32  `cbor:"4,keyasint"` // good readings in it; 0: Value, Min and Max mean nothing
}

// maxSpanMs bounds the span of a summary: a day.
const maxSpanMs = 24 * 60 * 60 * 1000

func (o *Over) validate(series int) error {
	if o.SpanMs < 1 || o.SpanMs > maxSpanMs {
		return fmt.Errorf("summary over %d ms, wants 1 ms to a day", o.SpanMs)
	}
	if len(o.Min) != series || len(o.Max) != series || len(o.Count) != series {
		return fmt.Errorf("summary of %d series with %d minima, %d maxima and %d counts", series, len(o.Min), len(o.Max), len(o.Count))
	}
	for i := range o.Min {
		if math.IsNaN(o.Min[i]) || math.IsInf(o.Min[i], 0) || math.IsNaN(o.Max[i]) || math.IsInf(o.Max[i], 0) || o.Min[i] > o.Max[i] {
			return fmt.Errorf("summary: series %d has no finite minimum and maximum in order", i)
		}
	}
	return nil
}

// Validate checks lengths and limits.
func (s *Samples) Validate() error {
	if len(s.Series) == 0 || len(s.Series) > MaxSeries {
		return fmt.Errorf("samples: %d series, wants 1 to %d", len(s.Series), MaxSeries)
	}
	if len(s.Value) != len(s.Series) || (s.Quality != nil && len(s.Quality) != len(s.Series)) {
		return fmt.Errorf("samples: %d series but %d values and %d qualities", len(s.Series), len(s.Value), len(s.Quality))
	}
	for i, n := range s.Series {
		if err := checkName("series", n); err != nil {
			return err
		}
		if math.IsNaN(s.Value[i]) || math.IsInf(s.Value[i], 0) {
			return fmt.Errorf("samples: series %s has no finite value", n)
		}
	}
	if s.Over != nil {
		return s.Over.validate(len(s.Series))
	}
	return nil
}

// Box is one detection or one ground truth: a class and a place in the picture.
type Box struct {
	Class uint16  `cbor:"1,keyasint"` // index into the model's labels
	Score float32 `cbor:"2,keyasint"` // 0 to 1; 1 for ground truth
	// X0, Y0, X1, Y1 are the corners in pixels of the untouched picture, origin
	// top left, X1 and Y1 exclusive.
	X0 float32 `cbor:"3,keyasint"`
	Y0 float32 `cbor:"4,keyasint"`
	X1 float32 `cbor:"5,keyasint"`
	Y1 float32 `cbor:"6,keyasint"`
	// Match is set where ground truth is known (scene cameras).
	Match Match `cbor:"7,keyasint,omitempty"`
}

// Match is what ground truth says of a box. On the wire, append-only.
type Match uint8

// The outcomes of matching a detection with ground truth at IoU 0.5.
const (
	MatchUnknown Match = 0 // no ground truth for this camera
	MatchTrue    Match = 1 // a detection that is right
	MatchFalse   Match = 2 // a detection with nothing there: false alarm
	MatchMissed  Match = 3 // ground truth that no detection found
)

// Event is something a camera or a rule saw.
type Event struct {
	Source string `cbor:"1,keyasint"` // camera or rule
	Model  string `cbor:"2,keyasint"` // model name and version, "parcels@1"
	Frame  uint64 `cbor:"3,keyasint"` // number of the frame at its source
	Width  int    `cbor:"4,keyasint"` // of the picture, pixels
	Height int    `cbor:"5,keyasint"`
	// Boxes are the detections; with ground truth known, each has its Match.
	Boxes []Box `cbor:"6,keyasint"`
	// Truth is the ground truth of the frame where it is known; missed ones
	// have MatchMissed.
	Truth []Box `cbor:"7,keyasint,omitempty"`
	// Labels names the classes used in Boxes and Truth, by class index.
	Labels map[uint16]string `cbor:"8,keyasint,omitempty"`
	// Snapshot is the blob name of the frame's picture, "" where none was kept.
	Snapshot string `cbor:"9,keyasint,omitempty"`
	// LatencyUs is capture to detections, in microseconds, measured in the worker.
	LatencyUs uint32 `cbor:"10,keyasint,omitempty"`
	// Engine names what ran the model, "onnxruntime-cpu/int8".
	Engine string `cbor:"11,keyasint,omitempty"`
}

// Validate checks names, counts and numbers.
func (e *Event) Validate() error {
	if err := checkName("event source", e.Source); err != nil {
		return err
	}
	if e.Width < 0 || e.Height < 0 || e.Width > 1<<15 || e.Height > 1<<15 {
		return fmt.Errorf("event of %s: picture of %dx%d, at most 32768 each", e.Source, e.Width, e.Height)
	}
	if len(e.Boxes) > MaxDetections || len(e.Truth) > MaxDetections || len(e.Labels) > MaxDetections {
		return fmt.Errorf("event of %s: %d boxes, %d truths, at most %d", e.Source, len(e.Boxes), len(e.Truth), MaxDetections)
	}
	for _, b := range append(e.Boxes[:len(e.Boxes):len(e.Boxes)], e.Truth...) {
		for _, v := range [...]float32{b.Score, b.X0, b.Y0, b.X1, b.Y1} {
			if v != v || v > 1<<20 || v < -(1<<20) {
				return fmt.Errorf("event of %s: a box has no sane number", e.Source)
			}
		}
	}
	if len(e.Model) > MaxName || len(e.Engine) > MaxName {
		return fmt.Errorf("event of %s: model or engine name over %d bytes", e.Source, MaxName)
	}
	for _, l := range e.Labels {
		if len(l) > MaxName {
			return fmt.Errorf("event of %s: label over %d bytes", e.Source, MaxName)
		}
	}
	if e.Snapshot != "" {
		return CheckBlobName(e.Snapshot)
	}
	return nil
}

// Reason says why records were lost. On the wire, append-only.
type Reason uint8

// The reasons of a gap.
const (
	ReasonCrash     Reason = 1  // reserved sequence numbers not used when the process died
	ReasonQuota     Reason = 2  // evicted: the class was full
	ReasonDiskFull  Reason = 3  // the disk took no more
	ReasonCorrupt   Reason = 4  // the stored record no longer matched its checksum
	ReasonOversize  Reason = 5  // larger than a message may be; refused before publish
	ReasonBlobGone  Reason = 6  // the picture was evicted before it was sent
	ReasonThinned   Reason = 7  // replaced by 1-minute summaries
	ReasonUnsavable Reason = 8  // the disk failed and memory was full
	ReasonRefused   Reason = 9  // the broker ended each connection that carried it
	ReasonKeyLost   Reason = 10 // encrypted with a key that is gone from this board
	// Of the fleet's own books; no board sends these.
	ReasonUnreadable Reason = 11 // it came, and the fleet could not read it
	ReasonFreed      Reason = 12 // acknowledged to the board, and not at this fleet
	// Of boards again.
	ReasonExpired Reason = 13 // older than its time to live before it could be sent
)

// String gives the words used in the loss ledger.
func (r Reason) String() string {
	switch r {
	case ReasonCrash:
		return "crash"
	case ReasonQuota:
		return "quota"
	case ReasonDiskFull:
		return "disk full"
	case ReasonCorrupt:
		return "corrupt"
	case ReasonOversize:
		return "too large"
	case ReasonBlobGone:
		return "picture evicted"
	case ReasonThinned:
		return "thinned"
	case ReasonUnsavable:
		return "disk failed"
	case ReasonRefused:
		return "refused by the broker"
	case ReasonKeyLost:
		return "key lost"
	case ReasonUnreadable:
		return "unreadable"
	case ReasonFreed:
		return "acknowledged, not here"
	case ReasonExpired:
		return "expired"
	}
	return fmt.Sprintf("reason-%d", uint8(r))
}

// Gap is a range of sequence numbers that will never arrive as records, and why.
// It travels as a record of [ClassAlarm].
type Gap struct {
	Class  Class  `cbor:"1,keyasint"`
	Epoch  uint64 `cbor:"2,keyasint"`
	First  uint64 `cbor:"3,keyasint"` // first sequence number lost
	Last   uint64 `cbor:"4,keyasint"` // last sequence number lost, inclusive
	Reason Reason `cbor:"5,keyasint"`
	// FromWall and ToWall bound the time of the loss, ms since 1970; 0 unknown.
	FromWall int64 `cbor:"6,keyasint,omitempty"`
	ToWall   int64 `cbor:"7,keyasint,omitempty"`
}

// Validate checks the range.
func (g *Gap) Validate() error {
	if g.Class >= NumClasses || g.First == 0 || g.Last < g.First {
		return fmt.Errorf("gap of class %d from %d to %d is no range", g.Class, g.First, g.Last)
	}
	return nil
}

// Snapshot is the index record of one picture: the blob itself goes in chunks on
// blob/{name} before it. It travels in [ClassSnapshot].
type Snapshot struct {
	Name   string   `cbor:"1,keyasint"` // blob name, see CheckBlobName
	Size   int64    `cbor:"2,keyasint"` // bytes
	SHA256 [32]byte `cbor:"3,keyasint"`
	Media  string   `cbor:"4,keyasint"` // "image/jpeg"
	Source string   `cbor:"5,keyasint"` // camera
	Frame  uint64   `cbor:"6,keyasint"`
}

// Validate checks name and size.
func (s *Snapshot) Validate() error {
	if err := CheckBlobName(s.Name); err != nil {
		return err
	}
	if s.Size <= 0 || s.Size > 64<<20 {
		return fmt.Errorf("snapshot %s: %d bytes, wants 1 to 64 MiB", s.Name, s.Size)
	}
	if len(s.Media) > MaxName {
		return fmt.Errorf("snapshot %s: media type over %d bytes", s.Name, MaxName)
	}
	return checkName("snapshot source", s.Source)
}

// Severity ranks a report.
type Severity uint8

// The severities of a report.
const (
	SeverityInfo  Severity = 0
	SeverityWarn  Severity = 1
	SeverityAlarm Severity = 2
)

// Report is a sentence a board says about itself: worker died, disk full, config
// refused. Subject and State together are a state ("worker", "restarting"); the
// newest one of a subject stands.
type Report struct {
	Subject  string   `cbor:"1,keyasint"` // "worker", "config", "spool", "camera/cam0"
	State    string   `cbor:"2,keyasint"` // "ok", "restarting", "refused"
	Severity Severity `cbor:"3,keyasint"`
	Text     string   `cbor:"4,keyasint"` // one sentence: what, to what, because, do
}

// Validate checks names and lengths.
func (r *Report) Validate() error {
	if err := checkName("report subject", r.Subject); err != nil {
		return err
	}
	if len(r.State) > MaxName || len(r.Text) > MaxText {
		return fmt.Errorf("report of %s: text over %d bytes", r.Subject, MaxText)
	}
	return nil
}
