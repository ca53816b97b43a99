// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"fulmar/schema"
)

// A frame is one value in the records bucket:
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

// The header is one value in the header bucket: version, class, epoch, first
// sequence number, CRC-32C over those.
const headerSize = 1 + 1 + 8 + 8 + 4

// Header says whose segment a file is.
type Header struct {
	Class schema.Class
	Epoch uint64 // of the class's spool
	First uint64 // lowest sequence number the segment may hold
}

func (h Header) encode() []byte {
	b := append(make([]byte, 0, headerSize), frameVersion, byte(h.Class))
	b = binary.LittleEndian.AppendUint64(b, h.Epoch)
	b = binary.LittleEndian.AppendUint64(b, h.First)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli()))
}

func decodeHeader(b []byte) (Header, error) {
	if len(b) != headerSize || b[0] != frameVersion ||
		crc32.Checksum(b[:headerSize-4], castagnoli()) != binary.LittleEndian.Uint32(b[headerSize-4:]) {
		return Header{}, errors.New("segment header does not match its checksum")
	}
	return Header{
		Class: schema.Class(b[1]),
		Epoch: binary.LittleEndian.Uint64(b[2:]),
		First: binary.LittleEndian.Uint64(b[10:]),
	}, nil
}
