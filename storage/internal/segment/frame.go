// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"fulmar/schema"
	"fulmar/storage/vault"
)

// Records lie in packs: some of one commit, one behind the other, as one value under
// the number of the first. bbolt pays for each value with a search from the root, and
// a cipher with a nonce and a tag.
//
//	byte 0       version
//	bytes 1-2    span: number of the last record less that of the first
//	bytes 3-     plain: CRC-32C over epoch, number of the first (8 bytes each),
//	             version, span and body; then the body. Encrypted: see crypt.go
//
// The body is the wall clock of the first record (ms since 1970, 8 bytes), then for
// each record: its number less that of the one before, its wall clock less that of
// the first (zigzag), the length of its payload (varints), and the payload. Fixed
// numbers are little endian.
//
// Epoch and first number are hashed but not stored: a pack that lands under another
// key or in another spool does not match.
const (
	packVersion  = 3
	packHead     = 1 + 2
	packOverhead = packHead + 4
	// packBytes bounds the payload of a pack, unless it is one record: five packs
	// fill a page of 4 KiB. bbolt leaves at least three values on the right where it
	// splits a page, so the larger they are, the more of the left one stays empty.
	// Measured over records of 90 to 500 B, to write(2) for each byte of theirs, with
	// packs of half, third and fifth of a page: 18.4, 17.2 and 16.5 at 8 records a
	// commit, 2.62, 2.57 and 2.40 at 100; smaller ones cost time and gain nothing.
	packBytes = 765
	// packSpan bounds the numbers of a pack, and with it what damage to it can say.
	packSpan = 1 << 10
	// recordOverhead is the most that a record takes in a pack beside its payload,
	// bodyHead what the first takes once.
	recordOverhead = 3 + binary.MaxVarintLen64 + 3
	bodyHead       = 8
)

var errFrame = errors.New("pack does not match its checksum")

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // cached by the library

// packLen tells how many of recs, which must be some, go into one pack.
func packLen(recs []Record) int {
	n := len(recs[0].Payload)
	for i, r := range recs[1:] {
		if n += len(r.Payload) + 4; n > packBytes || r.Seq-recs[0].Seq >= packSpan {
			return i + 1
		}
	}
	return len(recs)
}

func appendHead(b []byte, version byte, recs []Record) []byte {
	return binary.LittleEndian.AppendUint16(append(b, version), uint16(recs[len(recs)-1].Seq-recs[0].Seq))
}

func appendBody(b []byte, recs []Record) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(recs[0].Wall))
	prev := recs[0].Seq
	for i := range recs {
		r := &recs[i]
		b = binary.AppendUvarint(b, r.Seq-prev)
		b = binary.AppendVarint(b, r.Wall-recs[0].Wall)
		b = binary.AppendUvarint(b, uint64(len(r.Payload)))
		b = append(b, r.Payload...)
		prev = r.Seq
	}
	return b
}

// decodeBody gives the records of a body to fn until it returns false; their payloads
// alias the body. key is the number of the first, last that of the last.
func decodeBody(key, last uint64, body []byte, fn func(Record) bool) error {
	if len(body) < bodyHead {
		return errFrame
	}
	wall, seq := int64(binary.LittleEndian.Uint64(body)), key
	for at, first := bodyHead, true; at < len(body); first = false {
		step, n := binary.Uvarint(body[at:])
		if n <= 0 || step > packSpan || first != (step == 0) {
			return errFrame
		}
		at += n
		d, n := binary.Varint(body[at:])
		if n <= 0 {
			return errFrame
		}
		at += n
		size, n := binary.Uvarint(body[at:])
		if at += n; n <= 0 || size == 0 || size > schema.MaxRecord || size > uint64(len(body)-at) {
			return errFrame
		}
		if seq += step; seq > last {
			return errFrame
		}
		if !fn(Record{Seq: seq, Wall: wall + d, Payload: body[at : at+int(size)]}) {
			return nil
		}
		at += int(size)
	}
	if seq != last {
		return errFrame
	}
	return nil
}

// packSum is over what is not stored (epoch, key) and what is; scratch holds the
// former.
func packSum(scratch *[16]byte, epoch, key uint64, head, body []byte) uint32 {
	binary.LittleEndian.PutUint64(scratch[0:], epoch)
	binary.LittleEndian.PutUint64(scratch[8:], key)
	t := castagnoli()
	return crc32.Update(crc32.Update(crc32.Checksum(scratch[:], t), t, head), t, body)
}

// plain makes and checks the packs of a segment that is not encrypted.
type plain struct{ scratch [16]byte }

func (p *plain) append(b []byte, epoch uint64, recs []Record) []byte {
	at := len(b)
	b = append(appendHead(b, packVersion, recs), 0, 0, 0, 0)
	b = appendBody(b, recs)
	sum := packSum(&p.scratch, epoch, recs[0].Seq, b[at:at+packHead], b[at+packOverhead:])
	binary.LittleEndian.PutUint32(b[at+packHead:], sum)
	return b
}

// body checks a pack and gives its body, which aliases b.
func (p *plain) body(epoch, key uint64, b []byte) ([]byte, error) {
	if len(b) < packOverhead || len(b) > packOverhead+bodyMax || b[0] != packVersion {
		return nil, errFrame
	}
	if packSum(&p.scratch, epoch, key, b[:packHead], b[packOverhead:]) != binary.LittleEndian.Uint32(b[packHead:]) {
		return nil, errFrame
	}
	return b[packOverhead:], nil
}

// bodyMax is the longest body: one record of the largest size.
const bodyMax = bodyHead + recordOverhead + schema.MaxRecord

// span is the number of a pack's last record, as its head says.
func span(key uint64, b []byte) uint64 {
	if len(b) < packHead {
		return key
	}
	return key + min(uint64(binary.LittleEndian.Uint16(b[1:])), packSpan)
}

// The header is one value in the header bucket. Version 1, of a plain segment:
// version, class, epoch, first sequence number, CRC-32C over those. Version 2, of an
// encrypted one, has the id of the data key, a random salt and a tag before the CRC;
// see crypt.go. The places of version and CRC are for ever.
const (
	headerPlain  = 1
	headerCrypt  = 2
	headerCommon = 1 + 1 + 8 + 8
	headerSize   = headerCommon + 4
	cryptSize    = headerCommon + 8 + saltBytes + tagBytes + 4
)

// Header says whose segment a file is.
type Header struct {
	Class schema.Class
	Epoch uint64   // of the class's spool
	First uint64   // lowest sequence number the segment may hold
	Key   vault.ID // of the data key; 0: the segment is not encrypted
}

// head is a header with what only its cipher needs.
type head struct {
	Header
	salt [saltBytes]byte
	tag  [tagBytes]byte
}

// common is what both versions begin with, and what an encrypted segment's key is
// bound to.
func (h Header) common(version byte) []byte {
	b := append(make([]byte, 0, cryptSize), version, byte(h.Class))
	b = binary.LittleEndian.AppendUint64(b, h.Epoch)
	return binary.LittleEndian.AppendUint64(b, h.First)
}

func (h *head) encode() []byte {
	b := h.common(headerPlain)
	if h.Key != 0 {
		b = binary.LittleEndian.AppendUint64(h.common(headerCrypt), uint64(h.Key))
		b = append(append(b, h.salt[:]...), h.tag[:]...)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli()))
}

var errHeader = errors.New("segment header does not match its checksum")

func decodeHeader(b []byte) (h head, err error) {
	if len(b) < headerSize || crc32.Checksum(b[:len(b)-4], castagnoli()) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return h, errHeader
	}
	if b[0] > headerCrypt {
		return h, fmt.Errorf("%w: segment format %d, this program knows %d; update fulmar", ErrNewer, b[0], headerCrypt)
	}
	h.Class, h.Epoch, h.First = schema.Class(b[1]), binary.LittleEndian.Uint64(b[2:]), binary.LittleEndian.Uint64(b[10:])
	switch {
	case b[0] == headerPlain && len(b) == headerSize:
		return h, nil
	case b[0] == headerCrypt && len(b) == cryptSize:
		h.Key = vault.ID(binary.LittleEndian.Uint64(b[headerCommon:]))
		copy(h.salt[:], b[headerCommon+8:])
		copy(h.tag[:], b[headerCommon+8+saltBytes:])
		if h.Key != 0 {
			return h, nil
		}
	}
	return head{}, errHeader
}
