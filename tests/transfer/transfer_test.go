// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fulmar/fleet/objects"
	"fulmar/ota/fetch"
	"fulmar/ota/release"
	"fulmar/schema/ota"
	"fulmar/tests/transfer/rig"
)

// content makes an object that is the same in each run.
func content(seed uint64, size int) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = r.Read(b)
	return b
}

func fleet(t testing.TB, cfg objects.Config) *rig.Fleet {
	t.Helper()
	f, err := rig.Start(rig.Config{Dir: t.TempDir(), Caster: cfg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Stop(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func put(t testing.TB, f *rig.Fleet, b []byte) release.Object {
	t.Helper()
	o, err := f.Store.Put(bytes.NewReader(b), release.Object{})
	if err != nil {
		t.Fatal(err)
	}
	f.Entitle(o, "")
	return o
}

// board is one with the real fetcher and a small client.
type board struct {
	*fetch.Fetcher
	line *rig.Line
	mqtt *fetch.MQTT
}

// hold is a line whose client comes later.
type late struct{ fetch.Line }

// newBoard connects one; filter says what it hears, and may change it.
func newBoard(t testing.TB, f *rig.Fleet, name, dir string, filter func(*ota.Down) *ota.Down) *board {
	t.Helper()
	l := &late{}
	b := &board{mqtt: fetch.NewMQTT(l)}
	var err error
	b.line, err = f.Line(t.Context(), name, func(d *ota.Down) {
		if filter != nil {
			d = filter(d)
		}
		if d != nil {
			b.mqtt.Take(d)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	l.Line = b.line
	if b.Fetcher, err = fetch.New(fetch.Config{Dir: dir, Sources: []fetch.Source{b.mqtt}}); err != nil {
		t.Fatal(err)
	}
	return b
}

func lossy(rate float64, seed uint64) func(*ota.Down) *ota.Down {
	r := rand.New(rand.NewPCG(seed, 1))
	return func(d *ota.Down) *ota.Down {
		if d.Piece != nil && r.Float64() < rate {
			return nil
		}
		return d
	}
}

func check(t testing.TB, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%s: %d bytes, %v: not the object", path, len(got), err)
	}
}

// TestOne: a board alone gets an object, small or large, whole or with a short last piece.
func TestOne(t *testing.T) {
	t.Parallel()
	f := fleet(t, objects.Config{Linger: 50 * time.Millisecond})
	for i, size := range []int{1, release.Piece, release.Piece + 1, 5<<20 + 17} {
		b := newBoard(t, f, fmt.Sprintf("b%d", i), t.TempDir(), nil)
		want := content(uint64(size), size)
		o := put(t, f, want)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		begun, last := time.Now(), int64(0)
		path, err := b.Fetch(ctx, o, func(have, all int64) {
			if have < last || all != o.Size {
				t.Errorf("progress %d of %d after %d", have, all, last)
			}
			last = have
		})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		check(t, path, want)
		t.Logf("%d bytes in %v, %+v", size, time.Since(begun), b.Stats())
		if s := b.Stats(); s.Duplicates != 0 || s.Wrong != 0 || s.Pieces != uint64(o.Pieces()) {
			t.Errorf("%+v", s)
		}
	}
}

// TestMany: boards that want the same get one pass, with losses, without, and whoever comes
// in the middle of it; all of them end with the object and few pieces twice.
func TestMany(t *testing.T) {
	t.Parallel()
	const boards = 40
	for _, loss := range []float64{0, 0.05, 0.2} {
		t.Run(fmt.Sprint(loss), func(t *testing.T) {
			f := fleet(t, objects.Config{Linger: 300 * time.Millisecond, Rates: objects.Rates{Cast: 4 << 20}})
			want := content(3, 3<<20+5)
			o := put(t, f, want)
			var wg sync.WaitGroup
			var dups, pieces atomic.Uint64
			for i := range boards {
				b := newBoard(t, f, fmt.Sprintf("b%d", i), t.TempDir(), lossy(loss, uint64(i)))
				wg.Go(func() {
					if i%8 == 7 {
						time.Sleep(600 * time.Millisecond) // into the pass
					}
					ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
					defer cancel()
					path, err := b.Fetch(ctx, o, nil)
					if err != nil {
						t.Error(err)
						return
					}
					check(t, path, want)
					dups.Add(b.Stats().Duplicates)
					pieces.Add(b.Stats().Pieces)
				})
			}
			wg.Wait()
			s := f.Caster.Stats()
			t.Logf("loss %g: %+v, %d duplicates of %d", loss, s, dups.Load(), pieces.Load())
			// Those who came late may get a pass of their own.
			if s.Passes < 1 || s.Passes > 2 || s.Cast > 2*uint64(o.Pieces()) {
				t.Errorf("%d passes of %d pieces in all, wants one of %d, and another for who came late", s.Passes, s.Cast, o.Pieces())
			}
			if most := uint64(float64(boards*o.Pieces())*(loss*1.5+0.05)) + uint64(boards/8*o.Pieces()); s.Sent > most {
				t.Errorf("%d pieces were sent to one board, at most %d", s.Sent, most)
			}
			if dups.Load()*20 > pieces.Load() {
				t.Errorf("%d duplicates of %d pieces", dups.Load(), pieces.Load())
			}
		})
	}
}
