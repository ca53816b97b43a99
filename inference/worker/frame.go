// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/fxamacker/cbor/v2"
)

// Protocol is the version of the border. Both programs come from one release, so
// there is no range of versions: another number is refused by both sides.
const Protocol = 1

// Limits of the border.
const (
	// MaxUp is the largest frame the worker sends, in bytes: an event of
	// schema.MaxDetections boxes and as many truths is about 50 KiB.
	MaxUp = 256 << 10
	// MaxDown is the largest frame fulmard sends, in bytes: a full setup is
	// about 20 KiB.
	MaxDown = 64 << 10
	// MaxCameras and MaxModels bound a setup.
	MaxCameras = 32
	MaxModels  = 16
	// MaxErrorText is the longest error sentence in a status, in bytes, so that
	// a full status fits a frame.
	MaxErrorText = 512
)

// kind says what a frame's body is. On the wire, append-only.
type kind uint8

const (
	kindHello  kind = 1 // both ways: hello
	kindRefuse kind = 2 // both ways: refusal; the sender closes after it
	kindSetup  kind = 3 // down: Setup
	kindResult kind = 4 // up: numbered
	kindStatus kind = 5 // up: Status
	kindPing   kind = 6 // down: ping
	kindPong   kind = 7 // up: ping, as it came
	kindTaken  kind = 8 // down: taken
)

// hello opens a connection, both ways.
type hello struct {
	Protocol int    `cbor:"1,keyasint"`
	Release  string `cbor:"2,keyasint"`
	// Run names one life of the sender: it tells a client that came back from a
	// new one.
	Run uint64 `cbor:"3,keyasint"`
}

type refusal struct {
	Text string `cbor:"1,keyasint"`
}

type ping struct {
	Number uint64 `cbor:"1,keyasint"`
}

// taken says that all results up to and with Number were handled.
type taken struct {
	Number uint64 `cbor:"1,keyasint"`
}

// numbered is one result under way; numbers rise by one within a worker's life.
type numbered struct {
	Number uint64 `cbor:"1,keyasint"`
	Result Result `cbor:"2,keyasint"`
}

type modes struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

// codec is strict and bounded on the way in. Built once, never changed.
var codec = sync.OnceValue(func() modes {
	enc, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err) // the options are constants: only a broken build gets here
	}
	dec, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:  8,
		MaxArrayElements: 1024,
		MaxMapPairs:      1024,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return modes{enc, dec}
})

var errEmptyFrame = errors.New("frame without a kind: the other side speaks another protocol")

// appendFrame gives the whole frame for v in one slice, so that one write sends it.
func appendFrame(dst []byte, k kind, v any, limit int) ([]byte, error) {
	body, err := codec().enc.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	if len(body)+1 > limit {
		return nil, fmt.Errorf("encode %T: %d bytes, at most %d", v, len(body)+1, limit)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(body)+1))
	dst = append(dst, byte(k))
	return append(dst, body...), nil
}

// frameReader reads frames into one buffer that it keeps: a body is valid until
// the next call.
type frameReader struct {
	r     io.Reader
	limit int // of kind and body, bytes
	buf   []byte
}

// next reads one frame. It returns io.EOF only between frames.
func (f *frameReader) next() (kind, []byte, error) {
	var h [4]byte
	if _, err := io.ReadFull(f.r, h[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("read frame length: %w", err)
		}
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(h[:])
	if n == 0 {
		return 0, nil, errEmptyFrame
	}
	if uint64(n) > uint64(f.limit) {
		return 0, nil, fmt.Errorf("frame of %d bytes, at most %d", n, f.limit)
	}
	if cap(f.buf) < int(n) {
		f.buf = make([]byte, max(int(n), min(4096, f.limit)))
	}
	b := f.buf[:n]
	if _, err := io.ReadFull(f.r, b); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, fmt.Errorf("read frame of %d bytes: %w", n, err)
	}
	return kind(b[0]), b[1:], nil
}

// decode reads a body and checks it where the type knows its limits.
func decode(body []byte, v any) error {
	if err := codec().dec.Unmarshal(body, v); err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	if c, ok := v.(interface{ Validate() error }); ok {
		return c.Validate()
	}
	return nil
}
