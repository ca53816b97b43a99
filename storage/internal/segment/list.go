// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"fulmar/storage/internal/disk"
)

// File is one segment in a folder.
type File struct {
	First uint64 // its name: the lowest number it may hold
	Bytes int64  // on disk
	Path  string
}

// Name is the file name of the segment that begins with first: 16 hex digits, so
// that names sort like numbers.
func Name(first uint64) string { return fmt.Sprintf("%016x.db", first) }

// Scan finds the segments of a folder, oldest first, and the paths of those that
// were begun and not finished and of all other files. It changes nothing.
func Scan(dir string) (files []File, unfinished, foreign []string, err error) {
	ents, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("list segments: %w", err)
	}
	for _, e := range ents {
		path := filepath.Join(dir, e.Name())
		name, tmp := strings.CutSuffix(e.Name(), tmpSuffix)
		first, ok := ParseName(name)
		switch {
		case !ok || !e.Type().IsRegular():
			foreign = append(foreign, path)
		case tmp:
			unfinished = append(unfinished, path)
		default:
			fi, err := e.Info()
			if err != nil {
				return nil, nil, nil, fmt.Errorf("list segments: %w", err)
			}
			files = append(files, File{first, disk.Bytes(fi), path})
		}
	}
	return files, unfinished, foreign, nil
}

// List is Scan for the folder's owner: it removes what was begun and not finished.
func List(dir string) (files []File, foreign []string, err error) {
	files, unfinished, foreign, err := Scan(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, path := range unfinished {
		if err := os.Remove(path); err != nil {
			return nil, nil, fmt.Errorf("remove unfinished segment: %w", err)
		}
	}
	return files, foreign, nil
}

// ParseName is the inverse of Name.
func ParseName(name string) (first uint64, ok bool) {
	hex, found := strings.CutSuffix(name, ".db")
	if !found || len(hex) != 16 || strings.ToLower(hex) != hex {
		return 0, false
	}
	first, err := strconv.ParseUint(hex, 16, 64)
	return first, err == nil && first > 0
}
