// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"fulmar/internal/atomicfile"
	"fulmar/schema"
	"fulmar/storage/internal/disk"
	"fulmar/storage/internal/segment"
)

const (
	// badStarts is how many starts in a row of one boot may end badly (no clean
	// close, not ten minutes of running) before the next one leaves the disk alone:
	// whatever the reason, the board must come up and say so. Starts of other boots
	// do not count: where the power fails often, records must go to disk.
	badStarts = 3
	// probeTime bounds the look at one file: 16 MiB are read in a tenth of a second
	// from a good disk and in two seconds from a bad card.
	probeTime = 5 * time.Second
	// probeAll is when no further look begins: systemd gives a start 90 s.
	probeAll = 30 * time.Second
)

// errLoop: the last starts all ended badly.
var errLoop = errors.New("the last starts ended badly, so the spool's files are left alone for now")

// guard counts starts that did not end well, in a small file: the boot in hex, a
// space, their number.
type guard struct {
	path   string
	boot   uint64
	noSync bool
	booked bool // this start is counted
	waited bool // the disk was left alone once in this process
	bad    int  // starts before this one that ended badly; one of another boot counts as one
}

// begin books a start before anything else is touched. After three bad ones it gives
// errLoop once; the next try, later in the same process, may go on.
func (g *guard) begin(path string, boot uint64, noSync bool) error {
	g.path, g.boot, g.noSync = path, boot, noSync
	if !g.booked {
		var err error
		if g.bad, err = readStarts(path, boot); err != nil {
			return fmt.Errorf("count of starts: %w", err)
		}
		if err := g.write(g.bad + 1); err != nil {
			return fmt.Errorf("count of starts: %w", err)
		}
		g.booked = true
	}
	if g.bad >= badStarts && !g.waited {
		g.waited = true
		return fmt.Errorf("%d starts in a row: %w", g.bad, errLoop)
	}
	return nil
}

// readStarts reads the file; what is no count of ours counts as none.
func readStarts(path string, boot uint64) (bad int, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	var of uint64
	if _, err := fmt.Sscanf(string(b[:min(len(b), 32)]), "%x %d", &of, &bad); err != nil || bad < 0 {
		return 0, nil //nolint:nilerr // see above
	}
	if of != boot {
		bad = min(bad, 1)
	}
	return bad, nil
}

// forget takes this start out of the count.
func (g *guard) forget() error {
	if !g.booked {
		return nil
	}
	g.booked = false
	return g.write(g.bad)
}

// end notes that all is well.
func (g *guard) end() error {
	if g.path == "" {
		return nil
	}
	return g.write(0)
}

func (g *guard) write(n int) error {
	b := fmt.Appendf(nil, "%x %d", g.boot, n)
	if g.noSync {
		return os.WriteFile(g.path, b, 0o600)
	}
	return atomicfile.WriteFile(g.path, b, 0o600)
}

// probe lets another process look at files after a start that ended badly: at the
// newest of each class, which opening reads; after several such starts at all, for what
// ends the process may lie in a file that only the link reads. A file that kills the
// other process, or holds it for seconds, would do the same here: it goes to
// quarantine, and its numbers are told as lost.
func (s *Spool) probe() {
	if s.cfg.Probe == nil || s.guard.bad == 0 {
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
			} else if s.guard.bad > 1 {
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
