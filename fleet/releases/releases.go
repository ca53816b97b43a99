// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package releases

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"fulmar/fleet/registry/releaserows"
	"fulmar/ota/release"
	"fulmar/trust"
)

// Bounds of what is kept.
const (
	maxReleases = 500              // of all tenants: one a day for a year and a half
	maxEpoch    = 1 << 62          // it is kept as a signed number
	maxUploads  = 8                // objects that come at a time
	staleUpload = 7 * 24 * 60 * 60 // seconds: an object that nobody goes on with
	// DefaultBytes bounds the objects of all releases where the config does not.
	DefaultBytes = 20 << 30
)

// Errors that callers act upon, beside those of releaserows and ota/release.
var (
	// ErrUnknown: there is no such release or object.
	ErrUnknown = releaserows.ErrUnknown
	// ErrUntrusted: the manifest is not what release keys of the set in force signed.
	ErrUntrusted = errors.New("the release is not taken")
	// ErrTaken: the name is that of another content.
	ErrTaken = releaserows.ErrTaken
	// ErrEpoch: the epoch is below one that was known.
	ErrEpoch = releaserows.ErrEpoch
	// ErrMissing: objects are not here.
	ErrMissing = errors.New("objects are missing")
	// ErrInUse: a rollout wants it.
	ErrInUse = errors.New("in use")
	// ErrFull: a bound on what is kept is reached.
	ErrFull = errors.New("no room for it")
	// ErrWrong: what came is not the object.
	ErrWrong = errors.New("not what the manifest names")
	// ErrBusy: as many objects come as the server takes at a time.
	ErrBusy = errors.New("too many uploads at a time")
)

// OffsetError tells where an upload is to go on.
type OffsetError struct{ Have int64 }

// Offset gives it.
func (e *OffsetError) Offset() int64 { return e.Have }

func (e *OffsetError) Error() string { return fmt.Sprintf("%d bytes are here; go on there", e.Have) }

// Objects keeps whole objects by their trees.
type Objects interface {
	Has(tree release.Hash) bool
	// Put takes over a file that is the object, and holds it to all that the object says of
	// it before: an error that wraps ErrWrong otherwise.
	Put(ctx context.Context, o release.Object, path string) error
	Open(tree release.Hash) (*os.File, error)
	Remove(tree release.Hash) error
}

// Config joins the releases to the rest.
type Config struct {
	Rows    *releaserows.Table
	Objects Objects
	Dir     string        // of uploads that are under way
	Set     *trust.KeySet // in force
	// Uses gives the rollouts that are not over and want a release.
	Uses func(tenant, name string) []string
	// Running gives what boards run: how many run which version, by component.
	Running func(ctx context.Context, tenant string) (map[string]map[string]int, error)
	Maker   Maker // of patches; nil: none are made
	Bytes   int64 // of all objects at most; 0: DefaultBytes
	Log     *slog.Logger
}

// Releases is the releases of all tenants. Its methods may be called from any goroutine.
type Releases struct {
	cfg Config

	mu      sync.Mutex
	by      map[key]*entry
	known   map[release.Hash]release.Object // by tree
	coming  map[release.Hash]bool           // trees of which bytes come right now
	patches map[pair]*patch
	ready   map[offer]shown // what boards may have; nil: to be listed anew
	wake    chan struct{}
}

type key struct{ tenant, name string }

// entry is one release. What it points to does not change.
type entry struct {
	row      releaserows.Release
	manifest *release.Manifest
	signers  []string
	trusted  bool
	leaving  bool                // it is being removed
	inside   map[string][]string // SHA-256 of what packed files hold, by component
}

// New opens the releases.
func New(ctx context.Context, cfg Config) (*Releases, error) {
	if cfg.Bytes <= 0 {
		cfg.Bytes = DefaultBytes
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open releases: %w", err)
	}
	x := &Releases{cfg: cfg, by: map[key]*entry{}, known: map[release.Hash]release.Object{}, coming: map[release.Hash]bool{}, patches: map[pair]*patch{}, wake: make(chan struct{}, 1)}
	rows, err := cfg.Rows.All(ctx)
	if err != nil {
		return nil, fmt.Errorf("open releases: %w", err)
	}
	for _, r := range rows {
		e, err := open(cfg.Set, r)
		if err != nil {
			return nil, fmt.Errorf("open releases: %s: %w", r.Name, err)
		}
		x.keep(e)
	}
	patches, err := cfg.Rows.Patches(ctx)
	if err != nil {
		return nil, fmt.Errorf("open releases: %w", err)
	}
	for _, p := range patches {
		x.keepPatch(p)
	}
	x.sweep(time.Now())
	return x, nil
}

// open reads a release that was taken when it came. Keys may have been dropped since: then
// boards refuse it, and so do plans.
func open(set *trust.KeySet, r releaserows.Release) (*entry, error) {
	e := &entry{row: r}
	if o, err := release.Open(set, r.Envelope, 0); err == nil {
		e.manifest, e.signers, e.trusted = o.Manifest, o.Signers, true
	} else {
		env, err := trust.ParseEnvelope(r.Envelope)
		if err != nil {
			return nil, err
		}
		payload := env.Unverified()
		if sha256.Sum256(payload) != r.Hash {
			return nil, fmt.Errorf("the manifest that is kept is not the one that came: restore the registry from a backup")
		}
		if e.manifest, err = release.Parse(payload); err != nil {
			return nil, err
		}
	}
	if len(r.Inside) > 0 {
		if err := unmarshal(r.Inside, &e.inside); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// keep remembers a release; x.mu is held, or nobody else knows x.
func (x *Releases) keep(e *entry) {
	x.by[key{e.row.Tenant, e.row.Name}], x.ready = e, nil
	for o := range objects(e.manifest) {
		x.known[o.Tree] = o
	}
}

// objects gives each object that a manifest names, once.
func objects(m *release.Manifest) func(func(release.Object) bool) {
	return func(yield func(release.Object) bool) {
		seen := map[release.Hash]bool{}
		for i := range m.Components {
			for j := range m.Components[i].Files {
				f := &m.Components[i].Files[j]
				list := []release.Object{f.Object}
				for k := range f.Encodings {
					list = append(list, f.Encodings[k].Object)
				}
				for _, o := range list {
					if seen[o.Tree] {
						continue
					}
					seen[o.Tree] = true
					if !yield(o) {
						return
					}
				}
			}
		}
	}
}

// sweep removes uploads that nobody goes on with, and those of objects that are known no
// more. A fault leaves a file there, no more.
func (x *Releases) sweep(now time.Time) {
	list, err := os.ReadDir(x.cfg.Dir)
	if err != nil {
		x.cfg.Log.Warn("uploads not looked through", "error", err.Error())
		return
	}
	for _, d := range list {
		tree, err := release.ParseHash(d.Name())
		st, serr := d.Info()
		old := serr != nil || now.Sub(st.ModTime()) > staleUpload*time.Second
		if _, known := x.known[tree]; err != nil || old || !known {
			_ = os.Remove(filepath.Join(x.cfg.Dir, d.Name()))
		}
	}
}

// find gives a release.
func (x *Releases) find(tenant, name string) (*entry, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.by[key{tenant, name}]; e != nil && !e.leaving {
		return e, nil
	}
	return nil, fmt.Errorf("%w: %.64s", ErrUnknown, name)
}

// list gives a tenant's releases, newest first.
func (x *Releases) list(tenant string) (out []*entry) {
	x.mu.Lock()
	for k, e := range x.by {
		if k.tenant == tenant {
			out = append(out, e)
		}
	}
	x.mu.Unlock()
	slices.SortFunc(out, func(a, b *entry) int {
		if c := b.row.Created.Compare(a.row.Created); c != 0 {
			return c
		}
		return strings.Compare(a.row.Name, b.row.Name)
	})
	return out
}

// missing gives the objects of a release that are not here.
func (x *Releases) missing(e *entry) (out []release.Object) {
	for o := range objects(e.manifest) {
		if !x.cfg.Objects.Has(o.Tree) {
			out = append(out, o)
		}
	}
	return out
}

// shown is an object that boards may have, and of which components.
type shown struct {
	release.Object
	components []string
}

// Known gives the object of a tree that a tenant's boards may have, of a release that is
// complete or of a patch for one, and the components that have it. It answers from memory.
func (x *Releases) Known(tenant string, tree release.Hash) (release.Object, []string, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ready == nil {
		x.index()
	}
	s, ok := x.ready[offer{tenant, tree}]
	return s.Object, s.components, ok
}

type offer struct {
	tenant string
	tree   release.Hash
}

// index lists what boards may have; x.mu is held. It is thrown away by what changes it.
func (x *Releases) index() {
	x.ready = map[offer]shown{}
	files := map[release.Hash][][2]string{} // tenants and components, by SHA-256
	add := func(tenant, component string, o release.Object) {
		s := x.ready[offer{tenant, o.Tree}]
		s.Object = o
		if !slices.Contains(s.components, component) {
			s.components = append(s.components, component)
		}
		x.ready[offer{tenant, o.Tree}] = s
	}
	for k, e := range x.by {
		if e.row.Ready.IsZero() {
			continue
		}
		for i := range e.manifest.Components {
			c := &e.manifest.Components[i]
			for j := range c.Files {
				f := &c.Files[j]
				add(k.tenant, c.Name, f.Object)
				files[f.SHA256] = append(files[f.SHA256], [2]string{k.tenant, c.Name})
				for n := range f.Encodings {
					add(k.tenant, c.Name, f.Encodings[n].Object)
				}
			}
		}
	}
	for p, is := range x.patches {
		for _, to := range files[p.became] {
			if is.state == made {
				add(to[0], to[1], is.object())
			}
		}
	}
}

func (e *entry) has(sha release.Hash) bool {
	for i := range e.manifest.Components {
		for j := range e.manifest.Components[i].Files {
			if e.manifest.Components[i].Files[j].SHA256 == sha {
				return true
			}
		}
	}
	return false
}
