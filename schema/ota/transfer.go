// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

import (
	"fmt"

	"fulmar/schema"
)

// Bounds of a transfer.
const (
	// HashSize is that of an object's name here: the root of its tree, see ota/release.
	HashSize = 32
	// MaxMissing is the longest bitmap, in bytes: pieces of 4 GiB. An object with more is
	// asked for in parts.
	MaxMissing = 8 << 10
	// MaxCredit is how many pieces one Want may ask for: 16 MiB.
	MaxCredit = 256
	// MaxPath is the longest proof of a piece or a statement, in bytes: 2^18 of them.
	MaxPath = 18 * HashSize
	// MaxStatement is the longest statement of the director or of freshness, in bytes.
	MaxStatement = 8 << 10
	maxNonce     = 32
	minNonce     = 16
	maxBatch     = 2 << 10 // bytes of a batch's envelope
)

// Proof shows that a statement is one of a signed batch, see trust.Proof.
type Proof struct {
	Envelope []byte `cbor:"1,keyasint"`
	Index    uint32 `cbor:"2,keyasint"`
	Count    uint32 `cbor:"3,keyasint"`
	Path     []byte `cbor:"4,keyasint,omitempty"`
}

func (p *Proof) check() error {
	if len(p.Envelope) == 0 || len(p.Envelope) > maxBatch || p.Index >= p.Count || len(p.Path) > MaxPath || len(p.Path)%HashSize != 0 {
		return fmt.Errorf("proof %d of %d with an envelope of %d bytes, at most %d, and a path of %d", p.Index, p.Count, len(p.Envelope), maxBatch, len(p.Path))
	}
	return nil
}

// Proven is a statement with its proof.
type Proven struct {
	Statement []byte `cbor:"1,keyasint"`
	Proof     Proof  `cbor:"2,keyasint"`
}

func (p *Proven) check() error {
	if len(p.Statement) == 0 || len(p.Statement) > MaxStatement {
		return fmt.Errorf("statement of %d bytes, wants 1 to %d", len(p.Statement), MaxStatement)
	}
	return p.Proof.check()
}

// Want is what a board asks for on schema.ChanWant: pieces of an object, what is newest, or
// both. Words for an object add to those before them.
type Want struct {
	V uint8 `cbor:"1,keyasint"`
	// Object is the root of its tree, Size its bytes; without one only Nonce is asked.
	Object []byte `cbor:"2,keyasint,omitempty"`
	Size   int64  `cbor:"3,keyasint,omitempty"`
	// From is the piece that the lowest bit of the first byte of Missing stands for; a bit
	// that is set is a piece that is not there. What lies before and behind is not asked for.
	From    uint32 `cbor:"4,keyasint,omitempty"`
	Missing []byte `cbor:"5,keyasint,omitempty"`
	// Credit is how many pieces are asked for: the first so many of Missing, whose other bits
	// say what a pass has to bring. 0 ends the sending for this and all words before.
	Credit uint16 `cbor:"6,keyasint,omitempty"`
	// Cast: the board hears the object's own topic, see schema.ObjectTopic.
	Cast bool `cbor:"7,keyasint,omitempty"`
	// Nonce asks what is newest, see Down.Fresh; 16 to 32 bytes.
	Nonce []byte `cbor:"8,keyasint,omitempty"`
	// ID numbers the words of a board for an object, from 1, see Hold.Done; 0 none.
	ID uint32 `cbor:"9,keyasint,omitempty"`
}

// Validate checks the limits.
func (w *Want) Validate() error {
	if w.V == 0 || w.V > schema.Version {
		return fmt.Errorf("want of wire version %d, this program reads up to %d", w.V, schema.Version)
	}
	if len(w.Object) == 0 && len(w.Nonce) == 0 {
		return fmt.Errorf("want of nothing")
	}
	if len(w.Nonce) != 0 && (len(w.Nonce) < minNonce || len(w.Nonce) > maxNonce) {
		return fmt.Errorf("want with a nonce of %d bytes, wants %d to %d", len(w.Nonce), minNonce, maxNonce)
	}
	if len(w.Object) == 0 {
		if w.Size != 0 || w.From != 0 || len(w.Missing) != 0 || w.Credit != 0 || w.Cast {
			return fmt.Errorf("want of pieces of no object")
		}
		return nil
	}
	if len(w.Object) != HashSize || w.Size < 1 || len(w.Missing) > MaxMissing || w.Credit > MaxCredit {
		return fmt.Errorf("want of an object with a name of %d bytes and %d bytes in size, a bitmap of %d bytes, credit for %d pieces", len(w.Object), w.Size, len(w.Missing), w.Credit)
	}
	return nil
}

// Piece is a piece of an object, with the path that proves it.
type Piece struct {
	Object []byte `cbor:"1,keyasint"`
	Index  uint32 `cbor:"2,keyasint"`
	Data   []byte `cbor:"3,keyasint"`
	Path   []byte `cbor:"4,keyasint,omitempty"`
}

// Hold tells a board what becomes of its Want.
type Hold struct {
	Object []byte `cbor:"1,keyasint"`
	// ForMs is how long to wait before asking again: a pass over the object's own topic is
	// about to begin or runs, or the site has had its share.
	ForMs uint32 `cbor:"2,keyasint,omitempty"`
	// Refused: it is not given to this board, for a reason to tell people.
	Refused string `cbor:"3,keyasint,omitempty"`
	// Done: what was asked for up to the word of this ID and has not come before this does
	// not come any more; 0 says nothing of that.
	Done uint32 `cbor:"4,keyasint,omitempty"`
}

// Down is what the fleet says on schema.ChanPiece, and on the topic of an object: one of the
// three.
type Down struct {
	V     uint8   `cbor:"1,keyasint"`
	Piece *Piece  `cbor:"2,keyasint,omitempty"`
	Fresh *Proven `cbor:"3,keyasint,omitempty"` // release.Fresh
	Hold  *Hold   `cbor:"4,keyasint,omitempty"`
}

// Validate checks the limits.
func (d *Down) Validate() error {
	if d.V == 0 || d.V > schema.Version {
		return fmt.Errorf("word of wire version %d, this program reads up to %d", d.V, schema.Version)
	}
	n := 0
	if p := d.Piece; p != nil {
		n++
		if len(p.Object) != HashSize || len(p.Data) == 0 || len(p.Data) > schema.MaxChunk || len(p.Path) > MaxPath || len(p.Path)%HashSize != 0 {
			return fmt.Errorf("piece %d of an object with a name of %d bytes: %d bytes, a path of %d", p.Index, len(p.Object), len(p.Data), len(p.Path))
		}
	}
	if d.Fresh != nil {
		n++
		if err := d.Fresh.check(); err != nil {
			return err
		}
	}
	if h := d.Hold; h != nil {
		n++
		if len(h.Object) != HashSize || len(h.Refused) > schema.MaxText {
			return fmt.Errorf("hold of an object with a name of %d bytes, a reason of %d", len(h.Object), len(h.Refused))
		}
	}
	if n != 1 {
		return fmt.Errorf("word with %d contents, wants one", n)
	}
	return nil
}
