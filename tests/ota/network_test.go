// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"fulmar/fleet/objects"
	"fulmar/ota/fetch"
	"fulmar/ota/release"
	"fulmar/schema"
	words "fulmar/schema/ota"
)

// The way objects travel in these worlds: the fleet's caster and the board's fetcher are the
// real ones, with a line between them that loses pieces by chance and is cut at times. A piece
// takes what it does at 20 Mbit/s, behind those before it, and half a round trip.
const (
	each = 26 * time.Millisecond
	trip = 100 * time.Millisecond
)

var errCut = errors.New("the line is cut")

// network is the way between a board and its fleet.
type network struct {
	b     *board
	store *objects.Store
	fleet *objects.Caster
	size  map[release.Hash]int64 // what the fleet has
	stop  context.CancelFunc
	ended chan struct{}

	mu   sync.Mutex
	rng  *rand.Rand
	mqtt *fetch.MQTT // of the process that lives
	busy time.Time   // until when the line is
	lost int         // pieces, by chance
}

// open starts the fleet's side.
func (n *network) open(b *board) {
	n.b, n.size, n.rng, n.ended = b, map[release.Hash]int64{}, rand.New(rand.NewPCG(b.fate.seed, 4)), make(chan struct{})
	var err error
	if n.store, err = objects.Open(filepath.Join(b.dir, "fleet"), 0); err != nil {
		b.t.Fatal(err)
	}
	n.fleet = objects.NewCaster(objects.Config{
		Store: n.store, Gate: n, Log: slog.New(slog.DiscardHandler),
		Tell: func(_, _ string, d *words.Down) error { n.carry(d, false); return nil },
		Entitled: func(_, _ string, tree release.Hash) (int64, bool) {
			size, ok := n.size[tree]
			return size, ok
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	go func() {
		defer close(n.ended)
		if err := n.fleet.Run(ctx); err != nil {
			b.t.Errorf("seed %d: caster: %v", b.fate.seed, err)
		}
	}()
}

func (n *network) close() {
	n.stop()
	<-n.ended
	n.store.Close()
}

// object is bytes as a manifest names them, which the fleet has then.
func (n *network) object(data []byte) release.Object {
	o, err := n.store.Put(bytes.NewReader(data), release.Object{})
	if err != nil {
		n.b.t.Fatal(err)
	}
	n.size[o.Tree] = o.Size
	return o
}

// carry brings a word of the fleet to the board, if it comes through.
func (n *network) carry(d *words.Down, piece bool) {
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.busy.Before(now) {
		n.busy = now
	}
	if piece {
		n.busy = n.busy.Add(each)
	}
	if !n.b.reachable() {
		return
	}
	if piece && n.rng.Float64() < n.b.fate.loss {
		if d.Piece != nil {
			n.lost++
		}
		return
	}
	time.AfterFunc(n.busy.Sub(now)+trip/2, func() {
		n.mu.Lock()
		m := n.mqtt
		n.mu.Unlock()
		if m != nil && n.b.reachable() {
			m.Take(d)
		}
	})
}

// SendPiece implements objects.Gate.
func (n *network) SendPiece(_, _ string, payload []byte) error {
	d := new(words.Down)
	if err := schema.Decode(payload, d); err != nil {
		return err
	}
	n.carry(d, true)
	return nil
}

// Hearing implements objects.Gate.
func (n *network) Hearing(string, string) (all, busy int) { return 1, 0 }

// Cast implements objects.Gate.
func (n *network) Cast(tenant, _ string, payload []byte, _ func(string) bool) (sent, left int, err error) {
	return 1, 0, n.SendPiece(tenant, "", payload)
}

// line is the board's end of it.
type line struct{ p *process }

// Send implements fetch.Line.
func (l line) Send(ctx context.Context, _ schema.Channel, _ string, payload []byte) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(trip):
	}
	if err := l.p.alive(); err != nil {
		return err
	}
	if !l.p.reachable() {
		return errCut
	}
	w := new(words.Want)
	if err := schema.Decode(payload, w); err != nil {
		return err
	}
	l.p.net.fleet.Want("default", "b1", w)
	return nil
}

// Hear implements fetch.Line.
func (l line) Hear(context.Context, string) (<-chan struct{}, error) {
	if !l.p.reachable() {
		return nil, errCut
	}
	return make(chan struct{}), nil
}

// Leave implements fetch.Line.
func (line) Leave(context.Context, string) error { return nil }

// fetcher is the real one of a process, which does nothing once that is dead.
type fetcher struct {
	p *process
	*fetch.Fetcher
}

func (n *network) fetcher(p *process) *fetcher {
	m := fetch.NewMQTT(line{p})
	f, err := fetch.New(fetch.Config{Dir: filepath.Join(p.dir, "objects"), Sources: []fetch.Source{m}, Log: p.log})
	if err != nil {
		p.t.Fatal(err)
	}
	n.mu.Lock()
	n.mqtt = m
	n.mu.Unlock()
	return &fetcher{p, f}
}

// Drop implements ota.Fetcher.
func (f *fetcher) Drop(o release.Object) error {
	if err := f.p.alive(); err != nil {
		return err
	}
	return f.Fetcher.Drop(o)
}

// reachable tells whether there is a network now.
func (b *board) reachable() bool {
	at := time.Since(b.born)
	for _, p := range b.fate.partitions {
		if at >= p[0] && at < p[1] {
			return false
		}
	}
	return true
}

// lose is what the power takes of objects on their way: what was not flushed is as it was,
// or zeros.
func (n *network) lose() {
	parts, _ := filepath.Glob(filepath.Join(n.b.dir, "objects", "*.part"))
	for _, path := range parts {
		if strings.HasSuffix(path, fetch.LeavesSuffix+".part") {
			continue
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			n.b.t.Fatal(err)
		}
		info, err := f.Stat()
		for at := int64(0); err == nil && at < info.Size(); at += 4096 {
			if n.rng.IntN(8) == 0 {
				_, err = f.WriteAt(make([]byte, min(4096, info.Size()-at)), at)
			}
		}
		if err = errors.Join(err, f.Close()); err != nil {
			n.b.t.Fatal(err)
		}
	}
}

// blob is content by a seed.
func blob(seed uint64, size int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	out := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(out)
	return out
}

// packed is an encoding of blob(seed, ...): the hash of its base or zeros, the seed, and a
// quarter of its bytes in padding, as much as a packer would leave.
func packed(base release.Hash, seed uint64, size int) []byte {
	out := binary.LittleEndian.AppendUint64(append([]byte{}, base[:]...), seed)
	return append(out, blob(seed+1, size/4)...)
}

// unpacked is what it was made of.
func unpacked(b []byte, size int64) (base release.Hash, out []byte) {
	return release.Hash(b[:32]), blob(binary.LittleEndian.Uint64(b[32:40]), int(size))
}
