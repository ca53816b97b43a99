// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Bounds of what is read. A folder of drop-ins holds a handful; a log in its place, or
// a program that writes into it without end, must not fill memory.
const (
	maxConfigBytes = 1 << 20 // of the file and its drop-ins together
	maxDropIns     = 64
)

// source is one file of a config.
type source struct {
	path string // "" where there is no file
	text []byte
	air  bool // it came over the air
}

// DropInDir is the folder whose *.yaml are read over the config file at path, in the
// order of their names: for /etc/fulmar/fulmard.yaml it is /etc/fulmar/fulmard.d.
func DropInDir(path string) string {
	path = filepath.Clean(path)
	return strings.TrimSuffix(path, filepath.Ext(path)) + ".d"
}

// UserCommandDir is the folder of the manifests of commands that were added to a board, see
// package device/usercommand: for /etc/fulmar/fulmard.yaml it is /etc/fulmar/commands.d.
// "" where there is no config file.
func UserCommandDir(path string) string {
	if path == "" {
		return ""
	}
	return filepath.Join(filepath.Dir(path), "commands.d")
}

// IsDropIn tells whether a file of this name in a [DropInDir] is read: NAME.yaml, where
// NAME does not begin with a dot, as half-written files and those of editors do.
func IsDropIn(name string) bool {
	return strings.HasSuffix(name, ".yaml") && !strings.HasPrefix(name, ".")
}

// UpdateDir is the folder of the drop-ins that came over the air, in the data folder of the
// config at path: they are read after the file and before the drop-ins beside it, so that
// people at the board have the last word.
func UpdateDir(path string) string { return filepath.Join(dataOf(path), "config", "current") }

// Files are the config file at path, the drop-ins that came over the air and those beside
// the file, in the order in which they are read. A folder that is not there holds none.
func Files(path string) ([]string, error) {
	air, err := dropIns(UpdateDir(path))
	if err != nil {
		return nil, err
	}
	beside, err := dropIns(DropInDir(path))
	return append(append([]string{path}, air...), beside...), err
}

// dropIns are the drop-ins of a folder, in order. One that is not there holds none, nor does
// one of the data folder that this user may not look into: fulmard may.
func dropIns(dir string) (out []string, err error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("read config folder: %w", err)
	}
	for _, e := range entries {
		if IsDropIn(e.Name()) {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	if len(out) > maxDropIns {
		return nil, fmt.Errorf("config folder %s holds %d files, at most %d are read; put them together", dir, len(out), maxDropIns)
	}
	return out, nil
}

// readAll reads the config file at path and its drop-ins, with those of a folder as what
// came over the air.
func readAll(path, update string) ([]source, error) {
	air, err := dropIns(update)
	if err != nil {
		return nil, err
	}
	beside, err := dropIns(DropInDir(path))
	if err != nil {
		return nil, err
	}
	var out []source
	left := maxConfigBytes
	for i, f := range append(append([]string{path}, air...), beside...) {
		b, err := readFile(f, left)
		if err != nil {
			return nil, err
		}
		out, left = append(out, source{f, b, i > 0 && i <= len(air)}), left-len(b)
	}
	return out, nil
}

// readFile reads a regular file of at most limit bytes. It does not wait for a FIFO.
func readFile(path string, limit int) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, fmt.Errorf("read config: %s is not a regular file; move it away", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read config: %w", err)
	case len(b) > limit:
		return nil, fmt.Errorf("config %s: the file and its drop-ins are over %d bytes together", path, maxConfigBytes)
	}
	return b, nil
}

// dataOf finds the data folder in files that need not be YAML otherwise: the last word
// on it counts.
func dataOf(path string) string {
	data := Default().Data
	beside, _ := dropIns(DropInDir(path)) // what came over the air lies in it, and may not set it
	for _, f := range append([]string{path}, beside...) {
		b, _ := readFile(f, maxConfigBytes)
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "data:"); ok {
				v, _, _ = strings.Cut(v, " #")
				if v = strings.Trim(strings.TrimSpace(v), `"'`); v != "" {
					data = v
				}
			}
		}
	}
	return data
}

// origins tells for each key that some file gives, "fleet.address", which file did so
// last. A list is one key.
type origins map[string]string

// blame adds to each line of an error of [Config.Validate] the file that the key is
// from, where more than one was read.
func (o origins) blame(err error, sources []source) error {
	if err == nil || len(sources) < 2 {
		return err
	}
	var out []error
	for line := range strings.SplitSeq(err.Error(), "\n") {
		key, _, _ := strings.Cut(line, ": ")
		key, _, _ = strings.Cut(key, "[")
		file := o[key]
		if file == "" && !strings.Contains(key, " ") { // a part of it: sample.groups
			for k, f := range o {
				if strings.HasPrefix(k, key+".") {
					file = f
				}
			}
		}
		if file != "" {
			line += " (from " + file + ")"
		}
		out = append(out, errors.New(line))
	}
	return errors.Join(out...)
}

// names are the paths of sources, the last component of each.
func names(sources []source) (out []string) {
	for _, s := range sources {
		out = append(out, filepath.Base(s.path))
	}
	return slices.Clip(out)
}
