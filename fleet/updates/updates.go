// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package updates

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"fulmar/fleet/ca"
	"fulmar/fleet/director"
	"fulmar/fleet/gateway"
	"fulmar/fleet/keyring"
	"fulmar/fleet/objects"
	"fulmar/fleet/proof"
	"fulmar/fleet/registry"
	"fulmar/fleet/registry/releaserows"
	"fulmar/fleet/releases"
	"fulmar/fleet/rollout/runner"
	"fulmar/fleet/web"
	"fulmar/internal/run"
	"fulmar/ota/release"
	"fulmar/schema/ota"
	"fulmar/trust"
)

const (
	// objectsDir holds whole objects below the data folder, incomingDir those that come.
	objectsDir  = "objects"
	incomingDir = "incoming"
	grace       = time.Second
)

// Config joins the updates to the rest.
type Config struct {
	Data     string // folder of the server
	Bytes    int64  // of all objects at most; 0: the default
	Rates    Rates
	Registry *registry.Registry
	Keys     *keyring.Keyring
	Proofs   *proof.Checker
	Look     func(ctx context.Context, tenant string) (*web.Overview, error)
	Rollouts func() *runner.Rollouts // made later
	Gate     func() *gateway.Gateway // made later
	Maker    releases.Maker          // of patches; nil: none are made
	Log      *slog.Logger
}

// Rates bounds what boards download of updates, in bytes a second; 0 is no bound.
type Rates struct {
	Board int64 `yaml:"board_bytes_per_s"`
	Site  int64 `yaml:"site_bytes_per_s"`
	Fleet int64 `yaml:"fleet_bytes_per_s"`
}

// Updates is all that gives boards their updates.
type Updates struct {
	cfg      Config
	Releases *releases.Releases
	Store    *objects.Store
	director *director.Director
	caster   *objects.Caster
	tasks    *run.Group // questions and answers under way

	mu     sync.Mutex
	runs   map[place]string              // release that a component of a board has committed last
	parts  map[[2]string]map[string]bool // components that a board was ever told of
	sites  map[[2]string]string          // of boards, as they were last looked at
	claims map[[2]string][]runner.Claim  // words of a board that wait for a proof
}

// Authority knows boards by their certificates, Admitter those that are let in.
type (
	Authority interface {
		Verify(cert *x509.Certificate) (ca.Identity, error)
	}
	Admitter interface {
		Admit(ctx context.Context, id ca.Identity) (bool, error)
	}
)

// Handler gives boards objects over HTTP, by their certificates.
func (u *Updates) Handler(a Authority, door Admitter) http.Handler {
	return u.caster.Handler(func(r *http.Request) (tenant, board string, err error) {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
			return "", "", errors.New("no certificate")
		}
		id, err := a.Verify(r.TLS.PeerCertificates[0])
		if err != nil {
			return "", "", err
		}
		in, err := door.Admit(r.Context(), id)
		if err == nil && !in {
			err = errors.New("the board is not let in")
		}
		return id.Tenant, id.Board, err
	})
}

// Stats are counters of what boards were given, since the start.
func (u *Updates) Stats() objects.Stats { return u.caster.Stats() }

type place struct{ tenant, board, component string }

// New opens the updates of a data folder. Serve has to be called before boards are let in.
func New(ctx context.Context, cfg Config) (_ *Updates, err error) {
	u := &Updates{cfg: cfg, tasks: run.New(context.Background()), runs: map[place]string{}, sites: map[[2]string]string{}, parts: map[[2]string]map[string]bool{}, claims: map[[2]string][]runner.Claim{}}
	if cfg.Bytes <= 0 {
		cfg.Bytes = releases.DefaultBytes
	}
	if u.Store, err = objects.Open(filepath.Join(cfg.Data, objectsDir), 0); err != nil { // the releases have the quota
		return nil, err
	}
	rows := cfg.Registry.Releases()
	u.Releases, err = releases.New(ctx, releases.Config{
		Rows: rows, Objects: shelf{u.Store}, Dir: filepath.Join(cfg.Data, incomingDir), Set: cfg.Keys.Set(), Bytes: cfg.Bytes, Maker: cfg.Maker, Log: cfg.Log,
		Uses:    func(tenant, name string) []string { return cfg.Rollouts().Uses(tenant, name) },
		Running: u.running,
	})
	if err != nil {
		return nil, err
	}
	version, _ := cfg.Keys.KeySet()
	u.director, err = director.New(ctx, director.Config{
		Directives: cfg.Keys.SignDirectives, Fresh: cfg.Keys.SignFresh, Rows: rows, KeySet: version, Want: u.want, Log: cfg.Log,
		Send:   func(tenant, board string, b []byte) error { return cfg.Gate().Assign(tenant, board, b) },
		Answer: func(tenant, board string, d *ota.Down) error { return cfg.Gate().TellOTA(tenant, board, d) },
	})
	if err != nil {
		return nil, err
	}
	told, err := rows.Attempts(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range told {
		if a.Runs != "" {
			u.runs[place{a.Tenant, a.Board, a.Component}] = a.Runs
		}
		if a.Attempt > 0 {
			u.told(a.Tenant, a.Board, a.Component)
		}
	}
	for _, role := range []trust.Role{trust.RoleDirector, trust.RoleFreshness} {
		if err := cfg.Keys.Ready(role); err != nil {
			cfg.Log.Warn("no board takes an update from this server: fulmar-fleet keys complete, or keys rotate-"+string(role), "err", err)
		}
	}
	cfg.Proofs.Tell(u.attested)
	return u, nil
}

// Serve begins to give objects through the gateway, which is there by now.
func (u *Updates) Serve() {
	u.caster = objects.NewCaster(objects.Config{
		Store: u.Store, Gate: u.cfg.Gate().Pieces(), Tell: u.cfg.Gate().TellOTA, Entitled: u.entitled, Site: u.site, Rates: objects.Rates{Board: u.cfg.Rates.Board, Site: u.cfg.Rates.Site, Fleet: u.cfg.Rates.Fleet}, Log: u.cfg.Log,
	})
}

// Run signs, gives and makes patches until the context ends.
func (u *Updates) Run(ctx context.Context) error {
	g := run.New(ctx)
	g.Go("director", u.director.Run)
	g.Go("objects", u.caster.Run)
	g.Go("patches", u.Releases.Run)
	return g.Wait(grace)
}

// Close closes what is open.
func (u *Updates) Close() {
	u.tasks.Stop()
	if err := u.tasks.Wait(grace); err != nil {
		u.cfg.Log.Warn("updates", "error", err.Error())
	}
	u.Store.Close()
}

// site names the site of a board, as it was last looked at.
func (u *Updates) site(tenant, board string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.sites[[2]string{tenant, board}]
}

// told notes that a board is told of a component: it may have its objects.
func (u *Updates) told(tenant, board, component string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	k := [2]string{tenant, board}
	if u.parts[k] == nil {
		u.parts[k] = map[string]bool{}
	}
	u.parts[k][component] = true
}

// entitled tells whether a board was told of a component that has an object.
func (u *Updates) entitled(tenant, board string, tree release.Hash) (int64, bool) {
	o, components, ok := u.Releases.Known(tenant, tree)
	if !ok {
		return 0, false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, c := range components {
		if u.parts[[2]string{tenant, board}][c] {
			return o.Size, true
		}
	}
	return 0, false
}

// want tells the director what a board is to be told of a release.
func (u *Updates) want(tenant, component, name, before string) (release.Hash, []release.Patch, error) {
	w, err := u.Releases.Want(tenant, component, name)
	if err != nil {
		return release.Hash{}, nil, err
	}
	return w.Hash, w.Patches(u.Releases, before), nil
}

// Assign implements [runner.Courier].
func (u *Updates) Assign(tenant, board string, a ota.Assignment) error {
	u.told(tenant, board, a.Component)
	return u.director.Assign(tenant, board, a)
}

// Want implements gateway/pieces.Objects.
func (u *Updates) Want(tenant, board string, w *ota.Want) {
	if len(w.Nonce) > 0 {
		u.director.Nonce(tenant, board, w.Nonce)
	}
	if u.caster != nil {
		u.caster.Want(tenant, board, w)
	}
}

// Hears implements gateway/pieces.Objects.
func (u *Updates) Hears(tenant, board, tree string) bool {
	return u.caster != nil && u.caster.Hears(tenant, board, tree)
}

// Room implements gateway/pieces.Objects.
func (u *Updates) Room(tenant, board string) {
	if u.caster != nil {
		u.caster.Room(tenant, board)
	}
}

// Committed implements [runner.Releases].
func (u *Updates) Committed(ctx context.Context, tenant, component, name string, boards []string) error {
	w, err := u.Releases.Want(tenant, component, name)
	if errors.Is(err, releases.ErrUnknown) || errors.Is(err, releases.ErrUntrusted) {
		return nil // a rollout of before there were releases
	}
	if err != nil {
		return err
	}
	var list []releaserows.Floor
	for _, b := range boards {
		list = append(list, releaserows.Floor{Tenant: tenant, Board: b, Epoch: w.Epoch})
	}
	if err := u.cfg.Registry.Releases().Committed(ctx, list, component, name); err != nil {
		return err
	}
	for _, b := range boards {
		u.director.Floor(tenant, b, w.Epoch)
		u.mu.Lock()
		u.runs[place{tenant, b, component}] = name
		u.mu.Unlock()
	}
	return nil
}

// Planned implements [runner.Releases].
func (u *Updates) Planned() { u.Releases.Wake() }

// shelf is a store of objects as releases want it.
type shelf struct{ *objects.Store }

// Put implements [releases.Objects].
func (s shelf) Put(_ context.Context, o release.Object, path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = s.Store.Put(f, o)
	switch err = errors.Join(err, f.Close()); {
	case errors.Is(err, objects.ErrOther):
		return fmt.Errorf("%w: %w", releases.ErrWrong, err)
	case err != nil:
		return err
	}
	return os.Remove(path)
}

// Open implements [releases.Objects].
func (s shelf) Open(tree release.Hash) (*os.File, error) { return s.Store.File(tree) }
