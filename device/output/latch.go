// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package output

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"fulmar/internal/atomicfile"
	"fulmar/schema"
)

const (
	latchFile = "safety.json"
	lastFile  = "outputs.json"
	// maxStateFile is 64 values with their names, and room.
	maxStateFile = 64 << 10
)

// latch is the file of the safety shutdown. Its content is written anew before a shutdown
// is done and before a release has its effect.
type latch struct {
	V      int         `json:"v"`
	Active bool        `json:"active"`
	Since  schema.Time `json:"since"`
	By     string      `json:"by"`
}

// readLatch gives what is latched. A file that is there and cannot be read is a shutdown:
// nobody can tell that it is none.
func readLatch(dir string) (latch, error) {
	b, err := readSmall(filepath.Join(dir, latchFile))
	if errors.Is(err, os.ErrNotExist) {
		return latch{V: 1}, nil
	}
	l := latch{}
	if err == nil {
		l, err = parseLatch(b)
	}
	if err != nil {
		return unreadable(), fmt.Errorf("%s: %w; taken for a safety shutdown, release it when the outputs may move", latchFile, err)
	}
	return l, nil
}

// unreadable is what a file that cannot be read stands for.
func unreadable() latch {
	return latch{V: 1, Active: true, By: "fulmard: " + latchFile + " cannot be read"}
}

func parseLatch(b []byte) (latch, error) {
	var l latch
	err := json.Unmarshal(b, &l)
	if err == nil && l.V != 1 {
		err = fmt.Errorf("has version %d, this program knows 1", l.V)
	}
	if err != nil {
		return unreadable(), err
	}
	return l, nil
}

func (l latch) write(dir string, write writeFile) error {
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return write(filepath.Join(dir, latchFile), b, 0o600)
}

// readLast gives what was set last, of outputs that are restored to it. A file that cannot
// be read is none: they go to their safe values then.
func readLast(dir string) (map[string]float64, error) {
	b, err := readSmall(filepath.Join(dir, lastFile))
	if errors.Is(err, os.ErrNotExist) {
		return map[string]float64{}, nil
	}
	last := map[string]float64{}
	if err == nil {
		last, err = parseLast(b)
	}
	if err != nil {
		return map[string]float64{}, fmt.Errorf("%s: %w; nothing is restored from it", lastFile, err)
	}
	return last, nil
}

func parseLast(b []byte) (map[string]float64, error) {
	last := map[string]float64{}
	if err := json.Unmarshal(b, &last); err != nil {
		return nil, err
	}
	if len(last) > MaxOutputs || last == nil {
		return nil, fmt.Errorf("has %d values, wants at most %d", len(last), MaxOutputs)
	}
	return last, nil
}

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxStateFile+1))
	if err == nil && len(b) > maxStateFile {
		return nil, fmt.Errorf("is over %d bytes", maxStateFile)
	}
	return b, err
}

type writeFile func(path string, b []byte, perm os.FileMode) error

func toDisk(path string, b []byte, perm os.FileMode) error {
	return atomicfile.WriteFile(path, b, perm)
}
