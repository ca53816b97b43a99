// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"fmt"
	"slices"
	"strings"
)

// Message is one PUBLISH of records: all of one (board, class, epoch), rising seq.
type Message struct {
	V      uint8    `cbor:"1,keyasint"` // Version
	Board  string   `cbor:"2,keyasint"`
	Class  Class    `cbor:"3,keyasint"`
	Epoch  uint64   `cbor:"4,keyasint"`
	Trace  [16]byte `cbor:"5,keyasint"`           // W3C trace id of the sending
	Replay bool     `cbor:"6,keyasint,omitempty"` // backlog: must not change live values
	Sent   Time     `cbor:"7,keyasint"`           // when it was sent: an anchor for re-timing
	// 8 was an expiry that nothing set. What is too old is given up by the board, which
	// knows what time has passed: see the spool's time to live.
	Records []SeqRecord `cbor:"9,keyasint"`
}

// SeqRecord is one record inside a message: its number and its encoded payload
// exactly as the spool kept it (see [DecodeRecord]).
type SeqRecord struct {
	_       struct{} `cbor:",toarray"`
	Seq     uint64
	Payload []byte
}

// Validate checks version, order and limits; it does not decode the payloads.
func (m *Message) Validate() error {
	if err := checkVersion("message", m.V); err != nil {
		return err
	}
	if err := CheckBoard(m.Board); err != nil {
		return err
	}
	if m.Class >= NumClasses {
		return fmt.Errorf("message of unknown class %d", m.Class)
	}
	if len(m.Records) == 0 || len(m.Records) > MaxRecords {
		return fmt.Errorf("message of %d records, wants 1 to %d", len(m.Records), MaxRecords)
	}
	last := uint64(0)
	for _, r := range m.Records {
		if r.Seq <= last {
			return fmt.Errorf("message of class %s: sequence number %d after %d", m.Class, r.Seq, last)
		}
		if len(r.Payload) == 0 || len(r.Payload) > MaxRecord {
			return fmt.Errorf("record %d of class %s has %d bytes, wants 1 to %d", r.Seq, m.Class, len(r.Payload), MaxRecord)
		}
		last = r.Seq
	}
	return nil
}

// Chunk is one piece of a blob on blob/{name}. Chunks of one blob may arrive in
// any order and twice; the index record ([Snapshot]) decides when it is whole.
type Chunk struct {
	V      uint8  `cbor:"1,keyasint"`
	Offset int64  `cbor:"2,keyasint"` // multiple of MaxChunk
	Total  int64  `cbor:"3,keyasint"` // size of the whole blob, bytes
	Data   []byte `cbor:"4,keyasint"`
}

// Validate checks offset, total and size.
func (c *Chunk) Validate() error {
	if err := checkVersion("chunk", c.V); err != nil {
		return err
	}
	if c.Total <= 0 || c.Total > 64<<20 || c.Offset < 0 || c.Offset%MaxChunk != 0 || len(c.Data) == 0 ||
		len(c.Data) > MaxChunk || c.Offset+int64(len(c.Data)) > c.Total {
		return fmt.Errorf("chunk of %d bytes at %d of %d does not fit", len(c.Data), c.Offset, c.Total)
	}
	return nil
}

// Presence says that a board is there, or (as last will) that it is gone. A will
// of an older boot or connection is ignored.
type Presence struct {
	V      uint8  `cbor:"1,keyasint"`
	Online bool   `cbor:"2,keyasint"`
	Boot   uint64 `cbor:"3,keyasint"` // Time.Boot
	Conn   uint64 `cbor:"4,keyasint"` // connection, rising within a boot, also over restarts of fulmard
}

// Validate checks the version.
func (p *Presence) Validate() error { return checkVersion("presence", p.V) }

func checkVersion(what string, v uint8) error {
	if v == 0 || v > Version {
		return fmt.Errorf("%s of wire version %d, this program reads up to %d", what, v, Version)
	}
	return nil
}

// AckMode says whose word frees a record from the spool.
type AckMode uint8

// The acknowledgement modes. On the wire, append-only.
const (
	AckPuback AckMode = 0 // our gateway: a PUBACK means stored in the fleet's database
	AckFleet  AckMode = 1 // foreign broker with our fleet: only the fleet's Ack message
	AckBroker AckMode = 2 // only a broker, no fleet: the broker's PUBACK is taken
)

// String names the mode as in the config.
func (m AckMode) String() string {
	switch m {
	case AckPuback:
		return "puback"
	case AckFleet:
		return "fleet"
	case AckBroker:
		return "broker"
	}
	return fmt.Sprintf("ack-mode-%d", uint8(m))
}

// Hello is the first message of each connection.
type Hello struct {
	V       uint8             `cbor:"1,keyasint"`
	Board   string            `cbor:"2,keyasint"`
	Release string            `cbor:"3,keyasint"` // version of fulmard
	Conn    uint64            `cbor:"4,keyasint"` // as in Presence
	Now     Time              `cbor:"5,keyasint"`
	Cursors []Cursor          `cbor:"6,keyasint"`
	Facts   map[string]string `cbor:"7,keyasint,omitempty"` // model, os, arch, kernel; at most MaxFacts
	// Keys is the version of the key set that the board goes by; 0 none. A fleet with
	// a newer one sends it on ChanKeys.
	Keys uint64 `cbor:"8,keyasint,omitempty"`
}

// Validate checks version, board and limits.
func (h *Hello) Validate() error {
	if err := checkVersion("hello", h.V); err != nil {
		return err
	}
	if err := CheckBoard(h.Board); err != nil {
		return err
	}
	if len(h.Release) > MaxName || len(h.Facts) > MaxFacts || len(h.Cursors) > MaxCursors {
		return fmt.Errorf("hello of %s with a release of %d bytes, %d facts and %d cursors, at most %d, %d and %d",
			h.Board, len(h.Release), len(h.Facts), len(h.Cursors), MaxName, MaxFacts, MaxCursors)
	}
	for k, v := range h.Facts {
		if k == "" || len(k) > MaxName || len(v) > MaxFact {
			return fmt.Errorf("hello of %s: fact %q of %d bytes, wants a name of 1 to %d bytes and at most %d", h.Board, clip(k), len(v), MaxName, MaxFact)
		}
	}
	for _, c := range h.Cursors {
		if c.Class >= NumClasses {
			return fmt.Errorf("hello of %s: cursor of unknown class %d", h.Board, c.Class)
		}
	}
	return nil
}

// Cursor tells where a class stands on the board.
type Cursor struct {
	Class Class  `cbor:"1,keyasint"`
	Epoch uint64 `cbor:"2,keyasint"`
	// Acked is the highest number up to which all are acknowledged; Last the
	// highest number given out.
	Acked uint64 `cbor:"3,keyasint"`
	Last  uint64 `cbor:"4,keyasint"`
}

// HelloAck answers a Hello. Sent again later with the same Conn it changes what it
// says: the newest one stands.
type HelloAck struct {
	V    uint8   `cbor:"1,keyasint"`
	Conn uint64  `cbor:"2,keyasint"` // of the Hello it answers
	Mode AckMode `cbor:"3,keyasint"`
	Wall int64   `cbor:"4,keyasint"` // the fleet's clock, ms since 1970
	// RetryAfterMs asks the board to stay away that long before its next
	// connection; 0 none.
	RetryAfterMs int64 `cbor:"5,keyasint,omitempty"`
	// ReconnectMs is the window over which boards spread their reconnects.
	ReconnectMs int64 `cbor:"6,keyasint,omitempty"`
	// Rate bounds what the board sends beside alarms, in bytes of payload a second;
	// 0 no bound.
	Rate int64 `cbor:"7,keyasint,omitempty"`
	// Attest, if not empty, asks for an [Attestation] with this nonce.
	Attest []byte `cbor:"8,keyasint,omitempty"`
}

// Validate checks the version and refuses a mode this program does not know: a
// record must never be freed by a word that is not understood.
func (a *HelloAck) Validate() error {
	if err := checkVersion("hello/ack", a.V); err != nil {
		return err
	}
	if a.Mode > AckBroker {
		return fmt.Errorf("hello/ack with unknown acknowledgement mode %d", a.Mode)
	}
	if a.RetryAfterMs < 0 || a.ReconnectMs < 0 || a.Rate < 0 {
		return fmt.Errorf("hello/ack with a wait of %d ms, a window of %d ms and a rate of %d bytes a second", a.RetryAfterMs, a.ReconnectMs, a.Rate)
	}
	if len(a.Attest) > MaxAttestNonce {
		return fmt.Errorf("hello/ack with a nonce of %d bytes, at most %d", len(a.Attest), MaxAttestNonce)
	}
	return nil
}

// Ack tells, in mode fleet, what the fleet has stored.
type Ack struct {
	V     uint8  `cbor:"1,keyasint"`
	Class Class  `cbor:"2,keyasint"`
	Epoch uint64 `cbor:"3,keyasint"`
	// Ranges are inclusive [first, last] pairs, rising; at most MaxRecords.
	Ranges [][2]uint64 `cbor:"4,keyasint"`
}

// Validate checks the ranges.
func (a *Ack) Validate() error {
	if a.V == 0 || a.V > Version || a.Class >= NumClasses || len(a.Ranges) == 0 || len(a.Ranges) > MaxRecords {
		return fmt.Errorf("ack of version %d, class %d with %d ranges", a.V, a.Class, len(a.Ranges))
	}
	last := uint64(0)
	for _, r := range a.Ranges {
		if r[0] <= last || r[1] < r[0] {
			return fmt.Errorf("ack of class %s: range %d to %d after %d", a.Class, r[0], r[1], last)
		}
		last = r[1]
	}
	return nil
}

// CanUpdate is the word in a board's fact [FactCan] that says that it takes assignments.
// A board that does not say so is told nothing.
const (
	FactCan   = "can" // a fact of Hello: words with spaces between them
	CanUpdate = "updates"
	// FactUpdates names the kinds of components that it can update: agent worker model config rootfs.
	FactUpdates = "updates"
)

// Can tells whether a board's facts say that it can do something.
func Can(facts map[string]string, word string) bool {
	return slices.Contains(strings.Fields(facts[FactCan]), word)
}
