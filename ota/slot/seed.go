// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const releaseFile = "release"

// Seed brings what a package installed under dir into a slot and switches to it, if it
// is to run: in place of a slot that came from a package always (also an older version:
// a person installed it), in place of one that came over the air only if it is newer in
// Debian's order. did says in a line what was done.
//
// dir holds the programs and a file called release with one line, the version.
func (s *Store) Seed(dir string) (did string, err error) {
	if err := s.Own(); err != nil {
		return "", err
	}
	version, files, err := readSeed(dir)
	if err != nil {
		return "", err
	}
	st, _, err := s.State()
	if err != nil {
		return "", err
	}
	if cur, err := s.Get(st.Current); err == nil && cur.Origin == FromOTA && s.Verify(cur.ID) == nil && CompareVersions(version, cur.Version) <= 0 {
		return fmt.Sprintf("slot %s came over the air and is not older than %s: it stays", cur.ID, version), nil
	}
	sl, err := s.Write(version, FromDeb, files)
	if err != nil {
		return "", err
	}
	next, err := s.Switch(sl.ID)
	switch {
	case err != nil:
		return "", err
	case st.Current == sl.ID:
		return fmt.Sprintf("slot %s is the current one already", sl.ID), nil
	case next.Previous == "":
		return fmt.Sprintf("slot %s is the first one", sl.ID), nil
	}
	return fmt.Sprintf("slot %s is the current one, on trial; it goes back to %s if it fails", sl.ID, next.Previous), nil
}

func readSeed(dir string) (version string, files map[string]string, err error) {
	b, err := readAtMost(filepath.Join(dir, releaseFile), maxName+1)
	if err != nil {
		return "", nil, fmt.Errorf("seed: %w", err)
	}
	ents, err := os.ReadDir(dir)
	if err != nil {
		return "", nil, fmt.Errorf("seed: %w", err)
	}
	files = map[string]string{}
	for _, e := range ents {
		if e.Name() != releaseFile {
			files[e.Name()] = filepath.Join(dir, e.Name())
		}
	}
	if _, ok := files[Agent]; !ok {
		return "", nil, fmt.Errorf("seed: %s has no %s", dir, Agent)
	}
	return strings.TrimSpace(string(b)), files, nil
}
