// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// cuts is how often an upgrade is cut short. FULMAR_CUTS asks for more.
const cuts = 20

// TestCut kills dpkg and all that it started at points spread over the time of an upgrade,
// as a power cut would that spares what was written. After each, and before anybody
// mends anything, a whole slot is what runs; then dpkg finishes what it began.
func TestCut(t *testing.T) {
	t.Parallel()
	old := newBoard(t, "bookworm")
	old.run("dpkg", "-i", deb("fulmar-agent", v1))
	old.write("etc/fulmar/fulmard.yaml", edited)
	n := cuts
	if s := os.Getenv("FULMAR_CUTS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil || n < 1 || n > 10000 {
			t.Fatalf("FULMAR_CUTS=%q, wants 1 to 10000", s)
		}
	}
	begin := time.Now()
	old.upgraded(context.Background(), t)
	whole := time.Since(begin)
	states := map[string]int{}
	for i := range n {
		b := old.again(t)
		ctx, cancel := context.WithTimeout(t.Context(), whole*time.Duration(i+1)/time.Duration(n+1))
		_, _ = b.Run(ctx, "dpkg", "-i", deb("fulmar-agent", v2))
		cancel()
		states[b.cut(t, i)]++
	}
	t.Logf("an upgrade takes %v; of %d that were cut short: %v", whole.Round(time.Millisecond), n, states)
	if len(states) < 3 {
		t.Errorf("all cuts fell into the same %d states of dpkg: %v", len(states), states)
	}
}

// TestCutFirst is the same for a first installation: what runs is nothing or whole.
func TestCutFirst(t *testing.T) {
	t.Parallel()
	empty := newBoard(t, "bookworm")
	begin := time.Now()
	empty.again(t).run("dpkg", "-i", deb("fulmar-agent", v2))
	whole := time.Since(begin)
	states := map[string]int{}
	for i := range cuts / 2 {
		b := empty.again(t)
		ctx, cancel := context.WithTimeout(t.Context(), whole*time.Duration(i+1)/time.Duration(cuts/2+1))
		_, _ = b.Run(ctx, "dpkg", "-i", deb("fulmar-agent", v2))
		cancel()
		states[b.state()]++
		if _, err := os.Stat(filepath.Join(b.Dir, "var/lib/fulmar/current")); err == nil {
			b.runs(v2)
		}
		b.heal()
		b.runs(v2)
		b.end()
	}
	t.Logf("an installation takes %v; of %d that were cut short: %v", whole.Round(time.Millisecond), cuts/2, states)
}

// cut looks at a board after a cut, mends it, and gives the state that dpkg was in.
func (b *board) cut(t *testing.T, i int) string {
	t.Helper()
	state := b.state()
	before := strings.TrimSpace(b.run("fulmard", "version"))
	runs := v1
	if strings.HasPrefix(before, "fulmard "+v2) {
		runs = v2
	}
	b.runs(runs)
	if got := b.read("etc/fulmar/fulmard.yaml"); got != edited {
		t.Errorf("cut %d (%s): the config is %q", i, state, got)
	}
	b.heal()
	b.runs(v2)
	if got := b.read("etc/fulmar/fulmard.yaml"); got != edited {
		t.Errorf("cut %d (%s): after mending the config is %q", i, state, got)
	}
	if out := b.run("dpkg", "--audit"); out != "" {
		t.Errorf("cut %d (%s): dpkg is not content: %s", i, state, out)
	}
	b.end()
	return state + ", ran " + runs
}

// state is what dpkg believes about the board's package.
func (b *board) state() string {
	out, _ := b.Run(b.t.Context(), "dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Version}", "fulmar-agent")
	if len(out) > 40 { // not known at all
		return "none"
	}
	return out
}

// heal does what a person or a script does after a power cut: dpkg finishes, and if
// that is not enough, the package is installed once more.
func (b *board) heal() {
	b.t.Helper()
	_, _ = b.Run(b.t.Context(), "dpkg", "--configure", "-a")
	if !strings.HasPrefix(b.state(), "ii  "+v2) {
		b.run("dpkg", "-i", deb("fulmar-agent", v2))
	}
}

// again is a board on a layer over this one.
func (b *board) again(t *testing.T) *board {
	t.Helper()
	r, err := b.Again(t.TempDir(), diskMiB)
	c := laid(t, r, err)
	c.bind(filepath.Join(made.dir, "debs"), filepath.Join(c.Dir, "debs"))
	return c
}

// end gives a board's memory back before the test ends.
func (b *board) end() {
	b.run("sh", "-c", "rm -rf /var/lib/fulmar /usr/lib/fulmar")
}

// upgraded upgrades a copy of the board.
func (b *board) upgraded(ctx context.Context, t *testing.T) {
	t.Helper()
	c := b.again(t)
	if _, err := c.Run(ctx, "dpkg", "-i", deb("fulmar-agent", v2)); err != nil {
		t.Fatal(err)
	}
	c.runs(v2)
	c.end()
}
