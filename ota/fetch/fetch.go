// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"fulmar/internal/atomicfile"
	"fulmar/internal/bucket"
	"fulmar/internal/run"
	"fulmar/ota/release"
)

// LeavesSuffix ends the name of the file of an object's leaves.
const LeavesSuffix = ".leaves"

const (
	partSuffix = ".part"
	// defaultSpare is what is left free on the disk beside an object: the spool and the
	// journal of the board must go on.
	defaultSpare = 16 << 20
	// patience is how long nothing may come before the next source begins too.
	patience = 20 * time.Second
	// firstPause and lastPause are between rounds of sources that all ended.
	firstPause = time.Second
	lastPause  = 5 * time.Minute
	// refusals is after how many rounds, in which every source said that it has or gives
	// nothing, that is believed: a fleet that was just started may not know yet.
	refusals = 3
	burst    = 250 * time.Millisecond
)

var (
	// ErrNotHere: a source does not have the object.
	ErrNotHere = errors.New("the object is not there")
	// ErrRefused: a source does not give it to this board.
	ErrRefused = errors.New("the object is not given to this board")
	// ErrLied: a source gave what is not of the object.
	ErrLied = errors.New("what came is not of the object")
	// ErrHash: all pieces are proven by the tree, and the whole has another SHA-256: who made
	// the manifest named two objects as one.
	ErrHash = errors.New("the whole has another SHA-256 than the manifest says")
	// ErrTwice: the object is on its way already.
	ErrTwice = errors.New("the object is being fetched already")
)

// NoSpaceError tells that the disk cannot take an object.
type NoSpaceError struct {
	Dir        string
	Need, Free int64 // bytes, what is to be left free counted as needed
}

func (e *NoSpaceError) Error() string {
	return fmt.Sprintf("no-space: %d MB free in %s, wants %d", e.Free>>20, e.Dir, (e.Need+1<<20-1)>>20)
}

// Source brings pieces.
type Source interface {
	// Name is for logs.
	Name() string
	// Bring brings pieces until the job is done (nil), the context ends, or it cannot, and
	// then the error says why.
	Bring(ctx context.Context, j *Job) error
}

// Config shapes a fetcher.
type Config struct {
	Dir     string   // made if it is not there; nobody else writes there
	Sources []Source // in the order in which they are tried
	Spare   int64    // bytes to leave free on the disk; 0: 16 MiB
	Rate    int64    // bytes a second, over all sources; 0 no bound
	// Keep is how many bytes of dropped objects stay, for the other boards of the site, while
	// as much again is free; 0: none.
	Keep int64
	Log  *slog.Logger
}

// Stats are counters since the start.
type Stats struct {
	Pieces     uint64 // proven and written
	Duplicates uint64 // came although they were there
	Wrong      uint64 // came and were not of the object
}

// Fetcher brings objects. It is an ota.Fetcher.
type Fetcher struct {
	cfg  Config
	rate *bucket.Bucket

	mu     sync.Mutex
	active map[release.Hash]bool
	stats  Stats
}

// New makes one.
func New(cfg Config) (*Fetcher, error) {
	cfg.Spare = cmp.Or(cfg.Spare, defaultSpare)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("fetch objects: %w", err)
	}
	f := &Fetcher{cfg: cfg, rate: bucket.New(cfg.Rate, burst), active: map[release.Hash]bool{}}
	if err := f.trim(cfg.Keep); err != nil { // a board starts without
		cfg.Log.Warn("what was kept for other boards is not looked after", "err", err)
	}
	return f, nil
}

// SetRate bounds all sources from now on, in bytes a second; 0 lifts the bound.
func (f *Fetcher) SetRate(rate int64) { f.rate.SetRate(rate) }

// Stats tells the counters.
func (f *Fetcher) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats
}

func (f *Fetcher) path(tree release.Hash) string { return filepath.Join(f.cfg.Dir, tree.String()) }

// Fetch brings an object, and gives the file where it lies, whole and verified. It goes on
// where it stopped before, and tries until the context ends; it gives up before that on
// [NoSpaceError], on a disk that fails, on [ErrHash], and where every source says again and
// again that it does not give the object ([ErrRefused], [ErrNotHere], [ErrLied]).
func (f *Fetcher) Fetch(ctx context.Context, o release.Object, progress func(have, all int64)) (string, error) {
	if o.Size < 1 || o.Size > release.MaxSize {
		return "", fmt.Errorf("fetch an object of %d bytes, wants 1 to %d", o.Size, int64(release.MaxSize))
	}
	if !f.begin(o.Tree) {
		return "", fmt.Errorf("fetch object %s: %w", o.Tree, ErrTwice)
	}
	defer f.end(o.Tree)
	f.back(o.Tree)
	if whole(f.path(o.Tree), o) {
		if progress != nil {
			progress(o.Size, o.Size)
		}
		return f.path(o.Tree), nil
	}
	for again := false; ; again = true {
		err := f.fetch(ctx, o, progress)
		if errors.Is(err, errDamaged) && !again {
			// What lay here was changed under the pieces; once is bad luck.
			f.cfg.Log.Warn("object on its way was damaged on the disk, begun anew", "object", o.Tree)
			if err := f.remove(o.Tree); err != nil {
				return "", err
			}
			continue
		}
		if err != nil {
			return "", fmt.Errorf("fetch object %s: %w", o.Tree, err)
		}
		return f.path(o.Tree), nil
	}
}

func (f *Fetcher) begin(tree release.Hash) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.active[tree] {
		return false
	}
	f.active[tree] = true
	return true
}

func (f *Fetcher) end(tree release.Hash) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.active, tree)
}

// whole tells whether a file is the object.
func whole(path string, o release.Object) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close() //nolint:errcheck // only read
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(file, o.Size+1))
	return err == nil && n == o.Size && release.Hash(h.Sum(nil)) == o.SHA256
}

func (f *Fetcher) fetch(ctx context.Context, o release.Object, progress func(have, all int64)) error {
	j, err := f.open(ctx, o)
	if err != nil {
		return err
	}
	defer j.close()
	if progress != nil {
		progress(j.Have())
		j.progress = progress
	}
	if err := f.bring(ctx, j); err != nil {
		return errors.Join(err, j.sync())
	}
	if err := j.finish(); err != nil {
		if errors.Is(err, ErrHash) {
			err = errors.Join(err, f.remove(o.Tree))
		}
		return err
	}
	if err := os.Rename(f.path(o.Tree)+partSuffix, f.path(o.Tree)); err != nil {
		return err
	}
	return atomicfile.SyncDir(f.cfg.Dir)
}

// Drop removes what there is of an object, or keeps it for others: see [Config].
func (f *Fetcher) Drop(o release.Object) error {
	if !f.begin(o.Tree) {
		return fmt.Errorf("drop object %s: %w", o.Tree, ErrTwice)
	}
	defer f.end(o.Tree)
	if err := f.keep(o.Tree); err != nil { // nobody here needs it
		f.cfg.Log.Warn("object not kept for other boards", "object", o.Tree, "err", err)
	}
	return f.remove(o.Tree)
}

func (f *Fetcher) remove(tree release.Hash) error {
	for _, suffix := range []string{"", partSuffix, LeavesSuffix, LeavesSuffix + partSuffix} {
		if err := os.Remove(f.path(tree) + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("drop object %s: %w", tree, err)
		}
	}
	return atomicfile.SyncDir(f.cfg.Dir)
}

// bring has the sources bring the job, round after round.
func (f *Fetcher) bring(ctx context.Context, j *Job) error {
	pause, refused := firstPause, 0
	for {
		before, _ := j.Have()
		errs := f.round(ctx, j)
		if j.done() {
			return nil
		}
		if err := cmp.Or(j.failed(), ctx.Err()); err != nil {
			return err
		}
		if have, _ := j.Have(); have > before {
			pause, refused = firstPause, 0
		}
		if refused++; !final(errs) {
			refused = 0
		}
		if refused >= refusals || len(f.cfg.Sources) == 0 {
			return errors.Join(append(errs, ErrNotHere)...)
		}
		wait := pause/2 + rand.N(pause)
		f.cfg.Log.Warn("no source brings the object, tried again", "object", j.Tree, "in", wait.Round(time.Millisecond), "err", errors.Join(errs...))
		pause = min(2*pause, lastPause)
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return errors.Join(append(errs, ctx.Err())...)
		case <-t.C:
		}
	}
}

// final tells whether each source said that it does not give the object.
func final(errs []error) bool {
	for _, err := range errs {
		if !errors.Is(err, ErrNotHere) && !errors.Is(err, ErrRefused) && !errors.Is(err, ErrLied) {
			return false
		}
	}
	return true
}

// round lets each source try once: in their order, the next when those before it have
// ended or nothing came for a while. It ends with the job or the last source.
func (f *Fetcher) round(ctx context.Context, j *Job) (errs []error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g := run.New(ctx)
	ended := make(chan error, len(f.cfg.Sources))
	started, running := 0, 0
	next := func() {
		if started == len(f.cfg.Sources) {
			return
		}
		s := f.cfg.Sources[started]
		started++
		running++
		g.Go(s.Name(), func(ctx context.Context) error {
			err := errors.New("ended before the object was whole")
			defer func() { ended <- err }() // also where it panics
			if e := s.Bring(ctx, j); e != nil {
				err = fmt.Errorf("%s: %w", s.Name(), e)
			}
			return nil
		})
	}
	look := time.NewTicker(patience / 4)
	defer look.Stop()
	for next(); running > 0; {
		select {
		case <-j.over:
			cancel()
			_ = g.Wait(stopGrace) // a source that does not end writes nothing any more
			return errs
		case err := <-ended:
			if running--; !j.done() {
				errs = append(errs, err)
				next()
			}
		case <-look.C:
			if time.Since(j.last()) > patience {
				next()
			}
		}
	}
	return errs
}

// stopGrace bounds the wait for sources when the job is over.
const stopGrace = 5 * time.Second
