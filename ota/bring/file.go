// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package bring

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"fulmar/internal/ustar"
	"fulmar/ota/release"
	words "fulmar/schema/ota"
)

// MaxUnpacked bounds the files of a tar: a model of a thousand parts has room.
const MaxUnpacked = 4096

// verify holds a file to its size and SHA-256.
func verify(ctx context.Context, path string, want release.Object) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || fi.Size() != want.Size || !fi.Mode().IsRegular() {
		return errors.Join(err, fmt.Errorf("it is no file of %d bytes", want.Size))
	}
	h := sha256.New()
	if _, err := io.Copy(h, reader{ctx, f}); err != nil {
		return err
	}
	if got := release.Hash(h.Sum(nil)); got != want.SHA256 {
		return fmt.Errorf("its SHA-256 is %s, wants %s", got, want.SHA256)
	}
	return nil
}

// reader reads until its context ends.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

// unpack makes a folder of a tar that is whole. It is made anew in each life of the
// process: what is in it is verified by the tar's hash alone.
func (b *Bringer) unpack(ctx context.Context, f *release.File, tar string) (string, error) {
	dir := b.path(f.SHA256) + ".d"
	if err := b.Disk.RemoveAll(dir); err != nil {
		return "", fail(words.Disk, f.Path, err)
	}
	if err := b.Disk.Mkdir(dir); err != nil {
		return "", fail(words.Disk, f.Path, err)
	}
	in, err := os.Open(tar)
	if err != nil {
		return "", fail(words.Disk, f.Path, err)
	}
	defer in.Close()
	r := ustar.NewReader(reader{ctx, in}, ustar.Limits{Files: MaxUnpacked, Total: f.Unpacked, Name: release.CleanPath})
	for {
		e, err := r.Next()
		if err == io.EOF {
			return dir, nil
		}
		if err == nil {
			err = b.extract(dir, e, r)
		}
		if err != nil {
			// What was signed is no such tar: it will be none the next time either.
			return "", &Error{Reason: words.HashWrong, File: f.Path, Final: errors.Is(err, ustar.ErrForm), Err: fmt.Errorf("unpack: %w", err)}
		}
	}
}

func (b *Bringer) extract(dir string, e ustar.Entry, r io.Reader) error {
	at := dir
	parts := strings.Split(e.Name, "/")
	for _, folder := range parts[:len(parts)-1] {
		at = filepath.Join(at, folder)
		if err := b.Disk.Mkdir(at); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	out, err := b.Disk.Create(filepath.Join(at, parts[len(parts)-1]), 0o644)
	if err != nil {
		return err
	}
	_, err = io.CopyN(out, r, e.Size)
	return errors.Join(err, out.Close())
}
