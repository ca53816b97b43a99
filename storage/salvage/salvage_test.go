// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package salvage_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"fulmar/schema"
	"fulmar/storage"
	"fulmar/storage/salvage"
	"fulmar/storage/vault"
)

// board is a board's spool and all that could open it.
type board struct {
	dir      string
	key      string // key file; "": the spool is plain
	recovery *vault.RecoveryKey
	epochs   map[schema.Class]uint64
}

const (
	made    = 300 // records made in each class but snapshot
	settled = 100 // of these, settled
)

// makeBoard fills a spool: metrics and events over several segments, the first
// third settled.
func makeBoard(t *testing.T, encrypted bool) *board {
	t.Helper()
	b := &board{dir: filepath.Join(t.TempDir(), "spool"), epochs: map[schema.Class]uint64{}}
	cfg := storage.Config{Dir: b.dir, Clock: schema.NewClock(7, 0), NoSync: true}
	for i := range cfg.Classes {
		cfg.Classes[i] = storage.ClassConfig{QuotaBytes: 4 << 20, SegmentBytes: 64 << 10}
	}
	if encrypted {
		b.key = filepath.Join(t.TempDir(), "key")
		h, err := vault.OpenKeyFile(b.key)
		if err != nil {
			t.Fatal(err)
		}
		if b.recovery, err = vault.NewRecoveryKey(); err != nil {
			t.Fatal(err)
		}
		cfg.Holder, cfg.Recovery = h, b.recovery.Public()
	}
	s, err := storage.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []schema.Class{schema.ClassAlarm, schema.ClassEvent, schema.ClassMetric} {
		for i := range made {
			if _, err := s.Append(t.Context(), c, payload(t, c, i+1)); err != nil {
				t.Fatal(err)
			}
			if i%20 == 19 {
				if err := s.Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, cur := range s.Cursors() {
		b.epochs[cur.Class] = cur.Epoch
		if cur.Last > 0 {
			// An early hole, so that settled numbers lie above the cursor, too.
			if err := errors.Join(s.Ack(cur.Class, cur.Epoch, 1, settled-20), s.Ack(cur.Class, cur.Epoch, settled-18, settled+1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return b
}

// secret stands in each record; the filling makes segments of a few records.
const secret = "parcel-of-mrs-smith"

func payload(t *testing.T, c schema.Class, n int) []byte {
	t.Helper()
	r := &schema.Record{Time: schema.Time{Boot: 7, Mono: int64(n), Wall: 1_700_000_000_000 + int64(n)}}
	if c == schema.ClassMetric {
		r.Kind, r.Samples = schema.KindSamples, &schema.Samples{Series: []string{secret + "_celsius"}, Value: []float64{float64(n)}}
	} else {
		r.Kind = schema.KindReport
		r.Report = &schema.Report{Subject: "test", State: "ok", Text: fmt.Sprintf("%s %d %s", secret, n, strings.Repeat("x", 400))}
	}
	p, err := schema.EncodeRecord(r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// got is what a walk found, by class and number.
type got struct {
	recs    map[schema.Class]map[uint64]salvage.Record
	reports []salvage.Report
}

func read(t *testing.T, dir string, a salvage.Access, sel salvage.Select) got {
	t.Helper()
	s, err := salvage.Open(dir, a)
	if err != nil {
		t.Fatal(err)
	}
	g := got{recs: map[schema.Class]map[uint64]salvage.Record{}}
	prev := map[schema.Class]uint64{}
	g.reports, err = s.Walk(sel, func(r salvage.Record) error {
		if r.Seq <= prev[r.Class] {
			t.Errorf("%s: %d after %d", r.Class, r.Seq, prev[r.Class])
		}
		prev[r.Class] = r.Seq
		if want := payload(t, r.Class, int(r.Seq)); !bytes.Equal(r.Payload, want) {
			t.Errorf("%s/%d came out wrong", r.Class, r.Seq)
		}
		if r.Err != nil || r.Body == nil || r.Body.Time.Mono != int64(r.Seq) {
			t.Errorf("%s/%d: %v", r.Class, r.Seq, r.Err)
		}
		if g.recs[r.Class] == nil {
			g.recs[r.Class] = map[uint64]salvage.Record{}
		}
		g.recs[r.Class][r.Seq] = r
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func (g got) faults() (out []string) {
	for i := range g.reports {
		if r := &g.reports[i]; !r.Sound() {
			out = append(out, fmt.Sprintf("%s: %v bad %v missing %v locked %d", filepath.Base(r.Path), r.Err, r.Bad, r.Missing, r.Locked))
		}
	}
	return out
}

// wantWaiting checks that exactly the unsettled records of a class came, less those
// in lost.
func (g got) wantWaiting(t *testing.T, c schema.Class, lost map[uint64]bool) {
	t.Helper()
	for n := uint64(1); n <= made; n++ {
		want := (n > settled+1 || n == settled-19) && !lost[n]
		if _, ok := g.recs[c][n]; ok != want {
			t.Errorf("%s/%d: given %v, wants %v", c, n, ok, want)
		}
	}
}

// fingerprint is a hash of all names, contents and times of a folder.
func fingerprint(t *testing.T, dir string) (sum [32]byte) {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(h, path, fi.Mode(), fi.Size(), fi.ModTime().UnixNano())
		if fi.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			h.Write(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return [32]byte(h.Sum(nil))
}

func TestPlainSpool(t *testing.T) {
	t.Parallel()
	b := makeBoard(t, false)
	before := fingerprint(t, b.dir)
	g := read(t, b.dir, salvage.Access{}, salvage.Select{})
	if f := g.faults(); len(f) > 0 {
		t.Errorf("faults in a sound spool: %v", f)
	}
	for _, c := range []schema.Class{schema.ClassAlarm, schema.ClassEvent, schema.ClassMetric} {
		g.wantWaiting(t, c, nil)
		if r := g.recs[c][200]; r.Epoch != b.epochs[c] || r.Settled || r.Stored.IsZero() {
			t.Errorf("%s: %+v", c, r)
		}
	}
	one := read(t, b.dir, salvage.Access{}, salvage.Select{Classes: []schema.Class{schema.ClassMetric}, Settled: true})
	if len(one.recs) != 1 || len(one.recs[schema.ClassMetric]) < made-settled {
		t.Errorf("all of one class: %d classes, %d metrics", len(one.recs), len(one.recs[schema.ClassMetric]))
	}
	if r, ok := one.recs[schema.ClassMetric][settled]; ok && !r.Settled {
		t.Error("a settled record is not marked")
	}
	if fingerprint(t, b.dir) != before {
		t.Error("reading changed the folder")
	}
}

// TestDeadBoard is the way of a disk to its owner: copied, read-only, no key but the
// recovery key.
func TestDeadBoard(t *testing.T) {
	t.Parallel()
	b := makeBoard(t, true)
	disk := readOnlyCopy(t, b.dir)
	if err := filepath.WalkDir(disk, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if bytes.Contains(raw, []byte(secret)) {
			t.Errorf("%s shows a record in the clear", path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	holder, err := vault.ReadKeyFile(b.key)
	if err != nil {
		t.Fatal(err)
	}
	for name, a := range map[string]salvage.Access{"recovery key": {Recovery: b.recovery}, "key file": {Holder: holder}} {
		g := read(t, disk, a, salvage.Select{})
		if f := g.faults(); len(f) > 0 {
			t.Errorf("%s: %v", name, f)
		}
		for _, c := range []schema.Class{schema.ClassAlarm, schema.ClassEvent, schema.ClassMetric} {
			g.wantWaiting(t, c, nil)
		}
	}
	wrong, err := vault.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	for name, a := range map[string]salvage.Access{"no key": {}, "another recovery key": {Recovery: wrong}} {
		g := read(t, disk, a, salvage.Select{})
		if len(g.recs) > 0 {
			t.Errorf("%s: records came out", name)
		}
		for i := range g.reports {
			r := &g.reports[i]
			if r.Err == nil || !r.Unopened || r.Key == 0 || r.Bad.Count > 0 || r.Epoch != b.epochs[r.Class] {
				t.Errorf("%s: %s: %v, bad %d", name, r.Path, r.Err, r.Bad.Count)
			}
		}
	}
}

// readOnlyCopy copies a spool to a mount that is then made read-only; where mounting
// is not allowed, the files and folders are made so.
func readOnlyCopy(t *testing.T, dir string) string {
	t.Helper()
	mnt := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	mounted := unix.Mount("tmpfs", mnt, "tmpfs", 0, "size=16m") == nil
	if mounted {
		t.Cleanup(func() { _ = unix.Unmount(mnt, unix.MNT_DETACH) })
	}
	to := filepath.Join(mnt, "spool")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(to, "lock")); err != nil {
		t.Fatal(err)
	}
	if mounted {
		if err := unix.Mount("", mnt, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, "x"), nil, 0o600); err == nil {
			t.Fatal("the mount is not read-only")
		}
		return to
	}
	t.Log("no right to mount: files are only made read-only")
	var dirs []string
	if err := filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
			return nil
		}
		return errors.Join(err, os.Chmod(path, 0o400))
	}); err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if err := os.Chmod(d, 0o500); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(d, 0o700) })
	}
	return to
}

// segments are the files of a class, oldest first.
func segments(t *testing.T, dir string, c schema.Class) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, c.String(), "*.db"))
	if err != nil || len(found) < 2 {
		t.Fatalf("%d segments, %v", len(found), err)
	}
	return found
}

// TestDamage spoils a spool in many ways: what is sound comes out, what is not is
// named, and nothing wrong comes out (read checks each record).
func TestDamage(t *testing.T) {
	t.Parallel()
	b := makeBoard(t, true)
	const class = schema.ClassEvent
	for name, hurt := range map[string]func(t *testing.T, dir string, seg []string){
		"a flipped bit in each page": func(t *testing.T, _ string, seg []string) {
			rewrite(t, seg[1], func(b []byte) []byte {
				for at := 2*4096 + 2000; at < len(b); at += 4096 {
					b[at] ^= 4
				}
				return b
			})
		},
		"cut in the middle": func(t *testing.T, _ string, seg []string) {
			rewrite(t, seg[1], func(b []byte) []byte { return b[:len(b)/3] })
		},
		"zeros in the middle": func(t *testing.T, _ string, seg []string) {
			rewrite(t, seg[1], func(b []byte) []byte { clear(b[5*4096 : 9*4096]); return b })
		},
		"no bbolt file": func(t *testing.T, _ string, seg []string) {
			rewrite(t, seg[1], func(b []byte) []byte { return bytes.Repeat([]byte("junk "), 9999) })
		},
		"empty":   func(t *testing.T, _ string, seg []string) { rewrite(t, seg[1], func([]byte) []byte { return nil }) },
		"removed": func(t *testing.T, _ string, seg []string) { _ = os.Remove(seg[1]) },
		"of another class": func(t *testing.T, dir string, seg []string) {
			other, err := os.ReadFile(segments(t, dir, schema.ClassAlarm)[1])
			if err != nil {
				t.Fatal(err)
			}
			rewrite(t, seg[1], func([]byte) []byte { return other })
		},
		"of another place": func(t *testing.T, _ string, seg []string) {
			other, err := os.ReadFile(seg[2])
			if err != nil {
				t.Fatal(err)
			}
			rewrite(t, seg[1], func([]byte) []byte { return other })
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "spool")
			if err := os.CopyFS(dir, os.DirFS(b.dir)); err != nil {
				t.Fatal(err)
			}
			seg := segments(t, dir, class)
			hurt(t, dir, seg)
			g := read(t, dir, salvage.Access{Recovery: b.recovery}, salvage.Select{})
			g.wantWaiting(t, schema.ClassMetric, nil)
			if f := g.faults(); len(f) != 1 {
				t.Errorf("faults: %v", f)
			}
			// Each waiting number is given or booked: nothing is lost in silence.
			lost := map[uint64]bool{}
			for _, r := range g.reports {
				for _, n := range []salvage.Numbers{r.Bad, r.Missing} {
					for _, at := range n.Ranges {
						for i := at.First; i <= at.Last; i++ {
							lost[i] = true
						}
					}
				}
			}
			for n := uint64(settled + 2); n <= made; n++ {
				if _, ok := g.recs[class][n]; ok == lost[n] {
					t.Errorf("%d: given %v, booked as lost %v", n, ok, lost[n])
				}
			}
			if len(lost) == 0 || len(g.recs[class]) < 50 {
				t.Errorf("%d lost, %d given", len(lost), len(g.recs[class]))
			}
		})
	}
}

func rewrite(t *testing.T, path string, fn func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, fn(b), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestForeignAndNewer(t *testing.T) {
	t.Parallel()
	b := makeBoard(t, false)
	metric := filepath.Join(b.dir, "metric")
	for _, name := range []string{"holiday.jpg", "metric/README", "metric/0000000000000777.db.tmp"} {
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A newer meta: its version byte with a right checksum is refused by name.
	for _, n := range []string{"meta.a", "meta.b"} {
		rewrite(t, filepath.Join(metric, n), newer)
	}
	seg := segments(t, b.dir, schema.ClassEvent)
	db, err := bolt.Open(seg[1], 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		h := tx.Bucket([]byte("h"))
		return h.Put([]byte("h"), newer(append(bytes.Clone(h.Get([]byte("h"))), make([]byte, 40)...)))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	s, err := salvage.Open(b.dir, salvage.Access{})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Foreign) != 3 {
		t.Errorf("foreign: %v", s.Foreign)
	}
	for _, c := range s.Classes {
		if p := strings.Join(c.Problems, "\n"); (c.ID == schema.ClassMetric) != strings.Contains(p, "newer version") {
			t.Errorf("%s: problems %q", c.ID, p)
		}
	}
	g := read(t, b.dir, salvage.Access{}, salvage.Select{})
	if f := strings.Join(g.faults(), "\n"); !strings.Contains(f, "newer version") || strings.Count(f, "\n") != 0 {
		t.Errorf("faults: %s", f)
	}
	if n := len(g.recs[schema.ClassMetric]); n < made-settled {
		t.Errorf("%d metrics under a meta that cannot be read", n)
	}
}

// newer makes the bytes of a newer version, with a right CRC-32C at the end.
func newer(b []byte) []byte {
	at := 0
	if string(b[:8]) == "fulspool" {
		at = 8
	}
	b[at] = 99
	n := len(b) - 4
	return binary.LittleEndian.AppendUint32(b[:n:n], crc32.Checksum(b[:n], crc32.MakeTable(crc32.Castagnoli)))
}

func TestWithoutMeta(t *testing.T) {
	t.Parallel()
	b := makeBoard(t, true)
	for _, n := range []string{"meta.a", "meta.b"} {
		rewrite(t, filepath.Join(b.dir, "event", n), func(b []byte) []byte { b[40]++; return b })
	}
	g := read(t, b.dir, salvage.Access{Recovery: b.recovery}, salvage.Select{})
	if n := len(g.recs[schema.ClassEvent]); n < made-settled { // drained files are gone
		t.Errorf("%d events", n)
	}
	for _, r := range g.recs[schema.ClassEvent] {
		if r.Settled {
			t.Fatal("settled, though nothing says so")
		}
	}
}

func TestQuarantineIsRead(t *testing.T) {
	t.Parallel()
	b := makeBoard(t, true)
	seg := segments(t, b.dir, schema.ClassEvent)
	q := filepath.Join(b.dir, "quarantine")
	if err := errors.Join(os.Mkdir(q, 0o700), os.Rename(seg[1], filepath.Join(q, "event-"+filepath.Base(seg[1])))); err != nil {
		t.Fatal(err)
	}
	g := read(t, b.dir, salvage.Access{Recovery: b.recovery}, salvage.Select{})
	n := 0
	for _, r := range g.recs[schema.ClassEvent] {
		if r.Quarantined {
			n++
		}
	}
	if n == 0 || n == made {
		t.Errorf("%d records from quarantine", n)
	}
}

func TestNoSpool(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := salvage.Open(dir, salvage.Access{}); !errors.Is(err, salvage.ErrNoSpool) {
		t.Errorf("%v", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "spool", "alarm"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := salvage.Open(dir, salvage.Access{}); err == nil || !strings.Contains(err.Error(), "try "+filepath.Join(dir, "spool")) {
		t.Errorf("%v", err)
	}
	if _, err := salvage.Open(filepath.Join(dir, "none"), salvage.Access{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestInUseIsTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := storage.Open(storage.Config{Dir: dir, Clock: schema.NewClock(7, 0), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), schema.ClassEvent, payload(t, schema.ClassEvent, 1)); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sp, err := salvage.Open(dir, salvage.Access{})
	if err != nil || !sp.InUse {
		t.Errorf("in use %v, %v", sp != nil && sp.InUse, err)
	}
	if g := read(t, dir, salvage.Access{}, salvage.Select{}); len(g.recs[schema.ClassEvent]) != 1 {
		t.Errorf("%d events beside the writer", len(g.recs[schema.ClassEvent]))
	}
}
