// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/ota"
	"fulmar/ota/release"
	words "fulmar/schema/ota"
)

// memory is a folder in memory, where there is one.
func memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "fulmar-ota-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// order makes the release of a fate.
func (b *board) order(attempt uint64) ota.Order {
	seed, size := 16*b.fate.seed, b.fate.size
	f := release.File{Path: "program", Object: b.net.object(blob(seed, size))}
	base := b.slots.files["program"]
	if b.fate.delta == 2 {
		base = []byte("what another board runs")
	}
	if sum := release.Hash(sha256.Sum256(base)); b.fate.delta != 0 {
		f.Encodings = append(f.Encodings, release.Encoding{Codec: "delta", From: &sum, Object: b.net.object(packed(sum, seed, size))})
	}
	f.Encodings = append(f.Encodings, release.Encoding{Codec: "zstd", Object: b.net.object(packed(release.Hash{}, seed, size))})
	lib := release.File{Path: "lib.so.1", Object: b.net.object(b.slots.files["lib.so.1"])} // as it was
	small := release.File{Path: "notes", Object: b.net.object(blob(seed+2, 3000))}
	m := &release.Manifest{V: 1, Release: newVersion, Epoch: b.fate.epoch, Components: []release.Component{{Name: b.fate.component, Version: newVersion, Files: []release.File{f, lib, small}}}}
	raw, err := json.Marshal(m)
	if err != nil {
		b.t.Fatal(err)
	}
	return ota.Order{
		Rollout: "r-1", Component: b.fate.component, Release: newVersion, Attempt: attempt, Act: b.fate.act, Manifest: m, Raw: raw,
		Hash: sha256.Sum256(raw), Before: oldVersion, Deadline: deadline,
	}
}

func newBoard(t *testing.T, dir string, f fate, log *slog.Logger) *board {
	b := &board{
		t: t, rng: rand.New(rand.NewPCG(f.seed, 3)), dir: dir, born: time.Now(), upAt: time.Now(), boot: 1, fate: f, floor: 3, log: log,
		net: new(network),
	}
	b.net.open(b)
	b.slots = &slots{
		kind: f.kind, staged: map[string]string{}, chosen: oldVersion, live: oldVersion, dir: filepath.Join(dir, "old"),
		files: map[string][]byte{"program": []byte("the program of version 1.0"), "lib.so.1": []byte("a library")},
	}
	for _, d := range []string{"old", "objects"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range b.slots.files {
		if err := os.WriteFile(filepath.Join(dir, "old", name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// life drives a board until the update is over, and the undo if there is one. It gives how
// long the board was on until the update's last word.
func (b *board) life() (took time.Duration, endings []words.State) {
	ctx := context.Background()
	order := b.order(3<<24 | 1)
	undo := ota.Order{Rollout: "r-1", Component: order.Component, Release: newVersion, Attempt: 3<<24 | 2, Act: release.ActUndo, Before: oldVersion, Deadline: deadline}
	p := b.start(ctx)
	kills, crash, offered, aborted := b.fate.kills, time.Duration(0), -time.Hour, false
	sent := func(o ota.Order) {
		if err := p.u.Offer(o); err != nil {
			b.log.Info("offer", "err", err)
		}
	}
	again := func(power bool, off time.Duration) {
		p.kill()
		synctest.Wait()
		if power {
			b.net.lose()
		}
		time.Sleep(off)
		if power {
			b.off += off
			b.boot++
			b.upAt = time.Now()
			b.slots.begin(true)
		}
		p = b.start(ctx)
		crash, offered = 0, -time.Hour
	}
	want, undoing := order, false
	began := time.Duration(0) // when it was taken
	for {
		if b.last(order.Attempt).State == "" {
			began = time.Since(b.born)
		}
		select {
		case r := <-p.u.Restarting():
			time.Sleep(2 * time.Second)
			again(r == ota.RestartMachine, 40*time.Second)
			continue
		case <-time.After(10 * time.Second):
		}
		at := time.Since(b.born)
		if b.fate.release == crashes && b.slots.runs() == newVersion && b.fate.kind != ota.RestartNone {
			if crash += 10 * time.Second; crash >= 20*time.Second {
				again(b.fate.kind == ota.RestartMachine, 2*time.Second)
				continue
			}
		}
		if len(kills) > 0 && at >= kills[0].at {
			k := kills[0]
			kills = kills[1:]
			again(k.power, max(k.off, 2*time.Second))
			continue
		}
		if b.fate.abortAt > 0 && at >= b.fate.abortAt && !aborted {
			aborted = true
			_ = p.u.Abort(ctx, "") // there may be nothing any more
		}
		last := b.last(want.Attempt)
		if over(last) && !undoing {
			took, endings = at-b.off-began, append(endings, last)
		}
		switch {
		case over(last) && undoing:
			endings = append(endings, last)
			fallthrough
		case over(last) && b.fate.undoAt == 0:
			time.Sleep(time.Minute)
			p.kill()
			synctest.Wait()
			return took, endings
		case !undoing && b.fate.undoAt > 0 && (at >= b.fate.undoAt && b.reachable() || over(last)):
			want, undoing, offered = undo, true, -time.Hour
			if !over(last) {
				endings = append(endings, words.State{}) // its word comes, or is replaced
			}
		case at > 4*never:
			b.t.Fatalf("seed %d: not over after %s: %+v", b.fate.seed, at, last)
		}
		if last.State == "" && at > 3*deadline && !undoing && !b.reachable() {
			p.kill()
			synctest.Wait()
			return 0, []words.State{{State: words.Idle}} // it was never told
		}
		if at >= offered+10*time.Minute && b.reachable() {
			offered = at
			sent(want)
		}
	}
}

// tally is the table of a run.
type tally struct {
	mu      sync.Mutex
	n       map[string]int
	endings map[string]map[string]int
	wrong   []string
	sent    uint64 // pieces
	lost    int    // of them, by chance
	took    []time.Duration
}

func (a *tally) add(c class, ending string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.n[c.name]++
	if a.endings[c.name] == nil {
		a.endings[c.name] = map[string]int{}
	}
	a.endings[c.name][ending]++
}

func (a *tally) fail(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wrong = append(a.wrong, fmt.Sprintf(format, args...))
}

func ending(s words.State) string {
	word, _, _ := strings.Cut(s.Reason, ":")
	if s.State == words.Committed || s.State == words.Idle {
		return s.State
	}
	return s.State + " " + word
}

// one plays one update and judges it.
func one(t *testing.T, seed uint64, dir string, log *slog.Logger, sum *tally) {
	f := fateOf(seed)
	c := classOf(&f)
	b := newBoard(t, dir, f, log)
	took, endings := b.life()
	b.net.close()
	first := endings[0]
	if first.State == "" { // taken back midway
		if first = b.last(3<<24 | 1); first.State == "" {
			first.State = words.Idle // the newer order came before it was taken
		}
	}
	end := ending(first)
	sum.add(c, end)
	if !over(first) && first.State != words.Idle || !slices.Contains(c.outcome, end) {
		sum.fail("seed %d (%s) ends as %q, wants one of %q: %s", seed, c.name, end, c.outcome, first.Reason)
	}
	if word, _, _ := strings.Cut(first.Reason, ":"); over(first) && first.State != words.Committed && !slices.Contains(words.Reasons(), word) {
		sum.fail("seed %d: no reason: %q", seed, first.Reason)
	}
	// Time counts as the board was on; each kill gives back a tick at most, and what is in force
	// is led to its end by deadlines of its own.
	if bound := deadline + 2*time.Hour + time.Duration(len(f.kills))*20*time.Minute; took > bound {
		sum.fail("seed %d (%s): took %s, at most %s", seed, c.name, took, bound)
	}
	runs := oldVersion
	if first.State == words.Committed && f.act == release.ActInstall {
		runs = newVersion
	}
	if (first.State == words.Committed && f.act == release.ActInstall) != (b.floor == f.epoch) && f.epoch != 3 || b.floor != 3 && b.floor != f.epoch {
		sum.fail("seed %d: %s, and the floor is %d", seed, end, b.floor)
	}
	if len(endings) > 1 {
		last, want := endings[1], words.RolledBack
		if runs == newVersion && f.epoch > 3 {
			want = "failed refused" // what ran before is below the floor now
		} else {
			runs = oldVersion
		}
		if got := ending(last); !strings.HasPrefix(got, want) {
			sum.fail("seed %d: taken back, and it ends as %q: %s", seed, got, last.Reason)
		}
	} else if f.act == release.ActShadow && (b.slots.shadow == newVersion) != (first.State == words.Committed) {
		sum.fail("seed %d: %s, and %q runs beside", seed, end, b.slots.shadow)
	}
	if b.slots.live != runs || b.slots.chosen != runs || b.slots.trial {
		sum.fail("seed %d: %s, and %s runs (chosen %s, trial %v)", seed, end, b.slots.live, b.slots.chosen, b.slots.trial)
	}
	for _, d := range []string{"ota/files", "ota/manifests", "objects"} {
		if ents, _ := os.ReadDir(filepath.Join(dir, d)); len(ents) > 0 {
			sum.fail("seed %d: %s: %s/%s is left", seed, end, d, ents[0].Name())
		}
	}
	if b.warns != nil {
		sum.fail("seed %d: %v", seed, b.warns)
	}
	sum.mu.Lock()
	sum.took = append(sum.took, took)
	sum.sent += b.net.fleet.Stats().Sent
	sum.lost += b.net.lost
	sum.mu.Unlock()
}

// TestUpdates plays updates in simulated time and holds each to what its fate allows.
func TestUpdates(t *testing.T) {
	t.Parallel()
	n := 1000
	if os.Getenv("FULMAR_SOAK") != "" {
		n = 10_000
	}
	log := slog.New(slog.DiscardHandler)
	first := uint64(1)
	if s := os.Getenv("FULMAR_OTA_SEED"); s != "" {
		first, _ = strconv.ParseUint(s, 10, 64)
		n, log = 1, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	sum := &tally{n: map[string]int{}, endings: map[string]map[string]int{}}
	t.Run("worlds", func(t *testing.T) {
		shards := uint64(runtime.GOMAXPROCS(0))
		for shard := range shards {
			t.Run(strconv.FormatUint(shard, 10), func(t *testing.T) {
				t.Parallel()
				dir := memory(t)
				for seed := first + shard; seed < first+uint64(n); seed += shards {
					at := filepath.Join(dir, strconv.FormatUint(seed, 10))
					synctest.Test(t, func(t *testing.T) { one(t, seed, at, log, sum) })
					if err := os.RemoveAll(at); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	})
	sum.print(t, n)
	if n > 1 && sum.lost*20 < int(sum.sent) {
		t.Error("hardly a piece was lost: it proves little")
	}
	if len(sum.wrong) > 0 {
		t.Errorf("%d points:\n%s", len(sum.wrong), strings.Join(sum.wrong[:min(20, len(sum.wrong))], "\n"))
	}
}

func (a *tally) print(t *testing.T, n int) {
	var out strings.Builder
	total := 0
	for _, c := range slices.Sorted(maps.Keys(a.n)) {
		fmt.Fprintf(&out, "%6d  %s\n", a.n[c], c)
		total += a.n[c]
		for _, e := range slices.SortedFunc(maps.Keys(a.endings[c]), func(x, y string) int { return a.endings[c][y] - a.endings[c][x] }) {
			fmt.Fprintf(&out, "          %6d  %s\n", a.endings[c][e], e)
		}
	}
	fmt.Fprintf(&out, "%d pieces were sent, %d of them lost by chance\n", a.sent, a.lost)
	slices.Sort(a.took)
	if len(a.took) > 0 {
		fmt.Fprintf(&out, "on until the last word: median %s, 99 %% %s, longest %s\n", a.took[len(a.took)/2], a.took[len(a.took)*99/100], a.took[len(a.took)-1])
	}
	if len(a.wrong) == 0 && total == n {
		fmt.Fprintf(&out, "%d of %d as their fate allows: at least %.2f %% do, at 95 %% confidence", n, n, 100*math.Pow(0.05, 1/float64(n)))
	}
	t.Logf("\n%s", out.String())
	if total != n {
		t.Errorf("%d updates have an end, of %d", total, n)
	}
}
