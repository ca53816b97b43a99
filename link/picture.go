// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"fulmar/schema"
)

// picture is a blob on its way: its pieces go first, each in its class's turn, and
// when all have arrived its index record goes. So an alarm waits for a piece at
// most, and the fleet has the picture when it hears of it. A generation that ends
// begins the picture anew.
type picture struct {
	rec    schema.Stored
	name   string
	topic  string
	blob   Blob
	size   int64
	next   int64 // offset of the piece to send
	flying int   // pieces and index in flight; the window's lock guards it
}

// sendPicture takes one step with the pictures: a piece or an index record; done is
// false when there is nothing to do now.
func (p *publisher) sendPicture(ctx context.Context, c schema.Class) (done bool, size int, err error) {
	if p.pic == nil {
		recs, err := p.read(c, 1) // each brings its picture along
		if err != nil || len(recs) == 0 {
			return false, 0, err
		}
		if pack(recs) == 0 {
			return true, 0, p.refuse(recs[0], schema.ReasonOversize)
		}
		if opened, err := p.openPicture(recs[0]); err != nil || !opened {
			return true, 0, err
		}
		if p.pic == nil { // not a picture's index: goes as it is, the fleet refuses it by name
			return p.sendMessage(ctx, recs[:1], nil)
		}
	}
	pic := p.pic
	if pic.next < pic.size {
		return p.sendPiece(ctx, pic)
	}
	if !p.landed(pic) {
		return false, 0, nil
	}
	p.closePicture()
	return p.sendMessage(ctx, []schema.Stored{pic.rec}, pic)
}

// openPicture opens the picture that a record is the index of, if it is one; false
// when the record is dealt with.
func (p *publisher) openPicture(r schema.Stored) (bool, error) {
	rec, err := schema.DecodeRecord(r.Payload)
	if err != nil || rec.Snapshot == nil {
		return true, nil //nolint:nilerr // see sendPicture
	}
	s := rec.Snapshot
	b, err := p.s.blobs.OpenBlob(s.Name)
	switch {
	case errors.Is(err, ErrBlobGone) || errors.Is(err, fs.ErrNotExist):
		return false, p.refuse(r, schema.ReasonBlobGone)
	case err != nil: // it may be readable later; what is behind it goes on
		p.passOver(r, s.Name, err)
		return false, nil
	case b.Size() != s.Size:
		_ = b.Close() // only read
		return false, p.refuse(r, schema.ReasonBlobGone)
	}
	topic := schema.Topic{Tenant: p.s.cfg.Tenant, Board: p.s.cfg.Board, Channel: schema.ChanBlob, Tail: s.Name}
	p.pic = &picture{rec: r, name: s.Name, topic: topic.String(), blob: b, size: s.Size}
	return true, nil
}

// sendPiece publishes the next piece of a picture.
func (p *publisher) sendPiece(ctx context.Context, pic *picture) (bool, int, error) {
	buf := make([]byte, min(pic.size-pic.next, schema.MaxChunk))
	if n, err := pic.blob.ReadAt(buf, pic.next); n < len(buf) { // at the end a full read may say EOF
		p.closePicture()
		p.passOver(pic.rec, pic.name, err)
		return true, 0, nil
	}
	payload, err := schema.Encode(&schema.Chunk{V: schema.Version, Offset: pic.next, Total: pic.size, Data: buf})
	if err != nil {
		return false, 0, fmt.Errorf("picture %s: %w", pic.name, err)
	}
	ok, err := p.launch(ctx, &flight{pic: pic}, pic.topic, payload)
	if err != nil || !ok {
		return false, 0, err
	}
	pic.next += int64(len(buf))
	return true, len(payload), nil
}

func (p *publisher) passOver(r schema.Stored, name string, err error) {
	p.skip(r)
	p.s.cfg.Log.Error("picture cannot be read, tried again in the next connection", "blob", name, "seq", r.Seq, "err", err)
}

// closePicture lets go of the picture on its way, if there is one.
func (p *publisher) closePicture() {
	if p.pic != nil {
		_ = p.pic.blob.Close() // only read
		p.pic = nil
	}
}
