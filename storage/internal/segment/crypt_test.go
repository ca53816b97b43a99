// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	bolt "go.etcd.io/bbolt"

	"fulmar/schema"
	"fulmar/storage/vault"
)

// newKeys makes a keyring with a key file of its own.
func newKeys(t testing.TB) *vault.Keys {
	t.Helper()
	dir := t.TempDir()
	h, err := vault.OpenKeyFile(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	k, err := vault.Open(dir, h, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

const secret = "the secret of this record"

func encrypted(t testing.TB, path string, h Header, keys *vault.Keys, n int) []Record {
	t.Helper()
	d, err := Create(path, h, Options{MaxBytes: 1 << 18, NoSync: true, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	var recs []Record
	for i := range uint64(n) {
		recs = append(recs, Record{Seq: h.First + i, Wall: 1000 + int64(i), Payload: fmt.Appendf(nil, "%s %d", secret, i)})
	}
	for i := range recs { // each in a pack of its own
		if err := d.Append(recs[i : i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return recs
}

// walk opens a file and counts what is sound in it; each sound record must be right.
func walk(t *testing.T, path string, keys *vault.Keys, want []Record) (sound, bad int, err error) {
	t.Helper()
	d, err := Open(path, Options{MaxBytes: 1 << 18, NoSync: true, Keys: keys})
	if err != nil {
		return 0, 0, err
	}
	defer d.Close()
	err = d.Walk(0, func(r Record, ok bool) bool {
		if !ok {
			bad++
			return true
		}
		sound++
		i := int(r.Seq - want[0].Seq)
		if i < 0 || i >= len(want) || r.Wall != want[i].Wall || !bytes.Equal(r.Payload, want[i].Payload) {
			t.Errorf("record %d came out wrong: %d %q", r.Seq, r.Wall, r.Payload)
		}
		return true
	})
	return sound, bad, err
}

func TestEncryptedComesBackAndShowsNothing(t *testing.T) {
	t.Parallel()
	path, keys := filepath.Join(t.TempDir(), Name(5)), newKeys(t)
	recs := encrypted(t, path, Header{Class: schema.ClassMetric, Epoch: 9, First: 5}, keys, 300)
	if sound, bad, err := walk(t, path, keys, recs); sound != 300 || bad != 0 || err != nil {
		t.Errorf("%d sound, %d bad, %v", sound, bad, err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte(secret)) {
		t.Error("the payload stands in the file")
	}
	plain := filepath.Join(t.TempDir(), Name(5))
	encrypted(t, plain, Header{Class: schema.ClassMetric, Epoch: 9, First: 5}, nil, 1)
	if b, err = os.ReadFile(plain); err != nil || !bytes.Contains(b, []byte(secret)) {
		t.Errorf("a plain file hides its payload, so the search above finds nothing: %v", err)
	}
	// The owner of keys can read what was written before there were any.
	if sound, _, err := walk(t, plain, keys, recs); sound != 1 || err != nil {
		t.Errorf("a plain segment beside keys: %d sound, %v", sound, err)
	}
}

func TestUnknownKeyIsNoDamage(t *testing.T) {
	t.Parallel()
	path, keys := filepath.Join(t.TempDir(), Name(1)), newKeys(t)
	encrypted(t, path, Header{Epoch: 9, First: 1}, keys, 3)
	for name, other := range map[string]*vault.Keys{"none": nil, "another board's": newKeys(t)} {
		_, err := Open(path, Options{MaxBytes: 1 << 18, Keys: other})
		if !errors.Is(err, ErrKeyLost) || errors.Is(err, ErrDamaged) {
			t.Errorf("keys %s: %v", name, err)
		}
	}
}

// patch changes the values of a closed file through bbolt, as somebody with the disk
// and no key could.
func patch(t *testing.T, path string, fn func(h, q *bolt.Bucket) error) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(func(tx *bolt.Tx) error { return fn(tx.Bucket(bucketHeader), tx.Bucket(bucketRecords)) }); err != nil {
		t.Fatal(err)
	}
}

func key(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

func TestFramesAreBoundToTheirPlace(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	var other []byte // a frame of another segment with the same key, number and class
	second := filepath.Join(t.TempDir(), Name(1))
	encrypted(t, second, Header{Epoch: 9, First: 1}, keys, 3)
	patch(t, second, func(_, q *bolt.Bucket) error { other = bytes.Clone(q.Get(key(2))); return nil })
	for name, change := range map[string]func(q *bolt.Bucket) error{
		"moved to another number": func(q *bolt.Bucket) error { return q.Put(key(2), bytes.Clone(q.Get(key(1)))) },
		"of another segment":      func(q *bolt.Bucket) error { return q.Put(key(2), other) },
		"plain":                   func(q *bolt.Bucket) error { return q.Put(key(2), packed(9, Record{2, 3, []byte("forged")})) },
		"with another count": func(q *bolt.Bucket) error {
			b := bytes.Clone(q.Get(key(2)))
			b[packHead]++
			return q.Put(key(2), b)
		},
		"cut":   func(q *bolt.Bucket) error { return q.Put(key(2), bytes.Clone(q.Get(key(2))[:20])) },
		"empty": func(q *bolt.Bucket) error { return q.Put(key(2), nil) },
	} {
		path := filepath.Join(t.TempDir(), Name(1))
		recs := encrypted(t, path, Header{Epoch: 9, First: 1}, keys, 3)
		patch(t, path, func(_, q *bolt.Bucket) error { return change(q) })
		if sound, bad, err := walk(t, path, keys, recs); sound != 2 || bad != 1 || err != nil {
			t.Errorf("a frame %s: %d sound, %d bad, %v", name, sound, bad, err)
		}
	}
}

func TestEachBitOfAFrameCounts(t *testing.T) {
	t.Parallel()
	h := head{Header: Header{Class: 2, Epoch: 9, First: 1}}
	c, err := newCrypt(&h, newKeys(t))
	if err != nil {
		t.Fatal(err)
	}
	recs := []Record{{Seq: 7, Wall: 8, Payload: []byte("abc")}, {Seq: 8, Wall: 9, Payload: []byte("de")}}
	b, err := c.append(make([]byte, 0, 100), recs)
	if err != nil || len(b) != cryptOverhead+bodyHead+3+3+3+2 {
		t.Fatal(len(b), err)
	}
	body, err := c.body(7, b)
	if err != nil {
		t.Fatal(err)
	}
	var got []Record
	if err := decodeBody(7, span(7, b), body, func(r Record) bool { got = append(got, r); return true }); err != nil || !reflect.DeepEqual(got, recs) {
		t.Fatal(got, err)
	}
	for i := range len(b) * 8 {
		b[i/8] ^= 1 << (i % 8)
		if _, err := c.body(7, b); err == nil {
			t.Errorf("flipped bit %d was not seen", i)
		}
		b[i/8] ^= 1 << (i % 8)
	}
}

// TestHeaderIsBoundToItsKey rewrites headers with a right CRC, as somebody who has
// the disk could to pass a file off as one of another class, epoch or place.
func TestHeaderIsBoundToItsKey(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	for name, change := range map[string]func(h *head){
		"class": func(h *head) { h.Class++ },
		"epoch": func(h *head) { h.Epoch++ },
		"first": func(h *head) { h.First++ },
		"salt":  func(h *head) { h.salt[3]++ },
		"tag":   func(h *head) { h.tag[3]++ },
	} {
		path := filepath.Join(t.TempDir(), Name(1))
		recs := encrypted(t, path, Header{Epoch: 9, First: 1}, keys, 3)
		patch(t, path, func(hb, _ *bolt.Bucket) error {
			h, err := decodeHeader(hb.Get(keyHeader))
			if err != nil {
				return err
			}
			change(&h)
			return hb.Put(keyHeader, h.encode())
		})
		if sound, _, err := walk(t, path, keys, recs); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s changed: %d sound, %v", name, sound, err)
		}
	}
}

func TestNewerSegmentIsNamed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), Name(1))
	encrypted(t, path, Header{Epoch: 9, First: 1}, nil, 3)
	patch(t, path, func(hb, _ *bolt.Bucket) error {
		b := append([]byte{headerCrypt + 1}, make([]byte, 90)...)
		return hb.Put(keyHeader, binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli())))
	})
	if _, err := Open(path, Options{MaxBytes: 1 << 18}); !errors.Is(err, ErrNewer) || errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
}

// A commit that fails gives its number to another record: the two must not share a
// nonce, or whoever has the disk learns the difference of the two.
func TestNonceIsNotMadeOfTheNumber(t *testing.T) {
	t.Parallel()
	path, keys := filepath.Join(t.TempDir(), Name(1)), newKeys(t)
	d, err := Create(path, Header{Epoch: 9, First: 1}, Options{MaxBytes: 1 << 18, NoSync: true, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	long := make([]byte, bolt.MaxKeySize)
	seen := map[string]string{}
	for i, p := range []string{"first try of number 1", "second try, other words", "third try, other words"} {
		recs := []Record{{Seq: 1, Payload: []byte(p)}}
		if i < 2 { // the second record cannot be stored, so the transaction is rolled back
			recs = append(recs, Record{Seq: 2, Payload: long[:0]})
			d.db.MaxSize = 1
			if err := d.Append(append(recs, make2(4000)...)); err == nil {
				t.Fatal("the commit did not fail")
			}
			d.db.MaxSize = 0
		} else if err := d.Append(recs); err != nil {
			t.Fatal(err)
		}
		nonce := string(d.buf[:cap(d.buf)][:5])
		if was, twice := seen[nonce]; twice {
			t.Errorf("%q and %q have one nonce", was, p)
		}
		seen[nonce] = p
	}
	if n := 0; d.Walk(0, func(r Record, ok bool) bool { n++; return ok && string(r.Payload) == "third try, other words" }) != nil || n != 1 {
		t.Errorf("%d records", n)
	}
}

func make2(n int) (recs []Record) {
	for i := range uint64(n) {
		recs = append(recs, Record{Seq: 3 + i, Payload: make([]byte, 200)})
	}
	return recs
}

func TestCountEndsTheSegment(t *testing.T) {
	t.Parallel()
	d, err := Create(filepath.Join(t.TempDir(), Name(1)), Header{Epoch: 9, First: 1}, Options{MaxBytes: 1 << 18, NoSync: true, Keys: newKeys(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.crypt.count = math.MaxUint32 - 1
	if err := d.Append([]Record{{Seq: 1, Payload: []byte("x")}}); err != nil {
		t.Errorf("the last nonce: %v", err)
	}
	if err := d.Append([]Record{{Seq: 2, Payload: []byte("x")}}); !errors.Is(err, errCount) {
		t.Errorf("behind the last nonce: %v", err)
	}
}

// Appending and reading one frame allocates nothing once the buffers are there.
func TestCryptDoesNotAllocate(t *testing.T) {
	h := head{Header: Header{Class: 2, Epoch: 9, First: 1}}
	c, err := newCrypt(&h, newKeys(t))
	if err != nil {
		t.Fatal(err)
	}
	r, buf := []Record{{Seq: 7, Wall: 8, Payload: make([]byte, 200)}}, make([]byte, 0, 300)
	n := testing.AllocsPerRun(100, func() {
		b, err := c.append(buf, r)
		if err == nil {
			_, err = c.body(7, b)
		}
		if err != nil {
			t.Error(err)
		}
	})
	if n > 0 {
		t.Errorf("%v allocations a frame", n)
	}
}

// OpenCopy takes no lock, so it works beside the writer, and leaves the file alone.
func TestOpenCopyBesideTheWriter(t *testing.T) {
	t.Parallel()
	path, keys := filepath.Join(t.TempDir(), Name(1)), newKeys(t)
	o := Options{MaxBytes: 1 << 18, NoSync: true, Keys: keys}
	w, err := Create(path, Header{Epoch: 9, First: 1}, o)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Append([]Record{{Seq: 1, Wall: 2, Payload: []byte("one")}}); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	d, err := OpenCopy(path, o)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := d.Walk(0, func(r Record, ok bool) bool { n++; return ok && string(r.Payload) == "one" }); err != nil || n != 1 {
		t.Errorf("%d records, %v", n, err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	locked, err := OpenCopy(path, Options{MaxBytes: 1 << 18})
	if err != nil || !errors.Is(locked.Locked, ErrKeyLost) || locked.Header.Key != keys.Newest() {
		t.Fatalf("without the key: %v", err)
	}
	defer locked.Close()
	if err := locked.Walk(0, func(r Record, ok bool) bool { n += 10; return !ok && r.Seq == 1 && r.Payload == nil }); err != nil || n != 11 {
		t.Errorf("without the key: %d, %v", n, err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was changed: %v", err)
	}
}

// badDisk fails where a sector is bad.
type badDisk struct {
	data []byte
	bad  int64 // a byte that cannot be read
}

func (d badDisk) ReadAt(b []byte, at int64) (int, error) {
	if at <= d.bad && d.bad < at+int64(len(b)) {
		return 0, errors.New("input/output error")
	}
	return copy(b, d.data[at:]), nil
}

func TestCopyGoesOnBehindABadSector(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("x"), 3*copyChunk+100)
	for _, bad := range []int64{0, copyChunk + 5000, int64(len(data)) - 1} {
		f, err := os.Create(filepath.Join(t.TempDir(), "copy"))
		if err != nil {
			t.Fatal(err)
		}
		unread, err := copySparse(f, badDisk{data, bad}, int64(len(data)))
		_ = f.Close()
		got, rerr := os.ReadFile(f.Name())
		if err != nil || rerr != nil || len(got) != len(data) {
			t.Fatal(len(got), err, rerr)
		}
		want := bytes.Clone(data)
		page := bad / pageSize * pageSize
		clear(want[page:min(page+pageSize, int64(len(want)))])
		if !bytes.Equal(got, want) || unread != min(pageSize, int64(len(data))-page) {
			t.Errorf("bad byte %d: %d bytes unread", bad, unread)
		}
	}
}
