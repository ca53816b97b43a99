// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package cut

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/release/source"
	"fulmar/internal/ustar"
	rel "fulmar/ota/release"
)

const (
	// smallFile is what goes into the tar of a component: less than the piece in which an
	// object travels, so that nothing is gained by an object of its own.
	smallFile = rel.Piece
	tarFile   = "files.tar"
	// maxTar bounds the tar of small files: it is made in memory.
	maxTar = 64 << 20
)

// found is a file of a component, before it is an object.
type found struct {
	path     string // in the component
	disk     string // on this disk
	text     []byte // in place of disk: the tar
	size     int64
	unpacked int64 // bytes that the tar holds; 0 for other files
}

// open gives the bytes.
func (f *found) open() (*source.Object, error) {
	if f.text != nil {
		return source.NewObject(io.NewSectionReader(bytes.NewReader(f.text), 0, f.size), nil), nil
	}
	r, err := os.Open(f.disk)
	if err != nil {
		return nil, err
	}
	return source.NewObject(io.NewSectionReader(r, 0, f.size), r.Close), nil
}

// collect finds the files of a component in the order of their paths; path is a folder, or
// one file.
func collect(path string) (out []found, err error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		f, err := file(path, filepath.Base(path), st)
		return []found{f}, err
	}
	err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(path, p)
		if err != nil {
			return err
		}
		st, err := os.Stat(p) // a link counts as what it names
		if err != nil {
			return err
		}
		f, err := file(p, filepath.ToSlash(name), st)
		out = append(out, f)
		return err
	})
	if err == nil && len(out) == 0 {
		err = fault.New(fault.NotTaken, "%s has no files", path)
	}
	slices.SortFunc(out, func(a, b found) int { return strings.Compare(a.path, b.path) })
	return out, err
}

func file(disk, name string, st fs.FileInfo) (f found, err error) {
	switch {
	case !st.Mode().IsRegular():
		err = fault.New(fault.NotTaken, "%s is no plain file; a release has only those", disk)
	case !rel.CleanPath(name):
		err = fault.New(fault.NotTaken, "%s: boards take names of letters, digits and .-+~_ that do not begin with a dot or dash, at most 200 bytes; rename it or take it out", disk)
	case st.Size() > rel.MaxSize:
		err = fault.New(fault.NotTaken, "%s has %d bytes, at most %d", disk, st.Size(), int64(rel.MaxSize))
	}
	return found{path: name, disk: disk, size: st.Size()}, err
}

// pack puts the small files into one tar that is unpacked on the board; must: there is no
// choice. Two files are left alone.
func pack(component string, files []found) ([]found, error) {
	var small, rest []found
	var bytes int64
	for _, f := range files {
		if f.size < smallFile {
			small = append(small, f)
			bytes += f.size
		} else {
			rest = append(rest, f)
		}
	}
	if len(small) < 3 && !slices.ContainsFunc(small, func(f found) bool { return f.size == 0 }) {
		return files, nil
	}
	if bytes > maxTar || slices.ContainsFunc(rest, func(f found) bool { return f.path == tarFile }) {
		return nil, fault.New(fault.NotTaken, "%s: its %d small files have %s, at most %s, and none may be called %s", component, len(small), source.Size(bytes), source.Size(maxTar), tarFile)
	}
	if bytes == 0 {
		return nil, fault.New(fault.NotTaken, "%s: %s is empty; take it out", component, small[0].disk)
	}
	text, err := packed(small)
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", component, err)
	}
	out := append(rest, found{path: tarFile, text: text, size: int64(len(text)), unpacked: bytes})
	slices.SortFunc(out, func(a, b found) int { return strings.Compare(a.path, b.path) })
	return out, nil
}

// packed is the tar: the same files give the same bytes.
func packed(files []found) ([]byte, error) {
	var b bytes.Buffer
	w := ustar.NewWriter(&b)
	for _, f := range files {
		text, err := source.ReadBounded(f.disk, smallFile)
		if err != nil {
			return nil, err
		}
		if err := w.Create(f.path, int64(len(text))); err != nil {
			return nil, err
		}
		if _, err := w.Write(text); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// Unpackable tells whether a tar of a component is one that boards unpack.
func Unpackable(r io.Reader, f *rel.File) error {
	t := ustar.NewReader(r, ustar.Limits{Files: 1 << 16, Total: f.Unpacked, Name: rel.CleanPath})
	var n int64
	for {
		e, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fault.Mark(fault.ObjectWrong, fmt.Errorf("%s: %w", f.Path, err))
		}
		n += e.Size
	}
	if n != f.Unpacked {
		return fault.New(fault.ObjectWrong, "%s holds %d bytes, and the manifest says %d", f.Path, n, f.Unpacked)
	}
	return nil
}
