// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package kept is what a bank of outputs keeps on disk: the latch of a safety shutdown, and
// the values that are restored at a start.
package kept

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
	// LatchFile and LastFile are their names in the data folder.
	LatchFile = "safety.json"
	LastFile  = "outputs.json"
	maxValues = 64
	// maxStateFile is 64 values with their names, and room.
	maxStateFile = 64 << 10
)

// Latch is the file of the safety shutdown. Its content is written anew before a shutdown
// is done and before a release has its effect.
type Latch struct {
	V      int         `json:"v"`
	Active bool        `json:"active"`
	Since  schema.Time `json:"since"`
	By     string      `json:"by"`
}

// ReadLatch gives what is latched. A file that is there and cannot be read is a shutdown:
// nobody can tell that it is none.
func ReadLatch(dir string) (Latch, error) {
	b, err := readSmall(filepath.Join(dir, LatchFile))
	if errors.Is(err, os.ErrNotExist) {
		return Latch{V: 1}, nil
	}
	l := Latch{}
	if err == nil {
		l, err = parseLatch(b)
	}
	if err != nil {
		return unreadable(), fmt.Errorf("%s: %w; taken for a safety shutdown, release it when the outputs may move", LatchFile, err)
	}
	return l, nil
}

// unreadable is what a file that cannot be read stands for.
func unreadable() Latch {
	return Latch{V: 1, Active: true, By: "fulmard: " + LatchFile + " cannot be read"}
}

func parseLatch(b []byte) (Latch, error) {
	var l Latch
	err := json.Unmarshal(b, &l)
	if err == nil && l.V != 1 {
		err = fmt.Errorf("has version %d, this program knows 1", l.V)
	}
	if err != nil {
		return unreadable(), err
	}
	return l, nil
}

// Write puts it on the disk; a nil error says that it is there.
func (l Latch) Write(dir string, write WriteFile) error {
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return write(filepath.Join(dir, LatchFile), b, 0o600)
}

// ReadLast gives what was set last, of outputs that are restored to it. A file that cannot
// be read is none: they go to their safe values then.
func ReadLast(dir string) (map[string]float64, error) {
	b, err := readSmall(filepath.Join(dir, LastFile))
	if errors.Is(err, os.ErrNotExist) {
		return map[string]float64{}, nil
	}
	last := map[string]float64{}
	if err == nil {
		last, err = parseLast(b)
	}
	if err != nil {
		return map[string]float64{}, fmt.Errorf("%s: %w; nothing is restored from it", LastFile, err)
	}
	return last, nil
}

func parseLast(b []byte) (map[string]float64, error) {
	last := map[string]float64{}
	if err := json.Unmarshal(b, &last); err != nil {
		return nil, err
	}
	if len(last) > maxValues || last == nil {
		return nil, fmt.Errorf("has %d values, wants at most %d", len(last), maxValues)
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

// WriteFile replaces a file so that after a power cut there is the old or the new one.
type WriteFile func(path string, b []byte, perm os.FileMode) error

// ToDisk is the real one.
func ToDisk(path string, b []byte, perm os.FileMode) error {
	return atomicfile.WriteFile(path, b, perm)
}

// WriteLast puts values on the disk.
func WriteLast(dir string, last map[string]float64, write WriteFile) error {
	b, err := json.Marshal(last)
	if err != nil {
		return err
	}
	return write(filepath.Join(dir, LastFile), b, 0o600)
}
