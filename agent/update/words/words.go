// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package words brings a board's newest word on each component's update to its fleet: on
// the disk before anything else, sent until the PUBACK, and again on each new connection,
// since a fleet that was restored from a backup has forgotten what it acknowledged.
package words

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"fulmar/internal/atomicfile"
	"fulmar/link"
	"fulmar/schema"
	wire "fulmar/schema/ota"
)

const (
	// maxWords is how many components a board tells of: as many as its record knows.
	maxWords = 48
	maxFile  = 64 << 10
	// again is how long after a word that could not be sent it is tried again while the
	// connection lasts: the link tells broken ones by itself.
	again = 5 * time.Second
	// sendTime bounds one word on a connection.
	sendTime = 30 * time.Second
)

// Words are the newest ones of one board. Safe for use by many goroutines.
type Words struct {
	path string
	send func(ctx context.Context, payload []byte) error
	log  *slog.Logger

	saving sync.Mutex // over the disk, which may be slow; mu is never held there

	mu     sync.Mutex
	newest map[string]word
	wake   chan struct{}
}

type word struct {
	wire.State
	sent bool // in the connection that is up
}

// kept is the file.
type kept struct {
	V     uint8        `cbor:"1,keyasint"`
	Words []wire.State `cbor:"2,keyasint"`
}

// Open reads the words in a file. One that cannot be read is begun anew: the fleet asks
// again for what it misses.
func Open(path string, send func(ctx context.Context, payload []byte) error, log *slog.Logger) *Words {
	w := &Words{path: path, send: send, log: log, newest: map[string]word{}, wake: make(chan struct{}, 1)}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return w
	}
	var k kept
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%d bytes", len(b))
	}
	if err == nil {
		err = schema.Decode(b, &k)
	}
	if err != nil {
		log.Warn("words on updates not read, they begin anew", "path", path, "err", err)
		return w
	}
	for _, s := range k.Words {
		if s.Validate() == nil && len(w.newest) < maxWords {
			w.newest[s.Component] = word{State: s}
		}
	}
	return w
}

// Tell makes a word the newest of its component: durably, where more than its progress is
// new. It is sent as soon as there is a connection.
func (w *Words) Tell(s wire.State) error {
	if err := s.Validate(); err != nil {
		return err
	}
	w.saving.Lock()
	defer w.saving.Unlock()
	w.mu.Lock()
	old, known := w.newest[s.Component]
	if !known && len(w.newest) >= maxWords {
		w.mu.Unlock()
		return fmt.Errorf("word on %s: %d components are told of already, the most", s.Component, maxWords)
	}
	was := old.State
	was.Progress = s.Progress
	w.newest[s.Component] = word{State: s}
	w.mu.Unlock()
	var err error
	if !known || !same(&was, &s) {
		if err = w.save(); err != nil {
			err = fmt.Errorf("keep the word on %s: %w", s.Component, err)
		}
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return err
}

func same(a, b *wire.State) bool {
	x, err := schema.Encode(a)
	y, err2 := schema.Encode(b)
	return err == nil && err2 == nil && slices.Equal(x, y)
}

func (w *Words) save() error {
	k := kept{V: schema.Version}
	w.mu.Lock()
	for _, name := range slices.Sorted(maps.Keys(w.newest)) {
		k.Words = append(k.Words, w.newest[name].State)
	}
	w.mu.Unlock()
	b, err := schema.Encode(&k)
	if err == nil {
		err = atomicfile.WriteFile(w.path, b, 0o600)
	}
	return err
}

// Connected sends what is the newest, and what becomes it, until the connection's context
// ends.
func (w *Words) Connected(ctx context.Context) {
	w.mu.Lock()
	for name, x := range w.newest {
		x.sent = false
		w.newest[name] = x
	}
	w.mu.Unlock()
	for {
		wait := w.sendAll(ctx)
		var later <-chan time.Time
		if wait {
			later = time.After(again)
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-later:
		}
	}
}

// sendAll sends what was not; it tells whether something is left to be tried again.
func (w *Words) sendAll(ctx context.Context) (left bool) {
	w.mu.Lock()
	var list []wire.State
	for _, name := range slices.Sorted(maps.Keys(w.newest)) {
		if x := w.newest[name]; !x.sent {
			list = append(list, x.State)
		}
	}
	w.mu.Unlock()
	for i := range list {
		s := &list[i]
		b, err := schema.Encode(s)
		if err == nil {
			ctx, cancel := context.WithTimeout(ctx, sendTime)
			err = w.send(ctx, b)
			cancel()
		}
		switch {
		case errors.Is(err, link.ErrNotTaken):
			w.log.Debug("the fleet takes no words on updates", "err", err)
			return false // not on this connection
		case err != nil:
			left = true
			continue
		}
		w.mu.Lock()
		if now := w.newest[s.Component]; same(&now.State, s) {
			now.sent = true
			w.newest[s.Component] = now
		}
		w.mu.Unlock()
	}
	return left
}
