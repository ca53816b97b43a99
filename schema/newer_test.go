// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"bytes"
	"testing"
)

// TestNewer: the version is told of each type that carries one, whatever follows it.
func TestNewer(t *testing.T) {
	t.Parallel()
	for _, v := range vectors() {
		b, err := Encode(v.value)
		if err != nil {
			t.Fatal(err)
		}
		if _, newer := Newer(b); newer && len(v.name) > 7 && v.name[:7] != "record-" {
			t.Errorf("%s of this version is taken for a newer one", v.name)
		}
		switch v.value.(type) {
		case *Message, *Chunk, *Presence, *Hello, *HelloAck, *Ack:
		default:
			continue
		}
		if b[1] != 1 || b[2] != Version {
			t.Fatalf("%s does not begin with its version: % x", v.name, b[:3])
		}
		for _, version := range []uint8{Version + 1, 23, 24, 255} {
			later := append([]byte{b[0], 1, version}, b[3:]...)
			if version > 23 {
				later = append([]byte{b[0], 1, 24, version}, b[3:]...)
			}
			for what, p := range map[string][]byte{"": later, "long map": append([]byte{0xb8, 30}, later[1:]...), "endless map": append([]byte{0xbf}, later[1:]...), "cut": later[:4]} {
				if got, newer := Newer(p); !newer || got != version {
					t.Errorf("%s of version %d, %s: version %d, newer %v", v.name, version, what, got, newer)
				}
			}
			if h, ok := v.value.(*Hello); ok && HelloConn(later) != h.Conn {
				t.Errorf("hello of version %d: connection %d, want %d", version, HelloConn(later), h.Conn)
			}
		}
	}
	for _, p := range [][]byte{nil, {}, {0xa1}, {0xa1, 1}, {0x82, 1, 2, 0}, {0xa1, 2, 2, 0}, []byte("hello"), {0xbb, 1, 2, 3, 4}, {0xa1, 1, 0x20, 0}, bytes.Repeat([]byte{0xff}, 9)} {
		if v, newer := Newer(p); newer {
			t.Errorf("% x is taken for version %d", p, v)
		}
	}
	if c := HelloConn([]byte{0xff}); c != 0 {
		t.Errorf("noise names connection %d", c)
	}
}
