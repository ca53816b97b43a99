// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"strings"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// TestOneFilter: a SUBACK has at most as many answers as the SUBSCRIBE of its number has
// filters, however many another one has: the client writes each into a place of that one.
// An UNSUBACK answers an UNSUBSCRIBE alone.
func TestOneFilter(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in  []byte
		why string
	}{
		{[]byte{0x90, 3, 0, 1, 0, 0xb0, 2, 0, 2}, ""},
		{[]byte{0x90, 4, 0, 1, 0, 0}, "2 answers to 1"},
		{[]byte{0x90, 3, 0, 2, 0}, "never sent"},
		{[]byte{0x40, 2, 0, 2}, "never sent"},
		{[]byte{0xb0, 2, 0, 2, 0xb0, 2, 0, 2}, "never sent"},
		{[]byte{0xb0, 3, 0, 2, 0}, "bytes or more"},
	} {
		asked := map[uint16]question{}
		g := &Conn{cfg: Config{Filters: 9}, asked: asked}
		one := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
		one.MessageID, one.Topics, one.Qoss = 1, []string{strings.Repeat("x", 200)}, []byte{0}
		off := packets.NewControlPacket(packets.Unsubscribe).(*packets.UnsubscribePacket)
		off.MessageID, off.Topics = 2, one.Topics
		for _, p := range []packets.ControlPacket{one, off} {
			b := packet(t, p)
			id, kind := outgoing(b)
			asked[id] = question{kind: kind, size: filters(b)}
		}
		f := framing{cfg: g.cfg, answer: g.answer}
		err := f.take(append([]byte{0x20, 2, 0, 0}, c.in...))
		if c.why == "" && err != nil || c.why != "" && (err == nil || !strings.Contains(err.Error(), c.why)) {
			t.Errorf("%x: %v, wants %q", c.in, err, c.why)
		}
	}
}

func FuzzFilters(f *testing.F) {
	f.Add([]byte{0x82, 8, 0, 1, 0, 1, 'a', 0, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, b []byte) { filters(b) })
}
