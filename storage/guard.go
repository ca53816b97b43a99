// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"path/filepath"
	"time"

	"fulmar/schema"
	"fulmar/storage/internal/disk"
	"fulmar/storage/internal/segment"
)

const (
	// probeTime bounds the look at one file: 16 MiB are read in a tenth of a second
	// from a good disk and in two seconds from a bad card.
	probeTime = 5 * time.Second
	// probeAll is when no further look begins: systemd gives a start 90 s.
	probeAll = 30 * time.Second
)

// probe lets another process look at files after a start that ended badly: at the
// newest of each class, which opening reads; after several such starts at all, for what
// ends the process may lie in a file that only the link reads. A file that kills the
// other process, or holds it for seconds, would do the same here: it goes to
// quarantine, and its numbers are told as lost.
func (s *Spool) probe() {
	if s.cfg.Probe == nil || s.guard.Bad == 0 {
		return
	}
	type look struct {
		class schema.Class
		path  string
	}
	var newest, others []look
	for _, class := range schema.Classes() {
		files, _, err := segment.List(filepath.Join(s.cfg.Dir, class.String()))
		if err != nil || len(files) == 0 {
			continue // loading will say so
		}
		for i, f := range files {
			if i == len(files)-1 {
				newest = append(newest, look{class, f.Path})
			} else if s.guard.Bad > 1 {
				others = append(others, look{class, f.Path})
			}
		}
	}
	todo := append(newest, others...)
	for end := time.Now().Add(probeAll); len(todo) > 0; todo = todo[1:] {
		if time.Now().After(end) {
			s.shared.Log.Warn("spool segments were not all looked at, it takes too long", "left", len(todo))
			return
		}
		s.probeFile(todo[0].class, todo[0].path)
	}
}

func (s *Spool) probeFile(class schema.Class, path string) {
	ctx, cancel := context.WithTimeout(context.Background(), probeTime)
	err := s.cfg.Probe(ctx, path)
	cancel()
	if err == nil {
		return
	}
	s.shared.Log.Error("spool segment goes to quarantine: the process that looked at it did not survive", "path", path, "err", err)
	if err := disk.Quarantine(path, filepath.Join(s.cfg.Dir, "quarantine"), class.String()+"-"+filepath.Base(path)); err != nil {
		s.shared.Log.Error("spool segment could not be moved away", "path", path, "err", err)
	}
}

// ProbeFile goes through a whole segment as the spool would, with or without the key:
// what can end a process is in the pages, which are not encrypted. It is what the other
// process does for [Config].Probe; only whether it survives counts, damage is no error.
func ProbeFile(path string) {
	db, err := segment.Open(path, segment.Options{Unkeyed: true})
	if err != nil {
		return
	}
	defer db.Close()
	_, _ = db.Last()
	_ = db.Walk(0, func(segment.Record, bool) bool { return true })
}
