// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"fulmar/internal/disk"
)

// Bounds of the history.
const (
	MaxHistory = 32
	maxEntry   = 4 << 10
	historyOf  = "history"
)

// Past is an update that is over.
type Past struct {
	Rollout   string `json:"rollout"`
	Component string `json:"component"`
	Release   string `json:"release"`
	Before    string `json:"before,omitempty"` // release that ran when it began
	Attempt   uint64 `json:"attempt"`
	Act       string `json:"act"`
	Word      string `json:"word"`
	Reason    string `json:"reason,omitempty"`
	Path      string `json:"path,omitempty"`  // words of the states that it came by
	Took      int64  `json:"took"`            // ms, as far as the board ran
	Boots     int    `json:"boots,omitempty"` // of the machine, meanwhile
	// Wall is the board's clock when it ended, ms since 1970: for people, and worth as much as
	// that clock.
	Wall int64 `json:"wall"`
}

// History reads the newest updates, the newest last. It is for people and may be lost without
// harm: what cannot be read is left out.
func History(dir string) ([]Past, error) {
	f, err := os.Open(filepath.Join(dir, historyOf))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the history of updates: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxHistory*maxEntry))
	if err != nil {
		return nil, fmt.Errorf("read the history of updates: %w", err)
	}
	var out []Past
	for line := range bytes.SplitSeq(b, []byte("\n")) {
		var p Past
		if len(line) > 0 && json.Unmarshal(line, &p) == nil && p.Component != "" {
			out = append(out, p)
		}
	}
	return out[max(0, len(out)-MaxHistory):], nil
}

// Remember adds an update to the history.
func Remember(d disk.Disk, dir string, p Past) error {
	old, _ := History(dir) // what cannot be read begins anew
	var out bytes.Buffer
	for _, p := range append(old, p)[max(0, len(old)+1-MaxHistory):] {
		line, err := json.Marshal(p)
		if err != nil || len(line) >= maxEntry {
			continue // no such entry is made: its parts have bounds
		}
		out.Write(append(line, '\n'))
	}
	path, tmp := filepath.Join(dir, historyOf), filepath.Join(dir, "."+historyOf+".new")
	err := disk.Put(d, tmp, 0o600, out.Bytes())
	if err == nil {
		err = d.Rename(tmp, path)
	}
	if err == nil {
		err = d.SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("keep the history of updates: %w", err)
	}
	return nil
}
