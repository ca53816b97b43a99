// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"

	"fulmar/ota/release"
)

// The way objects travel in these worlds: 8 KiB pieces stand for the 64 KiB of real ones,
// 16 of them in a round, each lost by chance, and asked for again in the next round. A kill
// loses what came since the last 16.
const (
	pieceSize = 8 << 10
	window    = 16
	rtt       = 400 * time.Millisecond // and what 1 MiB takes at 20 Mbit/s
	flushed   = 16
)

// network is the way between a board and its fleet.
type network struct {
	mu      sync.Mutex
	objects map[release.Hash][]byte // what the fleet has, by tree
	have    map[release.Hash][]bool // pieces that the board has
	durable map[release.Hash][]bool
	dropped map[release.Hash]bool
	pieces  int // that travelled
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

type fetcher struct{ p *process }

func (f *fetcher) path(o release.Object) string {
	return filepath.Join(f.p.dir, "objects", o.Tree.String())
}

// Fetch implements ota.Fetcher.
func (f *fetcher) Fetch(ctx context.Context, o release.Object, progress func(have, all int64)) (string, error) {
	n := f.p.net
	n.mu.Lock()
	count := int((o.Size + pieceSize - 1) / pieceSize)
	if len(n.have[o.Tree]) != count {
		n.have[o.Tree], n.durable[o.Tree] = make([]bool, count), make([]bool, count)
	}
	delete(n.dropped, o.Tree)
	n.mu.Unlock()
	for {
		have := 0
		n.mu.Lock()
		for _, ok := range n.have[o.Tree] {
			if ok {
				have++
			}
		}
		n.mu.Unlock()
		progress(min(int64(have)*pieceSize, o.Size), o.Size)
		if have == count {
			if err := f.p.alive(); err != nil {
				return "", err
			}
			return f.path(o), os.WriteFile(f.path(o), n.objects[o.Tree], 0o600)
		}
		wait := rtt
		if f.p.reachable() {
			f.round(o)
		} else {
			wait = 20 * time.Second
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (f *fetcher) round(o release.Object) {
	n := f.p.net
	n.mu.Lock()
	defer n.mu.Unlock()
	asked, have := 0, 0
	for i, ok := range n.have[o.Tree] {
		if !ok && asked < window {
			asked++
			n.pieces++
			n.have[o.Tree][i] = f.p.rng.Float64() >= f.p.fate.loss
		}
		if n.have[o.Tree][i] {
			have++
		}
	}
	if have%flushed == 0 || have == len(n.have[o.Tree]) {
		copy(n.durable[o.Tree], n.have[o.Tree])
	}
}

// crash loses what was not durable.
func (n *network) crash() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for tree := range n.have {
		copy(n.have[tree], n.durable[tree])
	}
}

// Drop implements ota.Fetcher.
func (f *fetcher) Drop(o release.Object) error {
	if err := f.p.alive(); err != nil {
		return err
	}
	n := f.p.net
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.have, o.Tree)
	delete(n.durable, o.Tree)
	n.dropped[o.Tree] = true
	if err := os.Remove(f.path(o)); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}
