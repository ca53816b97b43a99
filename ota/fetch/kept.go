// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"fulmar/internal/atomicfile"
	"fulmar/internal/disk"
	"fulmar/ota/release"
)

// keptDir is where dropped objects stay while there is room, for the other boards of a site.
const keptDir = "kept"

// Paths are where a whole object may lie, and its leaves beside it under [LeavesSuffix].
func Paths(dir string, tree release.Hash) [2]string {
	return [2]string{filepath.Join(dir, tree.String()), filepath.Join(dir, keptDir, tree.String())}
}

func (f *Fetcher) kept() string { return filepath.Join(f.cfg.Dir, keptDir) }

// keep puts a dropped object where it stays, if it is whole and there is room.
func (f *Fetcher) keep(tree release.Hash) error {
	paths := Paths(f.cfg.Dir, tree)
	info, err := os.Stat(paths[0])
	if f.cfg.Keep == 0 || err != nil || info.Size() > f.cfg.Keep {
		return nil //nolint:nilerr // it is dropped, so nobody needs it
	}
	if free, _, _, err := disk.Free(f.cfg.Dir); err != nil || free < f.cfg.Keep {
		return nil //nolint:nilerr // not known is not enough
	}
	if err := os.MkdirAll(f.kept(), 0o700); err != nil {
		return err
	}
	// Its leaves first: a board asks for them first, and does without an object that has none.
	for _, suffix := range []string{LeavesSuffix, ""} {
		if err := os.Rename(paths[0]+suffix, paths[1]+suffix); err != nil && (suffix == "" || !errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	now := time.Now()
	return errors.Join(os.Chtimes(paths[1], now, now), f.trim(f.cfg.Keep))
}

// back takes an object that was kept for use; what cannot be taken is fetched.
func (f *Fetcher) back(tree release.Hash) {
	paths := Paths(f.cfg.Dir, tree)
	for _, suffix := range []string{LeavesSuffix, ""} {
		if err := os.Rename(paths[1]+suffix, paths[0]+suffix); err != nil {
			return
		}
	}
}

// trim removes what was kept longest until the rest has at most so many bytes.
func (f *Fetcher) trim(most int64) error {
	list, err := os.ReadDir(f.kept())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var files []fs.FileInfo
	var sum int64
	for _, e := range list {
		if info, err := e.Info(); err == nil {
			files = append(files, info)
			sum += info.Size()
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	var errs []error
	for i := 0; i < len(files) && sum > most; i++ {
		sum -= files[i].Size()
		errs = append(errs, os.Remove(filepath.Join(f.kept(), files[i].Name())))
	}
	return errors.Join(append(errs, atomicfile.SyncDir(f.kept()))...)
}

// Clear removes what was kept: its room is wanted.
func (f *Fetcher) Clear() error { return os.RemoveAll(f.kept()) }
