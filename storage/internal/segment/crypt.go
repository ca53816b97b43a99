// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"fulmar/storage/vault"
)

// An encrypted segment has a key of its own, made of the data key, the salt in its
// header and what else the header says. An encrypted pack is
//
//	byte 0       version
//	bytes 1-2    span, as in a plain one
//	bytes 3-6    count
//	bytes 7-     AES-256-GCM of the body, with the tag of 16 bytes at the end
//
// The tag is also over class, epoch, number of the first record, version and span, so
// a pack that lands under another key, or in another file, does not match. There is
// no CRC.
//
// A nonce must never be used twice under one key. It is not made of the number:
// after a commit that failed its number may go to another record of the same
// segment, and the first ciphertext may be on the disk. So the packs of a segment
// are counted as they are made, failed or not. Only the handle that made a file
// writes to it, so the count starts at zero once. It ends the segment where it would
// wrap around.
const (
	cryptVersion  = 4
	cryptOverhead = packHead + 4 + tagBytes
	saltBytes     = 16
	tagBytes      = 16
	nonceBytes    = 12
)

// The first byte of a nonce says what is encrypted; the count is in its last four.
const (
	nonceHeader = 0
	nonceFrame  = 1
)

// crypt encrypts and decrypts the frames of one segment. Its buffers are reused.
type crypt struct {
	aead  cipher.AEAD
	count uint32
	nonce [nonceBytes]byte
	extra [1 + 8 + 8 + packHead]byte // class, epoch, number of the first record, head
	plain []byte
}

var errCount = errors.New("segment has used up its nonces; it is full")

// newCrypt makes the key of a new segment and completes its header; nil where keys
// is nil.
func newCrypt(h *head, keys *vault.Keys) (*crypt, error) {
	if keys == nil {
		return nil, nil
	}
	h.Key = keys.Newest()
	_, _ = rand.Read(h.salt[:]) // never fails, see crypto/rand
	c, err := cryptOf(h, keys)
	if err != nil {
		return nil, err
	}
	copy(h.tag[:], c.headerTag(h))
	return c, nil
}

// openCrypt finds the key of a segment; nil where it is plain.
func openCrypt(h *head, keys *vault.Keys) (*crypt, error) {
	if h.Key == 0 {
		return nil, nil
	}
	c, err := cryptOf(h, keys)
	if err != nil {
		return nil, err
	}
	if string(c.headerTag(h)) != string(h.tag[:]) {
		return nil, fmt.Errorf("%w: the header does not match its key", ErrDamaged)
	}
	return c, nil
}

func cryptOf(h *head, keys *vault.Keys) (*crypt, error) {
	aead, err := keys.Segment(h.Key, h.salt[:], h.common(headerCrypt))
	if err != nil {
		return nil, err
	}
	c := &crypt{aead: aead}
	c.extra[0] = byte(h.Class)
	binary.LittleEndian.PutUint64(c.extra[1:], h.Epoch)
	return c, nil
}

// headerTag is the tag of a header; it tells a wrong key before a frame is read.
func (c *crypt) headerTag(h *head) []byte {
	nonce := [nonceBytes]byte{nonceHeader}
	return c.aead.Seal(nil, nonce[:], nil, binary.LittleEndian.AppendUint64(h.common(headerCrypt), uint64(h.Key)))
}

func (c *crypt) prepare(key uint64, head []byte, count uint32) {
	c.nonce[0] = nonceFrame
	binary.LittleEndian.PutUint32(c.nonce[nonceBytes-4:], count)
	binary.LittleEndian.PutUint64(c.extra[9:], key)
	copy(c.extra[17:], head)
}

// append adds the encrypted pack of some records to b.
func (c *crypt) append(b []byte, recs []Record) ([]byte, error) {
	if c.count == math.MaxUint32 {
		return b, errCount
	}
	c.count++
	at := len(b)
	b = appendHead(b, cryptVersion, recs)
	c.prepare(recs[0].Seq, b[at:at+packHead], c.count)
	b = binary.LittleEndian.AppendUint32(b, c.count)
	at = len(b)
	b = appendBody(b, recs)
	return c.aead.Seal(b[:at], c.nonce[:], b[at:], c.extra[:]), nil // in place
}

// body decrypts a pack; what it gives is valid until the next call.
func (c *crypt) body(key uint64, b []byte) ([]byte, error) {
	if len(b) < cryptOverhead || len(b) > cryptOverhead+bodyMax || b[0] != cryptVersion {
		return nil, errFrame
	}
	c.prepare(key, b[:packHead], binary.LittleEndian.Uint32(b[packHead:]))
	plain, err := c.aead.Open(c.plain[:0], c.nonce[:], b[packHead+4:], c.extra[:])
	if err != nil {
		return nil, errFrame
	}
	c.plain = plain
	return plain, nil
}

// body checks a pack as the segment's header says: a plain pack in an encrypted
// segment is as wrong as a flipped bit.
func (d *DB) body(key uint64, b []byte) ([]byte, error) {
	if d.Locked != nil {
		return nil, d.Locked
	}
	if d.crypt != nil {
		return d.crypt.body(key, b)
	}
	return d.plain.body(d.Header.Epoch, key, b)
}
