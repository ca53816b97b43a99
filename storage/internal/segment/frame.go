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

// A plain frame is one value in the records bucket:
//
//	byte 0       version
//	bytes 1-4    CRC-32C, little endian, over epoch, seq (8 bytes each, little
//	             endian), version, wall and payload
//	bytes 5-12   wall clock at Append, ms since 1970, little endian
//	bytes 13-    payload
//
// Epoch and seq are hashed but not stored: a frame that lands under another key
// or in another spool does not match, and the record is 16 bytes smaller.
const (
	frameVersion  = 1
	frameOverhead = 13
)

var errFrame = errors.New("frame does not match its checksum")

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // cached by the library

func frameSum(epoch, seq uint64, rest []byte, version byte) uint32 {
	var h [17]byte
	binary.LittleEndian.PutUint64(h[0:], epoch)
	binary.LittleEndian.PutUint64(h[8:], seq)
	h[16] = version
	t := castagnoli()
	return crc32.Update(crc32.Checksum(h[:], t), t, rest)
}

// appendFrame adds the frame of one record to b.
func appendFrame(b []byte, epoch uint64, r Record) []byte {
	at := len(b)
	b = append(b, frameVersion, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.Wall))
	b = append(b, r.Payload...)
	binary.LittleEndian.PutUint32(b[at+1:], frameSum(epoch, r.Seq, b[at+5:], frameVersion))
	return b
}

// decodeFrame checks a frame and gives its wall clock and payload, which aliases b.
func decodeFrame(epoch, seq uint64, b []byte) (wall int64, payload []byte, err error) {
	if len(b) <= frameOverhead || len(b) > frameOverhead+schema.MaxRecord || b[0] != frameVersion {
		return 0, nil, errFrame
	}
	if frameSum(epoch, seq, b[5:], b[0]) != binary.LittleEndian.Uint32(b[1:]) {
		return 0, nil, errFrame
	}
	return int64(binary.LittleEndian.Uint64(b[5:])), b[frameOverhead:], nil
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
