// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"fulmar/schema"
)

// packed is a pack of some records in a plain segment of the epoch.
func packed(epoch uint64, recs ...Record) []byte { return new(plain).append(nil, epoch, recs) }

// unpack reads a plain pack.
func unpack(epoch, key uint64, b []byte) (recs []Record, err error) {
	body, err := new(plain).body(epoch, key, b)
	if err != nil {
		return nil, err
	}
	err = decodeBody(key, span(key, b), body, func(r Record) bool { recs = append(recs, r); return true })
	return recs, err
}

// The pack is pinned: a spool on a board outlives the program.
func TestPackFormat(t *testing.T) {
	t.Parallel()
	const wall = 1_700_000_000_123
	recs := []Record{{Seq: 7, Wall: wall, Payload: []byte("abc")}, {Seq: 9, Wall: wall - 5, Payload: []byte("defg")}}
	b := packed(0xfeed, recs...)
	const want = "030200c912e6ab7b68e5cf8b01000000000361626302090464656667" // made by another implementation
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("pack %s, want %s", got, want)
	}
	if got, err := unpack(0xfeed, 7, b); err != nil || !reflect.DeepEqual(got, recs) {
		t.Errorf("%v %v", got, err)
	}
	if _, err := unpack(0xfeed, 8, b); err == nil {
		t.Error("a pack was read under another number")
	}
	if _, err := unpack(0xfeee, 7, b); err == nil {
		t.Error("a pack was read in another epoch")
	}
	for i := range len(b) * 8 {
		b[i/8] ^= 1 << (i % 8)
		if _, err := unpack(0xfeed, 7, b); err == nil {
			t.Errorf("flipped bit %d was not seen", i)
		}
		b[i/8] ^= 1 << (i % 8)
	}
}

// TestPacks writes records of many sizes with holes between their numbers in batches
// of many sizes, and reads from every number on.
func TestPacks(t *testing.T) {
	t.Parallel()
	d, err := Create(filepath.Join(t.TempDir(), Name(1)), Header{Class: 1, Epoch: 2, First: 1}, Options{MaxBytes: 1 << 22, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	rng := rand.New(rand.NewPCG(1, 1))
	var all []Record
	seq := uint64(0)
	for range 60 {
		var batch []Record
		for range 1 + rng.IntN(20) {
			seq += 1 + uint64(rng.IntN(3)/2)*uint64(rng.IntN(2000))
			size := 1 + rng.IntN(400)
			if rng.IntN(20) == 0 {
				size = schema.MaxRecord
			}
			batch = append(batch, Record{Seq: seq, Wall: rng.Int64() - rng.Int64(), Payload: bytes.Repeat([]byte{byte(seq)}, size)})
		}
		if err := d.Append(batch); err != nil {
			t.Fatal(err)
		}
		all = append(all, batch...)
	}
	if last, err := d.Last(); err != nil || last != seq {
		t.Errorf("last is %d, want %d, %v", last, seq, err)
	}
	for from, at := uint64(0), 0; from <= seq+2; from++ {
		for at < len(all) && all[at].Seq < from {
			at++
		}
		i, most := at, at+30 // each from the start would take minutes
		err := d.Walk(from, func(r Record, ok bool) bool {
			if !ok || i >= len(all) || r.Seq != all[i].Seq || r.Wall != all[i].Wall || !bytes.Equal(r.Payload, all[i].Payload) {
				t.Fatalf("from %d: record %d, sound %v, is not number %d", from, r.Seq, ok, i)
			}
			i++
			return i < most
		})
		if err != nil || i != min(most, len(all)) {
			t.Fatalf("from %d: %d of %d, %v", from, i-at, min(most, len(all))-at, err)
		}
	}
}

func FuzzDecodePack(f *testing.F) {
	f.Add(uint64(1), uint64(2), packed(1, Record{Seq: 2, Wall: 3, Payload: []byte("payload")}, Record{Seq: 5, Wall: 2, Payload: []byte("p")}))
	f.Add(uint64(0), uint64(0), []byte{})
	f.Fuzz(func(t *testing.T, epoch, key uint64, b []byte) {
		key %= 1 << 53
		check := func(body []byte, last uint64) {
			prev, n := key, 0
			err := decodeBody(key, last, body, func(r Record) bool {
				if n == 0 && r.Seq != key || n > 0 && r.Seq <= prev || r.Seq > last || len(r.Payload) == 0 || len(r.Payload) > schema.MaxRecord {
					t.Errorf("record %d of %d bytes after %d in a pack of %d to %d", r.Seq, len(r.Payload), prev, key, last)
				}
				prev, n = r.Seq, n+1
				return true
			})
			if err == nil && prev != last {
				t.Errorf("the last one is %d, want %d", prev, last)
			}
		}
		if body, err := new(plain).body(epoch, key, b); err == nil {
			check(body, span(key, b))
		}
		check(b, span(key, b)) // as if the sum were right
		// Any payload must come back.
		if len(b) > 0 && len(b) <= schema.MaxRecord {
			recs, err := unpack(epoch, key, packed(epoch, Record{Seq: key, Wall: int64(key), Payload: b}))
			if err != nil || len(recs) != 1 || recs[0].Wall != int64(key) || !bytes.Equal(recs[0].Payload, b) {
				t.Errorf("%d bytes came back as %v, %v", len(b), recs, err)
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
