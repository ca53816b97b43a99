// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rule

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"fulmar/internal/atomicfile"
	"fulmar/schema"
)

const (
	// saveEvery is how often what runs down is written: so much of a lease a power cut
	// can give back, and so much is taken off for it.
	saveEvery = 30 * time.Second
	maxKept   = 64 << 10 // bytes of the file; 32 rules are 4 KiB
)

// kept is the file.
type kept struct {
	V     uint8   `cbor:"1,keyasint"`
	Clean bool    `cbor:"2,keyasint,omitempty"` // written at the end of the program
	Rules []Saved `cbor:"3,keyasint,omitempty"`
}

// keeper writes the newest state; what came in between is skipped.
type keeper struct {
	path string
	log  *slog.Logger
	wake chan struct{} // cap 1

	mu      sync.Mutex
	newest  []byte
	next    chan struct{} // closed when newest was tried; one for all who wait: the disk may hang for days
	failing bool
}

// read gives what was kept. After an end without a stop the leases lose what may have
// passed since it was written.
func (k *keeper) read() ([]Saved, error) {
	if k.path == "" {
		return nil, nil
	}
	st, err := os.Stat(k.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if st.Size() > maxKept {
		return nil, fmt.Errorf("%d bytes, at most %d", st.Size(), maxKept)
	}
	b, err := os.ReadFile(k.path)
	if err != nil {
		return nil, err
	}
	return parseKept(b)
}

func parseKept(b []byte) ([]Saved, error) {
	var f kept
	if err := schema.Decode(b, &f); err != nil {
		return nil, err
	}
	if f.V != schema.Version || len(f.Rules) > MaxRules {
		return nil, fmt.Errorf("version %d with %d rules; this program knows version %d and %d rules", f.V, len(f.Rules), schema.Version, MaxRules)
	}
	for i := range f.Rules {
		if ms := uint64(saveEvery.Milliseconds()); !f.Clean && f.Rules[i].LeaseMs > 0 {
			f.Rules[i].LeaseMs -= min(ms, f.Rules[i].LeaseMs-1)
		}
	}
	return f.Rules, nil
}

// put has b written, and gives a channel that is closed when it, or something newer, was
// tried to be.
func (k *keeper) put(b []byte) <-chan struct{} {
	k.mu.Lock()
	if k.newest = b; k.next == nil {
		k.next = make(chan struct{})
	}
	done := k.next
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
	return done
}

func (k *keeper) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
		}
		k.mu.Lock()
		b, done := k.newest, k.next
		k.newest, k.next = nil, nil
		k.mu.Unlock()
		if b != nil {
			k.write(b)
		}
		if done != nil {
			close(done)
		}
	}
}

// write says once that the disk takes nothing.
func (k *keeper) write(b []byte) {
	if k.path == "" {
		return
	}
	err := atomicfile.WriteFile(k.path, b, 0o600)
	k.mu.Lock()
	first := err != nil && !k.failing
	k.failing = err != nil
	k.mu.Unlock()
	if first {
		k.log.Error("what rules have done is not on the disk: after a restart they may do it again", "path", k.path, "err", err)
	}
}
