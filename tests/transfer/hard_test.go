// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/fleet/objects"
	"fulmar/ota/fetch"
	"fulmar/ota/release"
	"fulmar/schema"
	"fulmar/schema/ota"
	"fulmar/tests/loopdisk"
	"fulmar/tests/transfer/rig"
)

// child is the environment variable by which this test's program is a board: it fetches
// what the file names and says how far it is.
const child = "FULMAR_TRANSFER_CHILD"

func TestMain(m *testing.M) {
	if file := os.Getenv(child); file != "" {
		if err := fetchChild(file); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type errandOf struct {
	Object release.Object
	Dir    string
	URL    string
}

func fetchChild(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var e errandOf
	if err := json.Unmarshal(b, &e); err != nil {
		return err
	}
	f, err := fetch.New(fetch.Config{Dir: e.Dir, Sources: []fetch.Source{&fetch.HTTP{URL: e.URL, Client: plain()}}})
	if err != nil {
		return err
	}
	path, err := f.Fetch(context.Background(), e.Object, func(have, _ int64) { fmt.Println("have", have) })
	if err == nil {
		fmt.Println("done", path)
	}
	return err
}

// TestKilled: a board that is killed at random points goes on where it was: what it had
// on its disk is not asked for again, but for 1 MiB at most.
func TestKilled(t *testing.T) {
	t.Parallel()
	f := fleet(t, objects.Config{Rates: objects.Rates{Board: 10 << 20}})
	want := content(11, 16<<20+3)
	o := put(t, f, want)
	url, served := serveHTTP(t, f)
	dir := t.TempDir()
	errand := filepath.Join(t.TempDir(), "errand")
	b, err := json.Marshal(errandOf{Object: o, Dir: dir, URL: url})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(errand, b, 0o600); err != nil {
		t.Fatal(err)
	}
	kills, path := 0, ""
	var lost, before int64
	for path == "" {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), child+"="+errand)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var kill *time.Timer
		if kills < 12 {
			kill = time.AfterFunc(time.Duration(30+rand.N(150))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		}
		first := true
		for s := bufio.NewScanner(out); s.Scan(); {
			var have int64
			switch what, rest, _ := strings.Cut(s.Text(), " "); what {
			case "have":
				_, _ = fmt.Sscan(rest, &have)
				if first {
					lost = max(lost, before-have)
					first = false
				}
				before = max(before, have)
			case "done":
				path = rest
			case "error":
				t.Fatal(rest)
			}
		}
		_ = cmd.Wait()
		if kill != nil && kill.Stop() || path != "" {
			continue
		}
		kills++
	}
	check(t, path, want)
	t.Logf("%d kills, %d bytes lost at most by one, %d bytes served for %d", kills, lost, served(), o.Size)
	if lost > 1<<20 {
		t.Errorf("a kill lost %d bytes", lost)
	}
	if most := o.Size + int64(kills)<<20; served() > most {
		t.Errorf("%d bytes were served, at most %d", served(), most)
	}
}

// TestFullDisk: a disk that cannot take the object says so before anything is fetched, and
// takes nothing; with room it goes on.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("wants root for a loop device")
		}
		t.Skip("wants root for a loop device")
	}
	disk, err := loopdisk.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = disk.Close() })
	f := fleet(t, objects.Config{Linger: 50 * time.Millisecond})
	want := content(12, 32<<20)
	o := put(t, f, want)
	free := func() int64 {
		var st unix.Statfs_t
		if err := unix.Statfs(disk.Dir, &st); err != nil {
			t.Fatal(err)
		}
		return int64(st.Bavail) * st.Bsize
	}
	filler, err := os.Create(filepath.Join(disk.Dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	b := newBoard(t, f, "b1", filepath.Join(disk.Dir, "objects"), nil)
	for _, left := range []int64{40 << 20, 20 << 20, 1 << 20} {
		if err := unix.Fallocate(int(filler.Fd()), 0, 0, fileSize(t, filler)+free()-left); err != nil {
			t.Fatal(err)
		}
		was := free()
		_, err = b.Fetch(t.Context(), o, nil)
		var full *fetch.NoSpaceError
		if !errors.As(err, &full) || full.Need != o.Size+16<<20 || full.Free > was+1<<20 || !strings.HasPrefix(full.Error(), "no-space: ") {
			t.Fatalf("with %d left: %v", left, err)
		}
		if now := free(); now < was-1<<16 {
			t.Errorf("%d bytes were free, then %d", was, now)
		}
	}
	if s := f.Caster.Stats(); s.Wants != 0 {
		t.Errorf("it asked for pieces: %+v", s)
	}
	if err := filler.Truncate(0); err != nil {
		t.Fatal(err)
	}
	path, err := b.Fetch(t.Context(), o, nil)
	if err != nil {
		t.Fatal(err)
	}
	check(t, path, want)
}

func fileSize(t testing.TB, f *os.File) int64 {
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// TestCutOff: connections that end in the middle, again and again, cost time and few
// pieces.
func TestCutOff(t *testing.T) {
	t.Parallel()
	f := fleet(t, objects.Config{Linger: 50 * time.Millisecond, Rates: objects.Rates{Board: 8 << 20}})
	want := content(13, 12<<20)
	o := put(t, f, want)
	l := &late{}
	m := fetch.NewMQTT(l)
	r := &redial{f: f, take: m.Take}
	l.Line = r
	ft, err := fetch.New(fetch.Config{Dir: t.TempDir(), Sources: []fetch.Source{m}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 6 {
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Millisecond):
				r.cut()
			}
		}
	})
	path, err := ft.Fetch(ctx, o, nil)
	close(stop)
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	check(t, path, want)
	s := ft.Stats()
	t.Logf("%+v over %d connections", s, r.dials)
	if s.Duplicates*20 > s.Pieces {
		t.Errorf("%+v", s)
	}
}

// redial is a line that connects anew when it is used.
type redial struct {
	f     *rig.Fleet
	take  func(*ota.Down)
	mu    sync.Mutex
	line  *rig.Line
	dials int
}

func (r *redial) get(ctx context.Context) (*rig.Line, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.line == nil {
		l, err := r.f.Line(ctx, "b1", r.take)
		if err != nil {
			return nil, err
		}
		r.line = l
		r.dials++
	}
	return r.line, nil
}

func (r *redial) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.line != nil {
		r.line.Close()
		r.line = nil
	}
}

func (r *redial) Send(ctx context.Context, ch schema.Channel, tail string, b []byte) error {
	l, err := r.get(ctx)
	if err != nil {
		return err
	}
	return l.Send(ctx, ch, tail, b)
}

func (r *redial) Hear(ctx context.Context, tree string) (<-chan struct{}, error) {
	l, err := r.get(ctx)
	if err != nil {
		return nil, err
	}
	return l.Hear(ctx, tree)
}

func (r *redial) Leave(ctx context.Context, tree string) error {
	l, err := r.get(ctx)
	if err != nil {
		return err
	}
	return l.Leave(ctx, tree)
}

// TestTwo: two objects at once, with pieces that come in another order, twice, or are not
// what they say.
func TestTwo(t *testing.T) {
	t.Parallel()
	f := fleet(t, objects.Config{Linger: 50 * time.Millisecond})
	a, b := content(14, 3<<20+1), content(15, 2<<20+2)
	oa, ob := put(t, f, a), put(t, f, b)
	var held *ota.Down
	n := 0
	var board *board
	board = newBoard(t, f, "b1", t.TempDir(), func(d *ota.Down) *ota.Down {
		if d.Piece == nil {
			return d
		}
		switch n++; {
		case n%7 == 0: // a wrong one before it
			bad := *d.Piece
			bad.Data = append(bytes.Clone(bad.Data), 1)[1:]
			board.mqtt.Take(&ota.Down{V: 1, Piece: &bad})
		case n%5 == 0 && held == nil: // later
			held = d
			return nil
		case held != nil:
			board.mqtt.Take(d)
			d, held = held, nil
		}
		return d
	})
	var wg sync.WaitGroup
	for _, x := range []struct {
		o    release.Object
		want []byte
	}{{oa, a}, {ob, b}} {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			path, err := board.Fetch(ctx, x.o, nil)
			if err != nil {
				t.Error(err)
				return
			}
			check(t, path, x.want)
		})
	}
	wg.Wait()
	if s := board.Stats(); s.Wrong == 0 || s.Pieces != uint64(oa.Pieces()+ob.Pieces()) {
		t.Errorf("%+v", s)
	}
}

// TestUnknown: 10,000 words for objects that nobody has cost no memory, and each is
// refused or, where the board is flooded with refusals, not answered. Topics of objects
// that a board may not have are not heard.
func TestUnknown(t *testing.T) {
	// Not beside others: it looks at the memory of all.
	f := fleet(t, objects.Config{})
	var refused int
	var mu sync.Mutex
	b := newBoard(t, f, "b1", t.TempDir(), func(d *ota.Down) *ota.Down {
		mu.Lock()
		defer mu.Unlock()
		if d.Hold != nil && d.Hold.Refused != "" {
			refused++
		}
		return d
	})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 10_000 {
		w := ota.Want{V: 1, Object: content(uint64(i), 32), Size: 1 << 30, Missing: bytes.Repeat([]byte{255}, 64), Credit: ota.MaxCredit, Cast: i%2 == 0}
		payload, err := schema.Encode(&w)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.line.Send(t.Context(), schema.ChanWant, "", payload); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	s := f.Caster.Stats()
	mu.Lock()
	defer mu.Unlock()
	if s.Refused != 10_000 || s.Transfers != 0 || refused < 5000 {
		t.Errorf("%+v, %d refusals came", s, refused)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	mine := put(t, f, content(16, 100))
	f.Entitle(mine, "b1")
	other := release.Object{Tree: release.Hash{9}, Size: 5}
	f.Entitle(other, "b2")
	if _, err := b.line.Hear(t.Context(), mine.Tree.String()); err != nil {
		t.Error(err)
	}
	for _, tree := range []string{other.Tree.String(), release.Hash{8}.String(), "+", "#", "x"} {
		if _, err := b.line.Hear(t.Context(), tree); err == nil {
			t.Errorf("b1 hears %q", tree)
		}
	}
}
