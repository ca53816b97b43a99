// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

// Newer tells whether a payload is of a wire version above [Version], and of which.
// It needs nothing but what each version keeps: a payload is a map whose first key
// is 1, the version; the rest may be anything, also CBOR that [Decode] forbids.
func Newer(b []byte) (version uint8, newer bool) {
	if len(b) == 0 || b[0]>>5 != 5 { // a map
		return 0, false
	}
	head := 1
	switch n := b[0] & 31; {
	case n == 24:
		head = 2
	case n == 25:
		head = 3
	case n > 25 && n < 31:
		return 0, false // of more entries than any payload can hold
	}
	if len(b) < head+3 || b[head] != 1 {
		return 0, false
	}
	switch v := b[head+1]; {
	case v < 24:
		version = v
	case v == 24:
		version = b[head+2]
	}
	return version, version > Version
}

// HelloConn gives the connection that a hello of any wire version names, 0 where it
// cannot be told. An answer with another number is not heard by the board.
func HelloConn(b []byte) uint64 {
	var h struct {
		Conn uint64 `cbor:"4,keyasint"`
	}
	if Decode(b, &h) != nil {
		return 0
	}
	return h.Conn
}
