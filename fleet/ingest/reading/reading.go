// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package reading tells what a board's words are, and where they cannot be read what
// can be known of them all the same. It is pure; ingest acts on it.
package reading

import (
	"errors"
	"fmt"

	"fulmar/fleet/ingest/book"
	"fulmar/schema"
)

const (
	maxFacts   = 32 // facts in a Hello
	maxCursors = 64 // cursors in a Hello: classes times a few epochs
)

// Hello tells what is wrong with a Hello of the board.
func Hello(board string, h *schema.Hello) error {
	switch {
	case h.V == 0 || h.V > schema.Version:
		return fmt.Errorf("hello of wire version %d, this program reads up to %d", h.V, schema.Version)
	case h.Board != board:
		return errors.New("hello names another board")
	case len(h.Release) > schema.MaxName || len(h.Facts) > maxFacts || len(h.Cursors) > maxCursors:
		return fmt.Errorf("hello with %d facts and %d cursors, at most %d and %d", len(h.Facts), len(h.Cursors), maxFacts, maxCursors)
	}
	for k, v := range h.Facts {
		if len(k) > schema.MaxName || len(v) > 4*schema.MaxName {
			return errors.New("hello with a fact that is too long")
		}
	}
	for _, c := range h.Cursors {
		if c.Class >= schema.NumClasses || c.Last > book.MaxSeq {
			return errors.New("hello with a cursor that can not be")
		}
	}
	return nil
}

// Message reads what came on a board's topic. With an error it gives the message
// too where its stream and its numbers are known, although it is none to be taken:
// then they are what is lost with it.
func Message(t schema.Topic, payload []byte) (*schema.Message, error) {
	type bare schema.Message // read without being checked: what fails that may be known
	b := new(bare)
	if err := schema.Decode(payload, b); err != nil {
		return nil, fmt.Errorf("message: %w", err)
	}
	m := (*schema.Message)(b)
	err := m.Validate()
	if err == nil {
		switch {
		case m.Board != t.Board:
			err = errors.New("message names another board")
		case t.Channel == schema.ChanStream != (m.Class == schema.ClassMetric), t.Channel == schema.ChanEvent && t.Tail != m.Class.String():
			err = fmt.Errorf("message of class %s on the topic of another", m.Class)
		}
	}
	if err != nil && (m.Class >= schema.NumClasses || m.Epoch == 0 || len(Runs(m)) == 0) {
		return nil, err
	}
	return m, err
}

// Runs gives the numbers of a message's records that a board could have given, in
// runs without holes, in the order of the message.
func Runs(m *schema.Message) (out [][2]uint64) {
	for _, r := range m.Records {
		if r.Seq == 0 || r.Seq > book.MaxSeq {
			continue
		}
		if n := len(out); n > 0 && out[n-1][1]+1 == r.Seq {
			out[n-1][1] = r.Seq
		} else {
			out = append(out, [2]uint64{r.Seq, r.Seq})
		}
	}
	return out
}

// Ack names all records of a message, refused ones too: they are dealt with. It is
// nil where that is no word that a board could hear.
func Ack(m *schema.Message) *schema.Ack {
	if m == nil {
		return nil
	}
	a := &schema.Ack{V: schema.Version, Class: m.Class, Epoch: m.Epoch}
	for _, r := range m.Records {
		if n := len(a.Ranges); n > 0 && a.Ranges[n-1][1]+1 == r.Seq {
			a.Ranges[n-1][1] = r.Seq
		} else {
			a.Ranges = append(a.Ranges, [2]uint64{r.Seq, r.Seq})
		}
	}
	if a.Validate() != nil {
		return nil
	}
	return a
}
