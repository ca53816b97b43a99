// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package bring

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"fulmar/internal/disk"
	"fulmar/ota/release"
	words "fulmar/schema/ota"
)

// Fetcher brings objects: an ota.Fetcher.
type Fetcher interface {
	Fetch(ctx context.Context, o release.Object, progress func(have, all int64)) (path string, err error)
	Drop(o release.Object) error
}

// Config is what a [Bringer] works with.
type Config struct {
	Dir   string // its own folder; it is made
	Disk  disk.Disk
	Fetch Fetcher
	// Apply makes the file want at outPath, which does not exist, of the patch and its base
	// ("" for a codec that has none). It is told to stop by ctx.
	Apply func(ctx context.Context, codec, basePath, patchPath, outPath string, want release.Object) error
}

// Base gives a file that is in force by its SHA-256; any error: it is not here.
type Base func(ctx context.Context, sha release.Hash) (path string, err error)

// Error is why a file could not be brought.
type Error struct {
	Reason  string // of schema/ota.Reasons
	File    string
	Missing int64 // bytes, where Reason is NoSpace
	// Final: trying again does not help.
	Final bool
	Err   error
}

func (e *Error) Error() string { return fmt.Sprintf("file %s: %v", e.File, e.Err) }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Bringer brings files. It is used from one goroutine at a time.
type Bringer struct {
	Config
	whole map[release.Hash]bool // verified in this life of the process
}

// New makes a bringer. It touches nothing.
func New(cfg Config) *Bringer { return &Bringer{Config: cfg, whole: map[release.Hash]bool{}} }

// way is a way to a file.
type way struct {
	codec string // "" as it is
	base  string // path, "" for none
	release.Object
}

// ways lists the ways to a file that can be gone here, the shortest first.
func ways(ctx context.Context, f *release.File, patches []release.Patch, base Base) []way {
	var list []release.Encoding
	for _, p := range patches {
		if p.To == f.SHA256 {
			list = append(list, p.Encoding)
		}
	}
	out := []way{{Object: f.Object}}
	for _, e := range append(list, f.Encodings...) {
		w := way{codec: e.Codec, Object: e.Object}
		if e.From != nil {
			path, err := base(ctx, *e.From)
			if err != nil {
				continue
			}
			w.base = path
		}
		if !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	slices.SortStableFunc(out, func(a, b way) int { return cmp.Compare(a.Size, b.Size) })
	return out
}

// Files brings all files of a component and gives where each lies, by its path in the
// manifest. progress is called with the bytes that travelled, of those that have to.
// The error is an *[Error], or that of ctx.
func (b *Bringer) Files(ctx context.Context, c *release.Component, patches []release.Patch, base Base, progress func(have, all int64)) (map[string]string, error) {
	if err := b.folder(); err != nil {
		return nil, fail(words.Disk, "", err)
	}
	out := make(map[string]string, len(c.Files))
	all, done := b.travels(ctx, c, patches, base), int64(0)
	for i := range c.Files {
		f := &c.Files[i]
		path, err := b.file(ctx, f, patches, base, func(have int64) { progress(min(done+have, all), all) })
		if err == nil && f.Unpack {
			path, err = b.unpack(ctx, f, path)
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, b.judge(ctx, c, i, patches, base, err)
		}
		out[f.Path] = path
		done += ways(ctx, f, patches, base)[0].Size
		progress(min(done, all), all)
	}
	return out, nil
}

// judge completes an error at file i.
func (b *Bringer) judge(ctx context.Context, c *release.Component, i int, patches []release.Patch, base Base, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		e = fail(words.Fetch, c.Files[i].Path, err)
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		rest := *c
		rest.Files = c.Files[i:]
		e.Reason, e.Final, e.Missing = words.NoSpace, false, b.Need(ctx, &rest, patches, base)
	}
	return e
}

func fail(reason, file string, err error) *Error { return &Error{Reason: reason, File: file, Err: err} }

// file brings one file.
func (b *Bringer) file(ctx context.Context, f *release.File, patches []release.Patch, base Base, progress func(int64)) (string, error) {
	if path, ok := b.has(ctx, f, base); ok {
		return path, nil
	}
	var errs []error
	reason, final := words.Fetch, true
	for _, w := range ways(ctx, f, patches, base) {
		from, err := b.Fetch.Fetch(ctx, w.Object, func(have, _ int64) { progress(have) })
		if err != nil {
			if full(err) || ctx.Err() != nil {
				return "", fail(words.NoSpace, f.Path, err)
			}
			final = false // another time it may come
			errs = append(errs, fmt.Errorf("%s object %s: %w", w.name(), w.Tree, err))
			continue
		}
		path, err := b.make(ctx, f, w, from)
		if err == nil {
			return path, nil
		}
		if full(err) || ctx.Err() != nil {
			return "", fail(words.NoSpace, f.Path, err)
		}
		if reason = words.HashWrong; w.codec != "" {
			reason = words.Patch
		}
		errs = append(errs, fmt.Errorf("%s object %s: %w", w.name(), w.Tree, err))
		if err := b.Fetch.Drop(w.Object); err != nil {
			errs = append(errs, err)
		}
	}
	if !final {
		reason = words.Fetch
	}
	return "", &Error{Reason: reason, File: f.Path, Final: final, Err: errors.Join(errs...)}
}

func (w way) name() string { return cmp.Or(w.codec, "whole") }

func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// has looks for a file that is whole here already: in force unchanged, or made before.
func (b *Bringer) has(ctx context.Context, f *release.File, base Base) (string, bool) {
	if !f.Unpack {
		if path, err := base(ctx, f.SHA256); err == nil && verify(ctx, path, f.Object) == nil {
			return path, true
		}
	}
	path := b.path(f.SHA256)
	if b.whole[f.SHA256] {
		return path, true
	}
	if verify(ctx, path, f.Object) != nil {
		return "", false
	}
	b.whole[f.SHA256] = true
	return path, true
}

// make makes the file of an object that came.
func (b *Bringer) make(ctx context.Context, f *release.File, w way, from string) (string, error) {
	if w.codec == "" { // it stays where the fetcher has it: a disk holds it once
		return from, verify(ctx, from, f.Object)
	}
	path := b.path(f.SHA256)
	part := path + ".part"
	for _, old := range []string{part, path} {
		if err := b.Disk.RemoveAll(old); err != nil {
			return "", err
		}
	}
	err := b.Apply(ctx, w.codec, w.base, from, part, f.Object)
	if err == nil {
		err = verify(ctx, part, f.Object)
	}
	if err == nil {
		err = b.keep(part, path)
	}
	if err != nil {
		return "", errors.Join(err, b.Disk.RemoveAll(part))
	}
	b.whole[f.SHA256] = true
	return path, b.Fetch.Drop(w.Object) // the patch has done its work
}

// keep makes a file durable under its name.
func (b *Bringer) keep(part, path string) error {
	f, err := b.Disk.Open(part)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := b.Disk.Rename(part, path); err != nil {
		return err
	}
	return b.Disk.SyncDir(b.Dir)
}

func (b *Bringer) path(sha release.Hash) string { return filepath.Join(b.Dir, sha.String()) }

func (b *Bringer) folder() error {
	if _, err := os.Stat(b.Dir); err == nil {
		return nil
	}
	if err := b.Disk.Mkdir(b.Dir); err != nil {
		return err
	}
	return b.Disk.SyncDir(filepath.Dir(b.Dir))
}

// travels is how many bytes have to come if all goes well.
func (b *Bringer) travels(ctx context.Context, c *release.Component, patches []release.Patch, base Base) (n int64) {
	for i := range c.Files {
		n += ways(ctx, &c.Files[i], patches, base)[0].Size
	}
	return n
}

// Need is how many bytes bringing a component takes here at most, beside what is whole
// already; what is half here counts again.
func (b *Bringer) Need(ctx context.Context, c *release.Component, patches []release.Patch, base Base) (n int64) {
	for i := range c.Files {
		f := &c.Files[i]
		n += f.Unpacked
		if _, ok := b.has(ctx, f, base); ok {
			continue
		}
		if n += f.Size; ways(ctx, f, patches, base)[0].codec != "" {
			n += ways(ctx, f, patches, base)[0].Size
		}
	}
	return n
}

// Forget removes all that was brought for a component, and for any other.
func (b *Bringer) Forget(c *release.Component, patches []release.Patch) error {
	var errs []error
	if c != nil {
		for i := range c.Files {
			errs = append(errs, b.Fetch.Drop(c.Files[i].Object))
			for _, e := range c.Files[i].Encodings {
				errs = append(errs, b.Fetch.Drop(e.Object))
			}
		}
		for _, p := range patches {
			errs = append(errs, b.Fetch.Drop(p.Object))
		}
	}
	clear(b.whole)
	return errors.Join(append(errs, b.Disk.RemoveAll(b.Dir))...)
}
