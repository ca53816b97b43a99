// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"fulmar/fleet/registry"
	"fulmar/internal/atomicfile"
)

// Bounds of what is read.
const (
	maxHead  = 16 << 10
	maxSums  = 256 << 20 // 2 million pictures
	maxFiles = 2_000_000
	maxName  = 512
	// restoredConfig is the config file in a restored folder: where it was is not known
	// here, and its addresses may be wrong on this machine.
	restoredConfig = "config.restored.yaml"
)

// ReadHead reads what a backup says of itself, and leaves the reader at its body. What
// it says is proven only by the key, when the backup is sealed.
func ReadHead(r *bufio.Reader) (*Head, error) {
	h, _, err := readHead(r)
	return h, err
}

func readHead(r *bufio.Reader) (*Head, []byte, error) {
	first := make([]byte, len(magic))
	if _, err := io.ReadFull(r, first); err != nil || string(first) != magic {
		return nil, nil, fmt.Errorf("%w: it does not begin as one", ErrDamaged)
	}
	var line []byte
	for len(line) == 0 || line[len(line)-1] != '\n' {
		b, err := r.ReadByte()
		if err != nil || len(line) >= maxHead {
			return nil, nil, fmt.Errorf("%w: its head does not end", ErrDamaged)
		}
		line = append(line, b)
	}
	h := new(Head)
	if err := json.Unmarshal(line, h); err != nil {
		return nil, nil, fmt.Errorf("%w: its head is not JSON", ErrDamaged)
	}
	if h.V != 1 {
		return nil, nil, fmt.Errorf("%w: it is of form %d, this program reads 1", ErrDamaged, h.V)
	}
	return h, append(first, line...), nil
}

// Restored is what became of a backup.
type Restored struct {
	Head
	Boards int    // enrolled, and not revoked
	Config string // path of the config file; "" if there is none
}

// Restore makes a data folder of a backup. The folder must not be there, or be empty;
// it appears whole or not at all. private is the PEM of the private recovery key, for a
// sealed backup.
//
// Join tokens, sessions and what waited for a person are ended: what was used up after
// the backup must not be good again.
func Restore(ctx context.Context, r io.Reader, dir string, private []byte) (*Restored, error) {
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("restore into %s: it is not empty; a restore never touches what is there: %w", dir, err)
	}
	in := bufio.NewReaderSize(r, 1<<20)
	h, raw, err := readHead(in)
	if err != nil {
		return nil, err
	}
	body := io.Reader(in)
	if h.SealedTo != "" {
		if private == nil {
			return nil, fmt.Errorf("%w: it is sealed to recovery key %s; give the private half with --recovery-key", ErrKey, h.SealedTo)
		}
		k, err := parsePrivate(private)
		if err != nil {
			return nil, err
		}
		if id := keyID(k.PublicKey()); id != h.SealedTo {
			return nil, fmt.Errorf("%w: it is sealed to recovery key %s, this one is %s", ErrKey, h.SealedTo, id)
		}
		if body, err = newOpener(in, k, raw); err != nil {
			return nil, err
		}
	}
	tmp := dir + ".restoring"
	if err := errors.Join(os.RemoveAll(tmp), os.MkdirAll(tmp, 0o700)); err != nil { // what a killed one left
		return nil, fmt.Errorf("restore into %s: %w", dir, err)
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // gone after the rename
	if err := unpack(ctx, body, tmp); err != nil {
		return nil, fmt.Errorf("restore into %s: %w", dir, err)
	}
	res := &Restored{Head: *h}
	if res.Boards, err = settle(ctx, tmp, h); err != nil {
		return nil, fmt.Errorf("restore into %s: %w", dir, err)
	}
	if _, err := os.Stat(filepath.Join(tmp, restoredConfig)); err == nil {
		res.Config = filepath.Join(dir, restoredConfig)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return nil, fmt.Errorf("restore into %s: %w", dir, err)
	}
	return res, atomicfile.SyncDir(filepath.Dir(dir))
}

// settle ends what must not be good again, and counts the boards.
func settle(ctx context.Context, dir string, h *Head) (int, error) {
	reg, err := registry.Open(dir)
	if err != nil {
		return 0, err
	}
	err = reg.Restored(ctx, time.UnixMilli(h.Made))
	n, kerr := reg.Known(ctx)
	return n, errors.Join(err, kerr, reg.Close())
}

// unpack writes the files and holds each to its sum.
func unpack(ctx context.Context, r io.Reader, dir string) error {
	t := tar.NewReader(r)
	got := map[string]string{}
	for {
		h, err := t.Next()
		if err != nil { // also its end: the sums come last
			return damaged(err, "it ends before its sums")
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if h.Name == sumsName {
			if err := compare(t, got); err != nil {
				return err
			}
			break
		}
		if len(got) >= maxFiles {
			return fmt.Errorf("%w: over %d files", ErrDamaged, maxFiles)
		}
		path, err := place(dir, h)
		if err != nil {
			return err
		}
		if _, twice := got[h.Name]; twice {
			return fmt.Errorf("%w: %q is there twice", ErrDamaged, h.Name)
		}
		if got[h.Name], err = writeFile(path, t, h); err != nil {
			return damaged(err, "a file cannot be read")
		}
	}
	// To the end: only there a sealed one proves that it is whole.
	if _, err := t.Next(); !errors.Is(err, io.EOF) {
		return damaged(err, "more after its sums")
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	return nil
}

func damaged(err error, what string) error {
	if errors.Is(err, ErrDamaged) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOSPC) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", ErrDamaged, what, err)
}

// place gives where an entry goes: names from outside never lead out of the folder.
func place(dir string, h *tar.Header) (string, error) {
	if h.Typeflag != tar.TypeReg || len(h.Name) > maxName || h.Size < 0 {
		return "", fmt.Errorf("%w: entry %.80q is no plain file", ErrDamaged, h.Name)
	}
	if h.Name == config {
		return filepath.Join(dir, restoredConfig), nil
	}
	rel, ok := strings.CutPrefix(h.Name, dataName)
	if !ok || !filepath.IsLocal(filepath.FromSlash(rel)) || strings.Contains(rel, "\\") {
		return "", fmt.Errorf("%w: entry %.80q has no place in a data folder", ErrDamaged, h.Name)
	}
	return filepath.Join(dir, filepath.FromSlash(rel)), nil
}

func writeFile(path string, r io.Reader, h *tar.Header) (sum string, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	s := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, s), r)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	// Pictures age by it.
	return hex.EncodeToString(s.Sum(nil)), os.Chtimes(path, time.Time{}, h.ModTime)
}

// compare holds what was read to the sums at the end.
func compare(r io.Reader, got map[string]string) error {
	b, err := io.ReadAll(io.LimitReader(r, maxSums+1))
	if err != nil {
		return damaged(err, "its sums cannot be read")
	}
	want := map[string]string{}
	if len(b) > maxSums || json.NewDecoder(bytes.NewReader(b)).Decode(&want) != nil {
		return fmt.Errorf("%w: its sums cannot be read", ErrDamaged)
	}
	for name, sum := range want {
		if got[name] != sum {
			return fmt.Errorf("%w: %s is not what was backed up", ErrDamaged, name)
		}
	}
	if len(want) != len(got) {
		return fmt.Errorf("%w: it holds %d files, its sums %d", ErrDamaged, len(got), len(want))
	}
	return nil
}
