// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package starts counts the starts of a spool that did not end well, so that whatever
// the reason the board comes up and can say so.
package starts

import (
	"errors"
	"fmt"
	"os"

	"fulmar/internal/atomicfile"
)

// badStarts is how many starts in a row of one boot may end badly (no clean
// close, not ten minutes of running) before the next one leaves the disk alone:
// whatever the reason, the board must come up and say so. Starts of other boots
// do not count: where the power fails often, records must go to disk.
const badStarts = 3

// ErrLoop: the last starts all ended badly.
var ErrLoop = errors.New("the last starts ended badly, so the spool's files are left alone for now")

// Guard counts starts that did not end well, in a small file: the boot in hex, a
// space, their number.
type Guard struct {
	path   string
	boot   uint64
	noSync bool
	booked bool // this start is counted
	waited bool // the disk was left alone once in this process
	Bad    int  // starts before this one that ended badly; one of another boot counts as one
}

// Begin books a start before anything else is touched. After three bad ones it gives
// ErrLoop once; the next try, later in the same process, may go on.
func (g *Guard) Begin(path string, boot uint64, noSync bool) error {
	g.path, g.boot, g.noSync = path, boot, noSync
	if !g.booked {
		var err error
		if g.Bad, err = readStarts(path, boot); err != nil {
			return fmt.Errorf("count of starts: %w", err)
		}
		if err := g.write(g.Bad + 1); err != nil {
			return fmt.Errorf("count of starts: %w", err)
		}
		g.booked = true
	}
	if g.Bad >= badStarts && !g.waited {
		g.waited = true
		return fmt.Errorf("%d starts in a row: %w", g.Bad, ErrLoop)
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

// Forget takes this start out of the count.
func (g *Guard) Forget() error {
	if !g.booked {
		return nil
	}
	g.booked = false
	return g.write(g.Bad)
}

// End notes that all is well.
func (g *Guard) End() error {
	if g.path == "" {
		return nil
	}
	return g.write(0)
}

func (g *Guard) write(n int) error {
	b := fmt.Appendf(nil, "%x %d", g.boot, n)
	if g.noSync {
		return os.WriteFile(g.path, b, 0o600)
	}
	return atomicfile.WriteFile(g.path, b, 0o600)
}
