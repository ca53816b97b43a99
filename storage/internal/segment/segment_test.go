// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"fulmar/schema"
)

// The frame is pinned: a spool on a board outlives the program.
func TestFrameFormat(t *testing.T) {
	t.Parallel()
	r := Record{Seq: 7, Wall: 1_700_000_000_123, Payload: []byte("abc")}
	b := appendFrame(nil, 0xfeed, r)
	const want = "01" + "55dd8459" + "7b68e5cf8b010000" + "616263" // the CRC comes from another implementation
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("frame %s, want %s", got, want)
	}
	wall, p, err := decodeFrame(0xfeed, 7, b)
	if err != nil || wall != r.Wall || string(p) != "abc" {
		t.Errorf("%d %q %v", wall, p, err)
	}
	if _, _, err := decodeFrame(0xfeed, 8, b); err == nil {
		t.Error("a frame was read under another number")
	}
	if _, _, err := decodeFrame(0xfeee, 7, b); err == nil {
		t.Error("a frame was read in another epoch")
	}
	for i := range len(b) * 8 {
		b[i/8] ^= 1 << (i % 8)
		if _, _, err := decodeFrame(0xfeed, 7, b); err == nil {
			t.Errorf("flipped bit %d was not seen", i)
		}
		b[i/8] ^= 1 << (i % 8)
	}
}

func FuzzDecodeFrame(f *testing.F) {
	f.Add(uint64(1), uint64(2), appendFrame(nil, 1, Record{Seq: 2, Wall: 3, Payload: []byte("payload")}))
	f.Add(uint64(0), uint64(0), []byte{})
	f.Fuzz(func(t *testing.T, epoch, seq uint64, b []byte) {
		wall, p, err := decodeFrame(epoch, seq, b)
		if err == nil && !bytes.Equal(appendFrame(nil, epoch, Record{Seq: seq, Wall: wall, Payload: p}), b) {
			t.Error("what was decoded does not encode to the same bytes")
		}
		// Any payload must come back.
		if len(b) > 0 && len(b) <= schema.MaxRecord {
			w, p, err := decodeFrame(epoch, seq, appendFrame(nil, epoch, Record{Seq: seq, Wall: int64(seq), Payload: b}))
			if err != nil || w != int64(seq) || !bytes.Equal(p, b) {
				t.Errorf("%d bytes came back as %d, %v", len(b), len(p), err)
			}
		}
	})
}

func FuzzDecodeHeader(f *testing.F) {
	f.Add((&head{Header: Header{Class: 1, Epoch: 2, First: 3}}).encode())
	f.Add((&head{Header: Header{Class: 1, Epoch: 2, First: 3, Key: 4}}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := decodeHeader(b); err == nil && !bytes.Equal(h.encode(), b) {
			t.Errorf("%+v", h)
		}
	})
}

// FuzzOpenFile gives bbolt files with bytes changed: nothing may panic, and no
// wrong record come out.
func FuzzOpenFile(f *testing.F) {
	dir := f.TempDir()
	path := filepath.Join(dir, Name(1))
	d, err := Create(path, Header{Class: 1, Epoch: 2, First: 1}, Options{MaxBytes: 1 << 16, NoSync: true})
	if err != nil {
		f.Fatal(err)
	}
	var recs []Record
	for n := range uint64(40) {
		recs = append(recs, Record{Seq: n + 1, Wall: int64(n), Payload: bytes.Repeat([]byte{byte(n)}, 100)})
	}
	if err := d.Append(recs); err != nil {
		f.Fatal(err)
	}
	if err := d.Close(); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(8192), []byte{1, 2, 3}, uint32(0))
	f.Add(uint32(100), []byte{0xff}, uint32(5000))
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, cut uint32) {
		b := bytes.Clone(good)
		copy(b[int(at)%len(b):], patch)
		if cut > 0 {
			b = b[:int(cut)%len(b)]
		}
		path := filepath.Join(t.TempDir(), Name(1))
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := Open(path, Options{MaxBytes: 1 << 16, NoSync: true})
		if err != nil {
			return
		}
		err = d.Walk(0, func(r Record, ok bool) bool {
			if ok && (r.Seq == 0 || r.Seq > 40 || !bytes.Equal(r.Payload, recs[r.Seq-1].Payload)) {
				t.Errorf("record %d is wrong", r.Seq)
			}
			return true
		})
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("walk: %v", err)
		}
		_, _ = d.Last()
		if n := d.SkipDamage(1, 40); n < 2 || n > 41 {
			t.Errorf("SkipDamage gives %d", n)
		}
		_ = d.Close()
	})
}

// Each child number of each branch page is made to lead to each branch page: with
// the check left out this ends the process, past every recover.
func TestCyclesAreRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), Name(1))
	o := Options{MaxBytes: 1 << 20, NoSync: true}
	d, err := Create(path, Header{Class: 1, Epoch: 2, First: 1}, o)
	if err != nil {
		t.Fatal(err)
	}
	for n := range uint64(200) {
		if err := d.Append([]Record{{Seq: n + 1, Payload: make([]byte, 1000)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var tried int
	for page := 2; page < len(good)/pageSize; page++ {
		p := good[page*pageSize:][:pageSize]
		if binary.NativeEndian.Uint16(p[8:]) != branchFlag {
			continue // stale ones are spoilt as well: they do no harm
		}
		for i := range int(binary.NativeEndian.Uint16(p[10:])) {
			bad := bytes.Clone(good)
			binary.NativeEndian.PutUint64(bad[page*pageSize+pageHead+i*branchElem+8:], uint64(page))
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			d, err := Open(path, o)
			if errors.Is(err, ErrDamaged) {
				tried++
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			if err := d.Walk(0, func(Record, bool) bool { return true }); err != nil {
				t.Errorf("page %d, child %d: %v", page, i, err)
			}
			_ = d.Close()
		}
		if page > 100 && tried > 0 {
			break
		}
	}
	if tried == 0 {
		t.Error("no cycle was refused: the test made none")
	}
}
