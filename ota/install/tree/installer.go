// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"fulmar/internal/disk"
	"fulmar/ota"
	"fulmar/ota/release"
)

// Running implements [ota.Installer].
func (t *Tree) Running(context.Context) (string, error) {
	_, version := t.InForce()
	return version, nil
}

// Stage implements [ota.Installer]. The token is the name of the folder.
func (t *Tree) Stage(ctx context.Context, c *release.Component, paths map[string]string) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	token, err := t.stage(ctx, c, paths)
	if err != nil {
		return "", fmt.Errorf("stage %s: %w", t.o.Component, err)
	}
	return token, nil
}

func (t *Tree) stage(ctx context.Context, c *release.Component, paths map[string]string) (string, error) {
	if c.Name != t.o.Component {
		return "", fmt.Errorf("it is %s", c.Name)
	}
	token := Token(c)
	if !ValidToken(token) {
		return "", fmt.Errorf("version %.80q makes no name of a folder", c.Version)
	}
	if err := errors.Join(t.make(), t.o.Disk.RemoveAll(t.path(newDir))); err != nil {
		return "", err
	}
	if t.verify(ctx, token) != nil {
		if token == t.st.Current {
			// Readers are in it: it is not taken away under them.
			return "", fmt.Errorf("%s is in force and damaged; it has to be gone back from first", token)
		}
		files, err := list(c, paths)
		if err == nil {
			err = t.room(files)
		}
		if err == nil {
			err = t.write(ctx, token, files)
		}
		if err != nil {
			return "", errors.Join(err, t.o.Disk.RemoveAll(t.path(newDir)))
		}
	}
	if err := t.check(token); err != nil {
		return "", err
	}
	if t.st.Fell == token && t.st.Current != token { // it is a new try
		next := t.st
		next.Fell, next.Why = "", ""
		return token, t.set(next)
	}
	return token, nil
}

func (t *Tree) check(token string) error {
	if t.o.Check == nil {
		return nil
	}
	return t.o.Check(t.path(token))
}

// Base implements [ota.Installer].
func (t *Tree) Base(ctx context.Context, sha release.Hash) (string, error) {
	t.mu.Lock()
	in, err := t.get(t.st.Current)
	t.mu.Unlock()
	if err == nil {
		for _, f := range in.Files {
			if f.SHA256 == sha.String() {
				return t.path(in.Token, filepath.FromSlash(f.Path)), nil
			}
		}
	}
	var dirs []string
	if t.o.Bases != nil {
		dirs = t.o.Bases()
	}
	return baseIn(ctx, dirs, sha)
}

// Switch implements [ota.Installer]. What was checked when it was staged is checked again:
// what it has to fit to may have changed since.
func (t *Tree) Switch(ctx context.Context, token string) (ota.Restart, error) {
	t.mu.Lock()
	from := t.st.Current
	err := t.switchTo(ctx, token)
	t.mu.Unlock()
	if err != nil {
		return ota.RestartNone, fmt.Errorf("switch %s: %w", t.o.Component, err)
	}
	return t.changed(from, token), nil
}

func (t *Tree) switchTo(ctx context.Context, token string) error {
	if token != "" && token == t.st.Current {
		return t.set(t.st) // the link, where a cut came before it
	}
	if err := t.verify(ctx, token); err != nil {
		return err
	}
	if err := t.check(token); err != nil {
		return err
	}
	next := state{V: 1, Current: token, Trial: true, Previous: t.st.Current, PreviousMark: t.st.Mark}
	if t.st.Trial { // it is nothing to go back to
		next.Previous, next.PreviousMark = t.st.Previous, t.st.PreviousMark
	}
	if next.Previous == token {
		next.Trial, next.Previous, next.PreviousMark = false, "", "" // it was confirmed once
	}
	if t.o.Mark != nil {
		next.Mark = t.o.Mark()
	}
	if len(next.Mark) > maxMark {
		return fmt.Errorf("a mark of %d bytes, at most %d", len(next.Mark), maxMark)
	}
	return t.set(next)
}

// changed tells who reads, and what has to start again.
func (t *Tree) changed(from, to string) ota.Restart {
	if from != to && t.o.Changed != nil {
		t.o.Changed()
	}
	if from != to && t.o.Restart != nil && t.o.Restart(t.dirOf(from), t.dirOf(to)) {
		return ota.RestartProgram
	}
	return ota.RestartNone
}

// Look implements [ota.Installer].
func (t *Tree) Look(_ context.Context, token string) (ota.Standing, string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case token == "":
	case token == t.st.Current && t.st.Trial:
		return ota.OnTrial, fmt.Sprintf("start %d of %d", t.st.Tries, MaxTries), nil
	case token == t.st.Current:
		return ota.InForce, "", nil
	case token == t.st.Fell:
		return ota.Fallen, t.st.Why, nil
	}
	return ota.NotYet, "", nil
}

// Confirm implements [ota.Installer].
func (t *Tree) Confirm(_ context.Context, token string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if token == "" || token != t.st.Current {
		return fmt.Errorf("confirm %s %.140q: in force is %s", t.o.Component, token, orNone(t.st.Current))
	}
	next := t.st
	next.Trial, next.Tries = false, 0
	return t.set(next)
}

// Back implements [ota.Installer].
func (t *Tree) Back(_ context.Context, token, why string) (ota.Restart, error) {
	t.mu.Lock()
	if token == "" || token != t.st.Current {
		err := t.set(t.st)
		t.mu.Unlock()
		return ota.RestartNone, err
	}
	next := t.fallen(t.st, why)
	err := t.set(next)
	t.mu.Unlock()
	if err != nil {
		return ota.RestartNone, err
	}
	return t.changed(token, next.Current), nil
}

// Sweep implements [ota.Installer].
func (t *Tree) Sweep(_ context.Context, keep []string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.note != "" {
		return nil // the choice is not sure: nothing is thrown away on a guess
	}
	names, err := t.names()
	if err != nil {
		return fmt.Errorf("sweep %s: %w", t.o.Component, err)
	}
	errs := []error{}
	for _, n := range append(names, newDir) {
		if n != t.st.Current && n != t.st.Previous && !slices.Contains(keep, n) {
			errs = append(errs, t.o.Disk.RemoveAll(t.path(n)))
		}
	}
	return errors.Join(errs...)
}

// Space implements [ota.Installer].
func (t *Tree) Space(_ context.Context, c *release.Component) (need, free int64, err error) {
	t.mu.Lock()
	have := t.shared()
	t.mu.Unlock()
	dir := t.o.Dir
	free, _, block, err := disk.Free(dir)
	if err != nil { // not made yet
		if free, _, block, err = disk.Free(filepath.Dir(dir)); err != nil {
			return 0, 0, err
		}
	}
	need = Reserve + int64(2*len(c.Files)+8)*block
	for i := range c.Files {
		f := &c.Files[i]
		switch {
		case f.Unpack:
			need += f.Unpacked
		case have[fmt.Sprint(f.SHA256.String(), f.Size)] == "":
			need += f.Size
		}
	}
	return need, free, nil
}
