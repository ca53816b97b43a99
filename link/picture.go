// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"fulmar/link/internal/flights"
	"fulmar/link/internal/lanes"
	"fulmar/schema"
)

// picture is a blob on its way: its pieces go first, each in its class's turn, and
// when all have arrived its index record goes. So an alarm waits for a piece at
// most, and the fleet has the picture when it hears of it. A generation that ends
// begins the picture anew.
type picture struct {
	flights.Picture
	topic string
	blob  Blob
	size  int64
	next  int64 // offset of the piece to send
}

// sendPicture takes one step with the pictures of a lane: a piece or an index
// record; done is false when there is nothing to do now.
func (p *publisher) sendPicture(ctx context.Context, l *lanes.Lane) (done bool, size int, err error) {
	if p.pics[l] == nil {
		recs, err := p.read(l, 1, packBytes) // each brings its picture along
		if err != nil || len(recs) == 0 {
			return false, 0, err
		}
		if lanes.Pack(recs, packBytes) == 0 {
			return true, 0, p.refuse(l, recs[0], schema.ReasonOversize)
		}
		if opened, err := p.openPicture(l, recs[0]); err != nil || !opened {
			return true, 0, err
		}
		if p.pics[l] == nil { // not a picture's index: goes as it is, the fleet refuses it by name
			return p.sendMessage(ctx, l, recs[:1], nil)
		}
	}
	pic := p.pics[l]
	if pic.next < pic.size {
		return p.sendPiece(ctx, l)
	}
	if !p.Landed(&pic.Picture) {
		return false, 0, nil
	}
	p.closePicture(l)
	return p.sendMessage(ctx, l, []schema.Stored{pic.Record}, pic)
}

// openPicture opens the picture that a record is the index of, if it is one; false
// when the record is dealt with.
func (p *publisher) openPicture(l *lanes.Lane, r schema.Stored) (bool, error) {
	rec, err := schema.DecodeRecord(r.Payload)
	if err != nil || rec.Snapshot == nil {
		return true, nil //nolint:nilerr // see sendPicture
	}
	s := rec.Snapshot
	b, err := p.s.blobs.OpenBlob(s.Name)
	switch {
	case errors.Is(err, ErrBlobGone) || errors.Is(err, fs.ErrNotExist):
		return false, p.refuse(l, r, schema.ReasonBlobGone)
	case err != nil: // it may be readable later; what is behind it goes on
		p.passOver(l, r, s.Name, err)
		return false, nil
	case b.Size() != s.Size:
		_ = b.Close() // only read
		return false, p.refuse(l, r, schema.ReasonBlobGone)
	}
	topic := schema.Topic{Tenant: p.s.cfg.Tenant, Board: p.s.cfg.Board, Channel: schema.ChanBlob, Tail: s.Name}
	l.Busy = true
	p.pics[l] = &picture{Picture: flights.Picture{Name: s.Name, Record: r}, topic: topic.String(), blob: b, size: s.Size}
	return true, nil
}

// sendPiece publishes the next piece of a picture.
func (p *publisher) sendPiece(ctx context.Context, l *lanes.Lane) (bool, int, error) {
	pic := p.pics[l]
	buf := make([]byte, min(pic.size-pic.next, schema.MaxChunk))
	if n, err := pic.blob.ReadAt(buf, pic.next); n < len(buf) { // at the end a full read may say EOF
		p.closePicture(l)
		p.passOver(l, pic.Record, pic.Name, err)
		return true, 0, nil
	}
	payload, err := schema.Encode(&schema.Chunk{V: schema.Version, Offset: pic.next, Total: pic.size, Data: buf})
	if err != nil {
		return false, 0, fmt.Errorf("picture %s: %w", pic.Name, err)
	}
	pic.next += int64(len(buf))
	ok, err := p.launch(ctx, &flights.Flight{Class: schema.ClassSnapshot, Epoch: pic.Record.Epoch, Pic: &pic.Picture}, pic.topic, payload)
	if err != nil || !ok {
		return false, 0, err
	}
	return true, len(payload), nil
}

func (p *publisher) passOver(l *lanes.Lane, r schema.Stored, name string, err error) {
	p.skip(l, r)
	p.s.cfg.Log.Error("picture cannot be read, tried again in the next connection", "blob", name, "seq", r.Seq, "err", err)
}

// closePicture lets go of the picture on its way, if there is one.
func (p *publisher) closePicture(l *lanes.Lane) {
	if pic := p.pics[l]; pic != nil {
		_ = pic.blob.Close() // only read
		delete(p.pics, l)
		l.Busy = false
	}
}

func (p *publisher) closePictures() {
	for l := range p.pics {
		p.closePicture(l)
	}
}
