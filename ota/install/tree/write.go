// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"

	"fulmar/internal/disk"
	"fulmar/internal/strictjson"
	"fulmar/ota"
	"fulmar/ota/release"
)

const (
	maxInfo   = 2 << 20 // bytes of .component.json
	maxInside = 4096    // files of a version, unpacked
)

// info is .component.json.
type info struct {
	V         int      `json:"v"`
	Component string   `json:"component"`
	Token     string   `json:"token"`
	Files     []inside `json:"files"`
}

// inside is a file of a version.
type inside struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	from   string // where it is brought from
	sure   bool   // its SHA256 is known before it is read
}

// Token names a component by its version and content.
func Token(c *release.Component) string {
	h := sha256.New()
	lines := make([]string, 0, len(c.Files))
	for i := range c.Files {
		lines = append(lines, fmt.Sprintf("%s %s %v\n", c.Files[i].Path, c.Files[i].SHA256, c.Files[i].Unpack))
	}
	slices.Sort(lines)
	for _, l := range lines {
		_, _ = io.WriteString(h, l)
	}
	return c.Version + "-" + hex.EncodeToString(h.Sum(nil))[:hashInToken]
}

// get reads what a version is and looks whether its files are there in their size.
func (t *Tree) get(token string) (*info, error) {
	if !ValidToken(token) {
		return nil, fmt.Errorf("%s: %.140q is no token", t.o.Component, token)
	}
	b, err := readAtMost(t.path(token, infoFile), maxInfo)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s %s %w", t.o.Component, token, errNotThere)
	}
	var in info
	if err == nil {
		err = strictjson.Decode(b, maxInfo, &in)
	}
	if err == nil && (in.V != 1 || in.Token != token || in.Component != t.o.Component || len(in.Files) == 0) {
		err = fmt.Errorf("is that of %.80q %.140q", in.Component, in.Token)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %s: %w", t.o.Component, token, infoFile, err)
	}
	for _, f := range in.Files {
		if !release.CleanPath(f.Path) {
			return nil, fmt.Errorf("%s %s: %s names %.80q", t.o.Component, token, infoFile, f.Path)
		}
		fi, err := os.Lstat(t.path(token, filepath.FromSlash(f.Path)))
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", t.o.Component, token, err)
		}
		if !fi.Mode().IsRegular() || fi.Size() != f.Size {
			return nil, fmt.Errorf("%s %s: %s is no file of %d bytes", t.o.Component, token, f.Path, f.Size)
		}
	}
	return &in, nil
}

// verify reads a version and compares.
func (t *Tree) verify(ctx context.Context, token string) error {
	in, err := t.get(token)
	if err != nil {
		return err
	}
	for _, f := range in.Files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if got, err := hashFile(t.path(token, filepath.FromSlash(f.Path))); err != nil || got != f.SHA256 {
			return errors.Join(fmt.Errorf("%s %s: %s has changed on the disk", t.o.Component, token, f.Path), err)
		}
	}
	return nil
}

// list gives the files of a version from where they were brought to.
func list(c *release.Component, paths map[string]string) ([]inside, error) {
	var out []inside
	for i := range c.Files {
		f := &c.Files[i]
		from := paths[f.Path]
		if from == "" {
			return nil, fmt.Errorf("%s was not brought", f.Path)
		}
		if !f.Unpack {
			out = append(out, inside{Path: f.Path, Size: f.Size, SHA256: f.SHA256.String(), from: from, sure: true})
			continue
		}
		more, err := unpacked(path.Dir(f.Path), from, f.Unpacked)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		out = append(out, more...)
	}
	if len(out) > maxInside {
		return nil, fmt.Errorf("%d files, at most %d", len(out), maxInside)
	}
	slices.SortFunc(out, func(a, b inside) int { return compare(a.Path, b.Path) })
	for i := 1; i < len(out); i++ {
		if out[i].Path == out[i-1].Path {
			return nil, fmt.Errorf("%s is there twice", out[i].Path)
		}
	}
	return out, nil
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// unpacked gives the files of a folder that stands for a tar.
func unpacked(in, from string, most int64) (out []inside, err error) {
	err = filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		name := path.Join(in, filepath.ToSlash(rel))
		if most -= fi.Size(); !fi.Mode().IsRegular() || !release.CleanPath(name) || most < 0 || len(out) >= maxInside {
			return fmt.Errorf("%.80q is no regular file of a clean name, or over what it unpacks to, or over %d files", name, maxInside)
		}
		out = append(out, inside{Path: name, Size: fi.Size(), from: p})
		return nil
	})
	return out, err
}

// write brings a version into its folder, durably: the name is there when all of it is.
func (t *Tree) write(ctx context.Context, token string, files []inside) error {
	tmp := t.path(newDir)
	if err := t.o.Disk.Mkdir(tmp); err != nil {
		return err
	}
	have := t.shared()
	dirs := map[string]bool{".": true}
	for i := range files {
		f := &files[i]
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := t.folders(tmp, path.Dir(f.Path), dirs); err != nil {
			return err
		}
		if err := t.bring(filepath.Join(tmp, filepath.FromSlash(f.Path)), f, have); err != nil {
			return err
		}
	}
	b, err := json.Marshal(info{V: 1, Component: t.o.Component, Token: token, Files: files})
	if err == nil {
		err = disk.Put(t.o.Disk, filepath.Join(tmp, infoFile), 0o644, b)
	}
	if err != nil {
		return err
	}
	// From the inside out: a folder's name is worth what is in it.
	for _, d := range slices.Backward(slices.Sorted(maps.Keys(dirs))) {
		if err := t.o.Disk.SyncDir(filepath.Join(tmp, filepath.FromSlash(d))); err != nil {
			return err
		}
	}
	if err := t.o.Disk.RemoveAll(t.path(token)); err != nil { // one of this name that is damaged
		return err
	}
	if err := t.o.Disk.Rename(tmp, t.path(token)); err != nil {
		return err
	}
	return t.o.Disk.SyncDir(t.o.Dir)
}

// folders makes the folders that a file lies in.
func (t *Tree) folders(tmp, dir string, made map[string]bool) error {
	if made[dir] {
		return nil
	}
	if len(made) > maxInside {
		return fmt.Errorf("over %d folders", maxInside)
	}
	if err := t.folders(tmp, path.Dir(dir), made); err != nil {
		return err
	}
	made[dir] = true
	return t.o.Disk.Mkdir(filepath.Join(tmp, filepath.FromSlash(dir)))
}

// shared are the files of the version in force, by hash and size: they get a second name.
func (t *Tree) shared() map[string]string {
	out := map[string]string{}
	if in, err := t.get(t.st.Current); err == nil {
		for _, f := range in.Files {
			out[fmt.Sprint(f.SHA256, f.Size)] = t.path(in.Token, filepath.FromSlash(f.Path))
		}
	}
	return out
}

// bring puts one file into its place and fills in its SHA-256.
func (t *Tree) bring(to string, f *inside, have map[string]string) error {
	if !f.sure {
		sum, err := hashFile(f.from)
		if err != nil {
			return err
		}
		f.SHA256 = sum
	}
	if old := have[fmt.Sprint(f.SHA256, f.Size)]; old != "" {
		if sum, err := hashFile(old); err == nil && sum == f.SHA256 && t.o.Disk.Link(old, to) == nil {
			return nil
		}
	}
	in, err := os.Open(f.from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := t.o.Disk.Create(to, 0o644)
	if err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, h), io.LimitReader(in, f.Size+1))
	if err == nil {
		err = out.Sync()
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	if n != f.Size || hex.EncodeToString(h.Sum(nil)) != f.SHA256 {
		return fmt.Errorf("%s is not what the release says, %d bytes with SHA-256 %s", f.from, f.Size, f.SHA256)
	}
	return nil
}

// room checks that a version fits.
func (t *Tree) room(files []inside) error {
	have, need := t.shared(), int64(0)
	for i := range files {
		if have[fmt.Sprint(files[i].SHA256, files[i].Size)] == "" {
			need += files[i].Size
		}
	}
	free, inodes, block, err := disk.Free(t.o.Dir)
	if err != nil {
		return err
	}
	count := int64(2*len(files) + 8) // and folders
	if need += count*block + Reserve; need > free {
		return fmt.Errorf("%s wants %d KiB in %s and %d are free: %w", t.o.Component, need>>10, t.o.Dir, free>>10, syscall.ENOSPC)
	}
	if inodes >= 0 && inodes < count {
		return fmt.Errorf("%s: the disk of %s can take no more files: %w", t.o.Component, t.o.Dir, syscall.ENOSPC)
	}
	return nil
}

// names are the versions that are there, whole or not.
func (t *Tree) names() ([]string, error) {
	ents, err := os.ReadDir(t.o.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var out []string
	for _, e := range ents {
		if ValidToken(e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out, err
}

// Holds checks that what lies at a path is a file of a component: its bytes, or for one that
// is unpacked a folder.
func Holds(ctx context.Context, f *release.File, path string) error {
	fi, err := os.Lstat(path)
	switch {
	case path == "" || err != nil:
		return errors.Join(errors.New("was not brought"), err)
	case f.Unpack && fi.IsDir():
		return nil
	case f.Unpack || !fi.Mode().IsRegular() || fi.Size() != f.Size:
		return fmt.Errorf("%s is not the file of %d bytes that the release says", path, f.Size)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	if sum, err := hashFile(path); err != nil || sum != f.SHA256.String() {
		return errors.Join(fmt.Errorf("%s is not what the release says, SHA-256 %s", path, f.SHA256), err)
	}
	return nil
}

func hashFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// baseIn looks for a file in folders that are not of the tree.
func baseIn(ctx context.Context, dirs []string, sha release.Hash) (string, error) {
	found, looked := "", 0
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			if looked++; looked > release.MaxFiles || ctx.Err() != nil {
				return fs.SkipAll
			}
			if sum, err := hashFile(p); err == nil && sum == sha.String() {
				found = p
				return fs.SkipAll
			}
			return nil
		})
		if found != "" {
			return found, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("%w: no file with SHA-256 %s is in force", ota.ErrNoBase, sha)
}
