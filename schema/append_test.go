// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"
)

// TestEncodeMessage: byte for byte what the general encoder gives, for numbers on both
// sides of each length and for what it refuses.
func TestEncodeMessage(t *testing.T) {
	t.Parallel()
	draw := rand.New(rand.NewPCG(1, 2))
	edges := []uint64{0, 1, 23, 24, 255, 256, 65535, 65536, 1<<32 - 1, 1 << 32, 1 << 62, math.MaxInt64, math.MaxUint64}
	num := func() uint64 {
		if draw.IntN(3) == 0 {
			return draw.Uint64() >> draw.IntN(64)
		}
		return edges[draw.IntN(len(edges))]
	}
	refused := 0
	for range 20_000 {
		m := &Message{
			V: Version, Board: letters(1 + draw.IntN(MaxName+1)), Class: Class(draw.IntN(NumClasses + 1)), Epoch: num(), Replay: draw.IntN(2) == 0,
			Sent: Time{Boot: num(), Mono: int64(num()), Wall: -int64(num())},
		}
		for i := range m.Trace {
			m.Trace[i] = byte(draw.Uint32())
		}
		seq := uint64(0)
		for range draw.IntN(5) {
			seq += 1 + num()>>(1+draw.IntN(63))
			m.Records = append(m.Records, SeqRecord{Seq: seq, Payload: make([]byte, draw.IntN([]int{5, 300, MaxRecord + 2}[draw.IntN(3)]))})
		}
		want, wantErr := Encode(m)
		got, err := EncodeMessage(m)
		if (err == nil) != (wantErr == nil) || !bytes.Equal(got, want) {
			t.Fatalf("%v and %v\n got %x\nwant %x", err, wantErr, got, want)
		}
		if err != nil {
			refused++
		}
	}
	if refused < 1000 || refused > 19_000 {
		t.Errorf("%d of 20,000 were refused", refused)
	}
	for _, v := range vectors() {
		if m, ok := v.value.(*Message); ok {
			want, _ := Encode(m)
			if got, err := EncodeMessage(m); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %v", v.name, err)
			}
		}
	}
}
