// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package chain checks an audit log without the server that wrote it: rows that each
// carry the hash of themselves and the row before, and heads that the server has
// signed. It only computes: where rows come from is the caller's.
//
// A chain alone shows that one row was changed; whoever can write the log can make it
// all anew. A signed head that was kept elsewhere shows that too, and so does the
// signature where the key is not in reach of whoever can write the log.
package chain

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ErrBroken: the log is not the one that was written.
var ErrBroken = errors.New("the audit log was changed")

// Hash is a SHA-256, in JSON 64 hex digits.
type Hash []byte

// MarshalText implements [encoding.TextMarshaler].
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (h *Hash) UnmarshalText(b []byte) (err error) {
	if len(b) != 2*sha256.Size {
		return fmt.Errorf("hash of %d hex digits, wants %d", len(b), 2*sha256.Size)
	}
	*h, err = hex.AppendDecode(nil, b)
	return err
}

// Entry is one row.
type Entry struct {
	Seq    int64     `json:"seq"` // 1 is the first ever; no holes
	At     time.Time `json:"at"`  // of the server's clock, to the millisecond
	Who    string    `json:"who"` // a person, a program's token, or the board itself
	Tenant string    `json:"tenant,omitempty"`
	Board  string    `json:"board,omitempty"`
	What   string    `json:"what"`          // a word: revoke, approve, enrol
	Why    string    `json:"why,omitempty"` // a sentence
	Hash   Hash      `json:"hash"`          // of this row and the one before it
}

// Sum is the hash of the row after a row with hash before.
func (e *Entry) Sum(before []byte) []byte {
	h := sha256.New()
	h.Write(before)
	_ = binary.Write(h, binary.BigEndian, [2]int64{e.Seq, e.At.UnixMilli()})
	for _, s := range []string{e.Who, e.Tenant, e.Board, e.What, e.Why} {
		_ = binary.Write(h, binary.BigEndian, uint32(len(s)))
		h.Write([]byte(s))
	}
	return h.Sum(nil)
}

// Head names a row: what a person notes elsewhere to find a chain that was made anew.
type Head struct {
	Seq  int64 `json:"seq"`
	Hash Hash  `json:"hash"` // 32 bytes
}

// Equal tells whether both name the same row.
func (h Head) Equal(o Head) bool { return h.Seq == o.Seq && bytes.Equal(h.Hash, o.Hash) }

// String is SEQ:HASH, as people note it; [ParseHead] reads it.
func (h Head) String() string { return fmt.Sprintf("%d:%x", h.Seq, []byte(h.Hash)) }

// ParseHead reads SEQ:HASH. "" is the zero Head.
func ParseHead(s string) (h Head, err error) {
	if s == "" {
		return h, nil
	}
	seq, sum, ok := strings.Cut(s, ":")
	if h.Seq, err = strconv.ParseInt(seq, 10, 64); err == nil {
		err = h.Hash.UnmarshalText([]byte(sum))
	}
	if !ok || err != nil || h.Seq < 1 {
		return Head{}, fmt.Errorf("head %.100q: wants SEQ:HASH, a number and %d hex digits", s, 2*sha256.Size)
	}
	return h, nil
}

// Next gives the head after one more row, or [ErrBroken] where the row does not follow.
func (h Head) Next(e *Entry) (Head, error) {
	switch {
	case e.Seq != h.Seq+1:
		return h, fmt.Errorf("%w: row %d follows row %d", ErrBroken, e.Seq, h.Seq)
	case !bytes.Equal(e.Hash, e.Sum(h.Hash)):
		return h, fmt.Errorf("%w: row %d is not what was written after row %d", ErrBroken, e.Seq, h.Seq)
	}
	return Head{e.Seq, e.Hash}, nil
}
