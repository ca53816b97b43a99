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

	"fulmar/internal/ustar"
	"fulmar/ota"
	"fulmar/ota/bundle"
	"fulmar/ota/prove"
	"fulmar/ota/release"
	"fulmar/schema/onboard"
	wire "fulmar/schema/ota"
	"fulmar/trust"
)

// Bounds of a bundle beside those of package bundle.
const (
	maxFiles = 4096
	maxTotal = onboard.MaxBundle
)

// Names of the entries, as package bundle writes them.
const (
	manifestName   = "release.json"
	directivesName = "directives.jsonl"
	keySetDir      = "keysets/"
	objectDir      = "objects/"
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
	envelope   []byte
	keySets    [][]byte
	set        *trust.KeySet
	board      prove.Board
	opened     *release.Opened
	directives map[string]*wire.Proven
	chosen     []*release.Component
	wanted     map[release.Hash]release.Object // by tree
	skipped    []string
}

// Take reads a bundle to its end and offers what it brings. Nothing is kept of one whose
// signatures do not hold.
func Take(ctx context.Context, cfg Config, r io.Reader) (onboard.Taken, error) {
	k := &taking{Config: cfg, directives: map[string]*wire.Proven{}, wanted: map[release.Hash]release.Object{}}
	t := ustar.NewReader(r, ustar.Limits{Files: maxFiles, Total: maxTotal, Name: func(s string) bool {
		return s == manifestName || s == directivesName || strings.HasPrefix(s, keySetDir) || strings.HasPrefix(s, objectDir)
	}})
	for i := 0; ; i++ {
		e, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && ctx.Err() != nil {
			err = ctx.Err()
		}
		if err == nil {
			err = k.entry(i, e, t)
		}
		if err != nil {
			return onboard.Taken{}, fmt.Errorf("bundle: %w", err)
		}
	}
	if k.opened == nil { // no objects: an undo, or nothing
		if err := k.prove(ctx); err != nil {
			return onboard.Taken{}, fmt.Errorf("bundle: %w", err)
		}
	}
	return k.offer()
}

func (k *taking) entry(i int, e ustar.Entry, r io.Reader) error {
	small := func(most int64) ([]byte, error) {
		if e.Size > most {
			return nil, fmt.Errorf("%s has %d bytes, at most %d", e.Name, e.Size, most)
		}
		return io.ReadAll(r)
	}
	switch {
	case (i == 0) != (e.Name == manifestName):
		return fmt.Errorf("%s as number %d: it begins with %s", e.Name, i+1, manifestName)
	case e.Name == manifestName:
		b, err := small(trust.MaxEnvelope)
		k.envelope = b
		return err
	case strings.HasPrefix(e.Name, keySetDir):
		if k.opened != nil || len(k.keySets) >= bundle.MaxKeySets {
			return fmt.Errorf("%s is one too many, or out of its place", e.Name)
		}
		b, err := small(trust.MaxEnvelope)
		k.keySets = append(k.keySets, b)
		return err
	}
	if k.opened == nil {
		if err := k.prove(context.Background()); err != nil {
			return err
		}
	}
	if e.Name == directivesName {
		if e.Size > bundle.MaxDirectives {
			return fmt.Errorf("%s has %d bytes, at most %d", e.Name, e.Size, bundle.MaxDirectives)
		}
		return bundle.Lines(r, func(d *bundle.Directed) bool {
			if d.Tenant == k.board.Tenant && d.Board == k.board.Name {
				k.directives[d.Component] = d.Proven()
			}
			return true
		})
	}
	tree, err := release.ParseHash(strings.TrimPrefix(e.Name, objectDir))
	if err != nil {
		return err
	}
	o, ok := k.wanted[tree]
	if !ok {
		return nil // of a component that this board does not take; the reader passes over it
	}
	if o.Size != e.Size {
		return fmt.Errorf("%s has %d bytes, the release says %d", e.Name, e.Size, o.Size)
	}
	if err := k.Shelf.put(o, r); err != nil {
		return fmt.Errorf("keep %s: %w", e.Name, err)
	}
	return nil
}

// prove follows the key sets, proves the manifest, and chooses the components.
func (k *taking) prove(ctx context.Context) (err error) {
	if k.envelope == nil {
		return errors.New("it is empty")
	}
	for _, s := range k.keySets {
		if _, err := k.Learn(s); err != nil && !errors.Is(err, trust.ErrRollback) {
			return fmt.Errorf("key set: %w", err)
		}
	}
	if k.set, err = k.Keys(); err != nil {
		return err
	}
	if k.board, err = k.Board(); err != nil {
		return err
	}
	if k.opened, err = release.Open(k.set, k.envelope, k.board.Floor); err != nil {
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
		k.wanted[f.Tree] = f.Object
		for _, e := range f.Encodings {
			if e.From != nil {
				if _, err := in.Base(ctx, *e.From); err != nil {
					continue
				}
			}
			k.wanted[e.Tree] = e.Object
		}
	}
}

// offer hands the orders over: what others need comes first, fulmard and the system, which
// start anew, as late as that allows.
func (k *taking) offer() (onboard.Taken, error) {
	out := onboard.Taken{Release: k.opened.Release, Skipped: k.skipped, Signers: k.opened.Signers}
	var errs []error
	for _, c := range ordered(k.chosen) {
		o, err := prove.Local(k.set, k.envelope, c.Name, k.directives[c.Name], k.board)
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
