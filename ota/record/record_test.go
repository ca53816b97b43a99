// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"fulmar/internal/disk"
	"fulmar/internal/disk/crash"
	"fulmar/ota/release"
)

func hash(b byte) release.Hash { return release.Hash(bytes.Repeat([]byte{b}, 32)) }

func order(component string, attempt uint64) Order {
	return Order{Rollout: "r-1", Component: component, Release: "2.0", Attempt: attempt, Act: release.ActInstall, Hash: hash(1), Lasts: 1000, Left: 900}
}

// full is the largest record there can be.
func full() *Record {
	name := func(c string) string { return strings.Repeat(c, maxName) }
	from := hash(3)
	o := func(i int) Order {
		out := Order{
			Rollout: name("r"), Component: "model/" + strings.Repeat("m", 56) + fmt.Sprint(10+i), Release: name("v"), Attempt: 1<<64 - 1, Act: release.ActInstall,
			Hash: hash(255), Before: name("b"), Local: true, Unnumbered: true, Lasts: maxMs, Left: maxMs,
		}
		for range release.MaxPatches {
			out.Patches = append(out.Patches, release.Patch{To: hash(2), Encoding: release.Encoding{Codec: strings.Repeat("c", 64), From: &from, Object: release.Object{SHA256: hash(4), Tree: hash(5), Size: release.MaxSize}}})
		}
		return out
	}
	r := &Record{V: 1, Boot: 1<<64 - 1, Mono: 1<<63 - 1, Unsure: true, Lost: true, Owed: 1<<64 - 1, Components: map[string]*Component{}}
	r.Work = &Work{
		Order: o(0), State: strings.Repeat("s", 32), Since: maxMs, Ends: maxMs, Passes: map[string]int{}, Boots: maxCount, Was: name("w"), Epoch: 1<<64 - 1, Under: 1<<64 - 1,
		Token: strings.Repeat("t", maxToken), Notes: bytes.Repeat([]byte{255}, maxNotes), Reason: strings.Repeat("\"", MaxReason), Path: strings.Repeat("p", MaxPath),
		Asked: 255, AskedIn: 1<<64 - 1, Free: 1<<63 - 1, There: 1<<63 - 1,
	}
	for i := range maxPasses {
		r.Work.Passes[fmt.Sprintf("%032d", i)] = maxCount
	}
	for i := range MaxQueue {
		r.Queue = append(r.Queue, o(i))
	}
	v := &Version{Rollout: name("r"), Release: name("v"), Hash: hash(255), Epoch: 1<<64 - 1, Token: strings.Repeat("t", maxToken)}
	for i := range MaxComponents {
		r.Components["model/"+strings.Repeat("m", 56)+fmt.Sprint(10+i)] = &Component{
			Attempt: 1<<64 - 1, Rollout: name("r"), Release: name("v"), Word: strings.Repeat("w", 32), Reason: strings.Repeat("\"", MaxReason), Untold: true, Was: name("w"),
			Runs: v, Past: v, Shadow: v, FailedHash: hash(255), Failed: maxCount,
		}
	}
	return r
}

// TestFull: the largest record fits, so that no update fails because others were.
func TestFull(t *testing.T) {
	t.Parallel()
	b, err := full().Encode()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the largest record has %d bytes of %d", len(b), maxPayload)
	if r, err := Parse(b); err != nil || !reflect.DeepEqual(r, full()) {
		t.Errorf("it is not what it was: %v", err)
	}
}

func open(t *testing.T, dir string) (*Store, *Record, string) {
	t.Helper()
	s, r, note, err := Open(disk.OS{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	return s, r, note
}

// TestCopies: a damaged copy costs nothing but the newest word; both damaged begin anew, are told so,
// and work.
func TestCopies(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, r, note := open(t, dir)
	if !r.Unsure || r.Lost || note != "" {
		t.Fatalf("a new one: %+v, %s", r, note)
	}
	for i := range uint64(5) {
		r.Work = &Work{Order: order("agent", i+1), State: "offered", Passes: map[string]int{"offered": 1}}
		if err := s.Save(r); err != nil {
			t.Fatal(err)
		}
	}
	attempt := func(want uint64, lost, noted bool) {
		t.Helper()
		_, r, note := open(t, dir)
		got := uint64(0)
		if r.Work != nil {
			got = r.Work.Attempt
		}
		if got != want || r.Lost != lost || (note != "") != noted {
			t.Errorf("attempt %d, lost %v, note %q; wants %d, %v", got, r.Lost, note, want, lost)
		}
	}
	attempt(5, false, false)
	newest := filepath.Join(dir, "record.b") // 2 at the creation, then five
	good, err := os.ReadFile(newest)
	if err != nil || binary.LittleEndian.Uint64(good[8:]) != 7 {
		t.Fatalf("the newest is elsewhere: %v", err)
	}
	damage := func(path string, how func([]byte) []byte) {
		t.Helper()
		b, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, how(b), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, how := range map[string]func([]byte) []byte{
		"a bit":      func(b []byte) []byte { b[100] ^= 1; return b },
		"its number": func(b []byte) []byte { b[9] ^= 1; return b },
		"its length": func(b []byte) []byte { b[18] = 255; return b },
		"its end":    func(b []byte) []byte { return b[:50] },
		"nothing":    func([]byte) []byte { return nil },
		"zeros":      func(b []byte) []byte { return make([]byte, len(b)) },
		"another":    func(b []byte) []byte { b[7] = '2'; return b },
	} {
		if err := os.WriteFile(newest, good, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Log(name)
		damage(newest, how)
		attempt(4, false, true)
	}
	_ = os.Remove(newest)
	attempt(4, false, false) // and it is made again
	attempt(4, false, false)
	for _, n := range copies() {
		damage(filepath.Join(dir, n), func(b []byte) []byte { b[60] ^= 4; return b })
	}
	attempt(0, true, true)
	attempt(0, true, false)
}

// TestNewer: what a newer program adds is passed over; another version is not read.
func TestNewer(t *testing.T) {
	t.Parallel()
	r, err := Parse([]byte(`{"v":1,"boot":1,"mono":2,"new":{"a":[1]},"components":{"agent":{"attempt":3,"rollout":"r","release":"1","word":"paused","later":true}}}`))
	if err != nil || r.Components["agent"].Attempt != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, bad := range []string{``, `{}`, `{"v":2}`, `{"v":1,"queue":[{}]}`, `{"v":1,"components":{"x/y":{}}}`, `{"v":1,"components":{"agent":null}}`, `{"v":1,"work":{"state":""}}`, `null`} {
		if _, err := Parse([]byte(bad)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestPowerCut: whatever step the power fails at, there is the record before or the one
// after, also when the file grew, and a start that is cut again changes nothing of that.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		noSync bool
	}{{"as it is", false}, {"control: without fsync", true}} {
		points, lost := cuts(t, c.noSync)
		t.Logf("%s: %d cuts, %d lost", c.name, points, lost)
		if (lost > 0) != c.noSync {
			t.Errorf("%s: %d of %d cuts lose what was durable", c.name, lost, points)
		}
	}
}

func cuts(t *testing.T, noSync bool) (points, lost int) {
	t.Helper()
	dir := t.TempDir()
	rec := &crash.Recorder{T: t, Root: dir}
	s, r, _, err := Open(rec, dir)
	if err != nil {
		t.Fatal(err)
	}
	rec.NoSync = noSync
	rng := rand.New(rand.NewPCG(5, 6))
	var before uint64
	for i := range uint64(12) {
		from := len(rec.Log)
		attempt := i + 1
		r.Work = &Work{Order: order("agent", attempt), State: "offered", Passes: map[string]int{}}
		for range rng.IntN(40) { // several sectors, more and fewer
			r.Work.Reason += "more"
		}
		if err := s.Save(r); err != nil {
			t.Fatal(err)
		}
		for k := from; k <= len(rec.Log); k++ {
			for n := range 6 {
				points++
				at := t.TempDir()
				crash.Picture(crash.Empty(), rec.Log[:k]).Crash(t, at, rng, []float64{0.5, 0, 1, 0.8, 0.2, 0.5}[n])
				again := &crash.Recorder{T: t, Root: at}
				_, got, _, err := Open(again, at)
				if err != nil {
					t.Fatal(err)
				}
				was := uint64(0)
				if got.Work != nil {
					was = got.Work.Attempt
				}
				if got.Lost || was != attempt && (k == len(rec.Log) || was != before) {
					lost++
				}
			}
		}
		before = attempt
	}
	return points, lost
}

// TestCreationCut: a first start that is cut leaves none or a whole one.
func TestCreationCut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rec := &crash.Recorder{T: t, Root: dir}
	if _, _, _, err := Open(rec, dir); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(7, 8))
	for k := range len(rec.Log) + 1 {
		for range 5 {
			at := t.TempDir()
			crash.Picture(crash.Empty(), rec.Log[:k]).Crash(t, at, rng, 0.5)
			if _, r, note, err := Open(disk.OS{}, at); err != nil || r.Lost || note != "" {
				t.Fatalf("step %d: %+v, %s, %v", k, r, note, err)
			}
		}
	}
}

// TestHistory: the newest stay, and a damaged line costs that line.
func TestHistory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range uint64(MaxHistory + 5) {
		if err := Remember(disk.OS{}, dir, Past{Component: "agent", Attempt: i}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := History(dir)
	if err != nil || len(got) != MaxHistory || got[0].Attempt != 5 || got[MaxHistory-1].Attempt != MaxHistory+4 {
		t.Fatalf("%+v, %v", got, err)
	}
	path := filepath.Join(dir, "history")
	b, _ := os.ReadFile(path)
	b[3] = 0
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := History(dir); err != nil || len(got) != MaxHistory-1 {
		t.Errorf("%d, %v", len(got), err)
	}
}

// TestMem: of too many components the one goes of which least is known.
func TestMem(t *testing.T) {
	t.Parallel()
	r := &Record{V: 1}
	for i := range MaxComponents + 10 {
		c := r.Mem(fmt.Sprintf("model/m%d", i))
		if c.Attempt = uint64(i + 1); i < 3 {
			c.Runs = &Version{Release: "1", Token: "t"}
		}
	}
	if len(r.Components) != MaxComponents || r.Components["model/m0"] == nil || r.Components["model/m3"] != nil {
		t.Errorf("%d components", len(r.Components))
	}
	if _, err := r.Encode(); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	b, err := full().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:4000])
	small := &Record{V: 1, Work: &Work{Order: order("agent", 3), State: "trial", Passes: map[string]int{"trial": 2}}, Queue: []Order{order("worker", 1)}, Components: map[string]*Component{"agent": {Attempt: 3, Runs: &Version{Release: "1"}}}}
	if b, err = small.Encode(); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"v":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Parse(b)
		if err != nil {
			return
		}
		once, err := r.Encode()
		if err != nil {
			t.Fatalf("%s was read and cannot be written: %v", b, err)
		}
		if back, err := Parse(once); err != nil || back.check() != nil {
			t.Fatalf("%s cannot be read again: %v", once, err)
		}
	})
}

func FuzzCopy(f *testing.F) {
	image, err := encode(&Record{V: 1}, 7)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(image)
	f.Add(image[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, seq, err := decode(b); err == nil {
			if again, err := encode(r, seq); err != nil || len(again) < header {
				t.Fatalf("%x: %v", b, err)
			}
		}
	})
}
