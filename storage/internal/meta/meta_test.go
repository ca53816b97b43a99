// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"reflect"
	"testing"

	"fulmar/schema"
	"fulmar/storage/internal/ranges"
)

func example() Meta {
	return Meta{Gen: 6, Epoch: 0xfeed, Reserved: 1024, Low: 10, Newest: 5, Above: []ranges.Range{{First: 12, Last: 20}, {First: 30, Last: 30}}}
}

// The format is pinned: a spool on a board outlives the program.
func TestFormat(t *testing.T) {
	t.Parallel()
	m := example()
	b := m.encode(schema.ClassMetric)
	const want = "66756c73706f6f6c" + "02020200" + "0600000000000000" + "edfe000000000000" + "0004000000000000" + "0a00000000000000" + "0500000000000000" +
		"0c00000000000000" + "1400000000000000" + "1e00000000000000" + "1e00000000000000" + "00"
	if got := hex.EncodeToString(b[:len(want)/2]); got != want || len(b) != 4096 {
		t.Errorf("%d bytes\n got %s\nwant %s", len(b), got, want)
	}
	got, err := decode(schema.ClassMetric, b)
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := decode(schema.ClassEvent, b); err == nil {
		t.Error("a meta of another class was read")
	}
}

// TestVersion1 had no newest segment.
func TestVersion1(t *testing.T) {
	t.Parallel()
	b, err := hex.DecodeString("66756c73706f6f6c" + "01020200" + "0600000000000000" + "edfe000000000000" + "0004000000000000" + "0a00000000000000" +
		"0c00000000000000" + "1400000000000000" + "1e00000000000000" + "1e00000000000000")
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, make([]byte, size-len(b))...)
	binary.LittleEndian.PutUint32(b[size-4:], crc32.Checksum(b[:size-4], crc32.MakeTable(crc32.Castagnoli)))
	want := example()
	want.Newest = 0
	if got, err := decode(schema.ClassMetric, b); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestEveryFlippedBitIsSeen(t *testing.T) {
	t.Parallel()
	m := example()
	b := m.encode(0)
	for i := range len(b) * 8 {
		b[i/8] ^= 1 << (i % 8)
		if _, err := decode(0, b); err == nil || errors.Is(err, ErrNewer) {
			t.Fatalf("bit %d: %v", i, err)
		}
		b[i/8] ^= 1 << (i % 8)
	}
}

func TestMoreIntervalsThanFit(t *testing.T) {
	t.Parallel()
	m := Meta{Gen: 1, Epoch: 1, Reserved: 1 << 20}
	for i := range uint64(MaxIntervals + 50) {
		m.Above = append(m.Above, ranges.Range{First: 10 + 10*i, Last: 11 + 10*i})
	}
	got, err := decode(0, m.encode(0))
	if err != nil || !reflect.DeepEqual(got.Above, m.Above[:MaxIntervals]) {
		t.Errorf("%d intervals, %v", len(got.Above), err)
	}
}

// The newer copy stands; when its writing was torn, the older one does.
func TestNewestSoundCopyStands(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if m, bad, err := Load(dir, 0); m.Epoch != 0 || bad != 0 || err != nil {
		t.Fatalf("an empty folder: %+v, %d, %v", m, bad, err)
	}
	for gen := uint64(1); gen < 10; gen++ {
		if err := Write(dir, 0, Meta{Gen: gen, Epoch: 5, Reserved: gen * 100}, false); err != nil {
			t.Fatal(err)
		}
		m, bad, err := Load(dir, 0)
		if err != nil || m.Gen != gen || m.Reserved != gen*100 || bad != 0 && gen > 1 {
			t.Fatalf("generation %d: %+v, %d bad, %v", gen, m, bad, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	m := example()
	f.Add(m.encode(0))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == size { // past the checksum, or nothing behind it is ever reached
			binary.LittleEndian.PutUint32(b[size-4:], crc32.Checksum(b[:size-4], crc32.MakeTable(crc32.Castagnoli)))
		}
		m, err := decode(0, b)
		if err != nil {
			return
		}
		set := ranges.New(m.Low, m.Above)
		if set.Low() < m.Low || m.Epoch == 0 || len(m.Above) > MaxIntervals {
			t.Errorf("decoded %+v", m)
		}
		again, err := decode(0, m.encode(0))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Errorf("%+v came back as %+v, %v", m, again, err)
		}
	})
}
