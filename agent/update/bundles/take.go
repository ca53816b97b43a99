// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"fulmar/ota"
	"fulmar/ota/bundle"
	"fulmar/ota/prove"
	"fulmar/ota/release"
	"fulmar/schema/onboard"
	wire "fulmar/schema/ota"
	"fulmar/trust"
)

// Config is what taking a bundle works with.
type Config struct {
	Shelf *Shelf
	// Keys is the key set in force; Learn takes the envelope of a newer one.
	Keys  func() (*trust.KeySet, error)
	Learn func(envelope []byte) (changed bool, err error)
	Board func() (prove.Board, error)
	// Installer is that of a component, nil where the board has none.
	Installer func(component string) ota.Installer
	Unmet     func(c *release.Component) []string
	Offer     func(o ota.Order) error
}

// taking is one bundle on its way.
type taking struct {
	Config
	stream     *bundle.Stream
	set        *trust.KeySet
	board      prove.Board
	opened     *release.Opened
	directives map[string]*wire.Proven
	chosen     []*release.Component
	wanted     map[release.Hash]bool // by tree
	kept       []release.Object      // that were not there before
	skipped    []string
}

// ErrBusy: a board takes one bundle at a time.
var ErrBusy = errors.New("another bundle is being taken in: try again when it is through")

// Take reads a bundle to its end and offers what it brings. Nothing is kept of one whose
// signatures do not hold, and nothing stays of one that turns out not to be whole.
func Take(ctx context.Context, cfg Config, r io.Reader) (onboard.Taken, error) {
	if !cfg.Shelf.using.TryLock() {
		return onboard.Taken{}, ErrBusy
	}
	defer cfg.Shelf.using.Unlock()
	k := &taking{Config: cfg, directives: map[string]*wire.Proven{}, wanted: map[release.Hash]bool{}}
	if err := k.read(ctx, &bounded{ctx, r, onboard.MaxBundle}); err != nil {
		return onboard.Taken{}, k.refuse(err)
	}
	out, err := k.offer()
	if err != nil {
		return out, k.refuse(err)
	}
	return out, nil
}

// refuse removes what a bundle brought that comes to nothing.
func (k *taking) refuse(err error) error {
	for _, o := range k.kept {
		err = errors.Join(err, k.Shelf.remove(o))
	}
	return fmt.Errorf("bundle: %w", err)
}

// bounded ends with its context, and with the most that a board takes: package bundle allows
// more, as for a stick that is read in place.
type bounded struct {
	ctx  context.Context
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if b.left <= 0 {
		return 0, fmt.Errorf("it has more than %d GiB", int64(onboard.MaxBundle)>>30)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// read proves a bundle and keeps what of its objects can be used here.
func (k *taking) read(ctx context.Context, r io.Reader) (err error) {
	if k.stream, err = bundle.Read(r); err != nil {
		return err
	}
	if err := k.prove(ctx); err != nil {
		return err
	}
	err = k.stream.Directives(func(d *bundle.Directed) bool {
		if d.Tenant == k.board.Tenant && d.Board == k.board.Name && k.opened.Component(d.Component) != nil && k.directives[d.Component] == nil {
			k.directives[d.Component] = d.Proven()
		}
		return true
	})
	if err != nil {
		return err
	}
	for {
		o, r, err := k.stream.Next(k.opened)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !k.wanted[o.Tree] {
			continue // of a component that this board does not take; the reader passes over it
		}
		fresh, err := k.Shelf.put(o, r)
		if fresh {
			k.kept = append(k.kept, o)
		}
		if err != nil {
			return fmt.Errorf("keep object %s: %w", o.Tree, err)
		}
	}
}

// prove follows the key sets from the one in force on, proves the manifest, and chooses the
// components. A board that has no key set takes none from a stick: the first one is taken as
// it is, so it has to come from the fleet.
func (k *taking) prove(ctx context.Context) (err error) {
	set, err := k.Keys()
	if err != nil {
		return err
	}
	if _, err := k.stream.Follow(set, k.learn); err != nil {
		return err
	}
	// Again: the fleet may have brought a newer one meanwhile.
	if k.set, err = k.Keys(); err != nil {
		return err
	}
	if k.board, err = k.Board(); err != nil {
		return err
	}
	if k.opened, err = release.Open(k.set, k.stream.Envelope(), k.board.Floor); err != nil {
		return err
	}
	for i := range k.opened.Components {
		c := &k.opened.Components[i]
		in := k.Installer(c.Name)
		if in == nil {
			k.skip(c, "this board cannot update it")
			continue
		}
		if lacks := k.Unmet(c); len(lacks) > 0 && !k.brings(c) {
			k.skip(c, strings.Join(lacks, "; "))
			continue
		}
		if v, err := in.Running(ctx); err == nil && v == c.Version && v != "" {
			k.skip(c, "version "+v+" runs already")
			continue
		}
		k.choose(ctx, c, in)
	}
	if len(k.chosen) == 0 {
		return fmt.Errorf("release %s brings nothing for this board: %s", k.opened.Release, strings.Join(k.skipped, "; "))
	}
	return nil
}

// learn takes a key set that the one in force leads to. One that the fleet was first with is
// no fault.
func (k *taking) learn(envelope []byte) error {
	if _, err := k.Learn(envelope); err != nil && !errors.Is(err, trust.ErrRollback) {
		return err
	}
	return nil
}

// brings tells whether what a component needs of others may come with the same bundle; the
// update itself asks again.
func (k *taking) brings(c *release.Component) bool {
	n := c.Needs
	n.Components = nil
	alone := *c
	alone.Needs = n
	return len(c.Needs.Components) > 0 && len(k.Unmet(&alone)) == 0
}

func (k *taking) skip(c *release.Component, why string) {
	k.skipped = append(k.skipped, c.Name+" "+c.Version+": "+why)
}

// choose takes a component, and what of its objects can be used here.
func (k *taking) choose(ctx context.Context, c *release.Component, in ota.Installer) {
	k.chosen = append(k.chosen, c)
	for i := range c.Files {
		f := &c.Files[i]
		k.wanted[f.Tree] = true
		for _, e := range f.Encodings {
			if e.From != nil {
				if _, err := in.Base(ctx, *e.From); err != nil {
					continue
				}
			}
			k.wanted[e.Tree] = true
		}
	}
}

// offer hands the orders over: what others need comes first, fulmard and the system, which
// start anew, as late as that allows.
func (k *taking) offer() (onboard.Taken, error) {
	out := onboard.Taken{Release: k.opened.Release, Skipped: k.skipped, Signers: k.opened.Signers}
	var errs []error
	for _, c := range ordered(k.chosen) {
		o, err := prove.Local(k.set, k.stream.Envelope(), c.Name, k.directives[c.Name], k.board)
		if err == nil {
			err = k.Offer(*o)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.Name, err))
			continue
		}
		out.Components = append(out.Components, c.Name)
	}
	if len(out.Components) == 0 {
		return out, errors.Join(errs...)
	}
	for _, err := range errs {
		out.Skipped = append(out.Skipped, err.Error())
	}
	return out, nil
}

func ordered(all []*release.Component) (out []*release.Component) {
	rank := func(c *release.Component) int {
		switch c.Name {
		case "agent":
			return 1
		case "rootfs":
			return 2
		}
		return 0
	}
	left := slices.Clone(all)
	slices.SortStableFunc(left, func(a, b *release.Component) int { return rank(a) - rank(b) })
	for len(left) > 0 {
		i := slices.IndexFunc(left, func(c *release.Component) bool {
			return !slices.ContainsFunc(left, func(o *release.Component) bool { return o != c && c.Needs.Components[o.Name] != "" })
		})
		i = max(i, 0) // a ring: as they stand
		out = append(out, left[i])
		left = slices.Delete(left, i, i+1)
	}
	return out
}
