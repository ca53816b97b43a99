// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package update

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"fulmar/internal/atomicfile"
	"fulmar/schema"
)

// hold is a person's wish for no updates, over restarts. It counts time that the board runs
// within a boot, and by the board's clock over a reboot; whichever clock is wrong, it is never
// longer than it was asked for.
type hold struct {
	path  string
	clock schema.Clock
	log   *slog.Logger

	mu   sync.Mutex
	kept kept
}

// kept is the file.
type kept struct {
	By   string `json:"by"`
	For  int64  `json:"for_ms"`
	Boot uint64 `json:"boot"`
	Mono int64  `json:"mono"` // when it began, ns of that boot
	Wall int64  `json:"wall"` // the same, ms since 1970
}

const maxHoldFile = 4 << 10

func openHold(path string, clock schema.Clock, log *slog.Logger) *hold {
	h := &hold{path: path, clock: clock, log: log}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return h
	}
	if err == nil && len(b) > maxHoldFile {
		err = errors.New("it is too long")
	}
	if err == nil {
		err = json.Unmarshal(b, &h.kept)
	}
	if err != nil {
		log.Warn("a person's hold of updates is not read and does not hold", "path", path, "err", err)
		h.kept = kept{}
	}
	return h
}

// set begins one, in place of another; 0 ends it.
func (h *hold) set(d time.Duration, by string) error {
	now := h.clock.Now()
	k := kept{By: by, For: d.Milliseconds(), Boot: now.Boot, Mono: now.Mono, Wall: now.Wall}
	b, err := json.Marshal(k)
	if err == nil {
		err = atomicfile.WriteFile(h.path, b, 0o600)
	}
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept = k
	return nil
}

// left is how long it still holds.
func (h *hold) left() time.Duration {
	h.mu.Lock()
	k := h.kept
	h.mu.Unlock()
	now := h.clock.Now()
	past := time.Duration(now.Mono - k.Mono)
	if k.Boot != now.Boot {
		past = max(time.Duration(now.Wall-k.Wall)*time.Millisecond, time.Duration(now.Mono))
	}
	return max(0, time.Duration(k.For)*time.Millisecond-max(past, 0))
}

func (h *hold) by() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.kept.By
}
