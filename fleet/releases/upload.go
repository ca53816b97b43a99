// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package releases

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/registry/releaserows"
	"fulmar/ota/release"
	"fulmar/schema/ota"
	"fulmar/schema/rest"
	"fulmar/trust"
)

// Begin takes a signed manifest and tells which objects are to be brought. The same one
// again is the same release.
func (x *Releases) Begin(ctx context.Context, by access.Caller, envelope []byte) (*rest.Release, error) {
	if err := by.May(rest.ReleasesWrite); err != nil {
		return nil, err
	}
	if len(envelope) > ota.MaxEnvelope {
		return nil, fmt.Errorf("%w: the signed manifest has %d bytes, and at most %d fit an assignment: put small files into one that is unpacked, or drop encodings", ErrUntrusted, len(envelope), ota.MaxEnvelope)
	}
	o, err := release.Open(x.cfg.Set, envelope, 0)
	if errors.Is(err, trust.ErrSignatures) {
		err = fmt.Errorf("%w; fulmar-fleet keys show lists the release keys that are taken, keys add-release adds one", err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	if o.Epoch > maxEpoch {
		return nil, fmt.Errorf("%w: epoch %d is over %d", ErrUntrusted, o.Epoch, uint64(maxEpoch))
	}
	e := &entry{manifest: o.Manifest, signers: o.Signers, trusted: true, row: releaserows.Release{
		Tenant: by.Tenant, Name: o.Release, Epoch: o.Epoch, Hash: o.Hash, Envelope: envelope, Actor: by.Who, Created: time.Now().UTC().Truncate(time.Millisecond),
	}}
	if old, err := x.find(by.Tenant, o.Release); err == nil {
		if old.row.Hash != e.row.Hash {
			return nil, fmt.Errorf("%w: release %s is here with manifest %x; another content wants another name", ErrTaken, o.Release, old.row.Hash)
		}
		return x.view(ctx, old, true)
	}
	if err := x.add(ctx, e); err != nil {
		return nil, err
	}
	return x.view(ctx, e, true)
}

// add keeps a new release.
func (x *Releases) add(ctx context.Context, e *entry) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.room(e); err != nil {
		return err
	}
	if err := x.cfg.Rows.Add(ctx, e.row); err != nil {
		return err
	}
	x.keep(e)
	return nil
}

// room refuses what is over a bound, and two objects under one tree; x.mu is held.
func (x *Releases) room(e *entry) error {
	if len(x.by) >= maxReleases {
		return fmt.Errorf("%w: %d releases are here, at most %d: remove old ones", ErrFull, len(x.by), maxReleases)
	}
	if x.by[key{e.row.Tenant, e.row.Name}] != nil {
		return fmt.Errorf("%w: release %s is being removed", ErrInUse, e.row.Name)
	}
	var sum int64
	for _, o := range x.known {
		sum += o.Size
	}
	had := sum
	for o := range objects(e.manifest) {
		k, known := x.known[o.Tree]
		if known && k != o {
			return fmt.Errorf("%w: object %s is known with %d bytes and SHA-256 %s", ErrUntrusted, o.Tree, k.Size, k.SHA256)
		}
		if !known {
			sum += o.Size
		}
	}
	if sum > x.cfg.Bytes {
		return fmt.Errorf("%w: its objects have %d MiB more than what is here, %d MiB of %d MiB: remove old releases, or raise keep.releases_mib", ErrFull, (sum-had)>>20, had>>20, x.cfg.Bytes>>20)
	}
	return nil
}

// Object tells how much of an object is here.
func (x *Releases) Object(by access.Caller, tree string) (rest.ReleaseObject, error) {
	o, err := x.object(by.Tenant, tree)
	if err != nil {
		return rest.ReleaseObject{}, err
	}
	return x.have(o), nil
}

// object finds an object of a release of the tenant.
func (x *Releases) object(tenant, tree string) (release.Object, error) {
	h, err := release.ParseHash(tree)
	if err != nil {
		return release.Object{}, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	for _, e := range x.list(tenant) {
		for o := range objects(e.manifest) {
			if o.Tree == h {
				return o, nil
			}
		}
	}
	return release.Object{}, fmt.Errorf("%w: no release has object %s", ErrUnknown, tree)
}

func (x *Releases) have(o release.Object) rest.ReleaseObject {
	out := rest.ReleaseObject{Tree: o.Tree.String(), SHA256: o.SHA256.String(), Size: o.Size}
	if x.cfg.Objects.Has(o.Tree) {
		out.Have, out.Done = o.Size, true
	} else if st, err := os.Stat(x.incoming(o)); err == nil {
		out.Have = min(st.Size(), o.Size)
	}
	return out
}

func (x *Releases) incoming(o release.Object) string {
	return filepath.Join(x.cfg.Dir, o.Tree.String())
}

// Put takes the bytes of an object from offset on; what came before r ended or failed is
// kept. [OffsetError] where it goes on somewhere else.
func (x *Releases) Put(ctx context.Context, by access.Caller, tree string, offset int64, r io.Reader) (rest.ReleaseObject, error) {
	none := rest.ReleaseObject{}
	if err := by.May(rest.ReleasesWrite); err != nil {
		return none, err
	}
	o, err := x.object(by.Tenant, tree)
	if err != nil {
		return none, err
	}
	x.mu.Lock()
	if x.coming[o.Tree] || len(x.coming) >= maxUploads {
		x.mu.Unlock()
		return none, fmt.Errorf("%w: object %s", ErrBusy, tree)
	}
	x.coming[o.Tree] = true
	x.mu.Unlock()
	defer func() {
		x.mu.Lock()
		delete(x.coming, o.Tree)
		x.mu.Unlock()
	}()
	has := x.have(o)
	if has.Done {
		return has, nil
	}
	if offset != has.Have {
		return has, &OffsetError{has.Have}
	}
	path := x.incoming(o)
	if err := appendTo(path, offset, o.Size, r); err != nil {
		return x.have(o), fmt.Errorf("object %s: %w", tree, err)
	}
	if has = x.have(o); has.Have < o.Size {
		return has, nil
	}
	if err := x.cfg.Objects.Put(ctx, o, path); err != nil {
		if errors.Is(err, ErrWrong) {
			_ = os.Remove(path) // it is of no use; Put may have taken it away
		}
		return x.have(o), fmt.Errorf("object %s: %w", tree, err)
	}
	return x.have(o), nil
}

// appendTo writes what r gives behind offset, durably, and not beyond size.
func appendTo(path string, offset, size int64, r io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Seek(offset, io.SeekStart)
	if err == nil {
		_, err = io.Copy(f, io.LimitReader(r, size-offset))
	}
	if err == nil {
		var more [1]byte
		if n, _ := r.Read(more[:]); n > 0 {
			err = fmt.Errorf("%w: it is longer than %d bytes", ErrWrong, size)
		}
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// Complete makes a release one that rollouts take. [ErrMissing] where objects are not here.
func (x *Releases) Complete(ctx context.Context, by access.Caller, name string) (*rest.Release, error) {
	if err := by.May(rest.ReleasesWrite); err != nil {
		return nil, err
	}
	e, err := x.find(by.Tenant, name)
	if err != nil {
		return nil, err
	}
	if !e.row.Ready.IsZero() {
		return x.view(ctx, e, true)
	}
	if m := x.missing(e); len(m) > 0 {
		return nil, fmt.Errorf("%w: %d of release %s, the first is %s of %d bytes", ErrMissing, len(m), name, m[0].Tree, m[0].Size)
	}
	inside, err := x.unpacked(ctx, e.manifest)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(inside)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	if err := x.cfg.Rows.Ready(ctx, by.Tenant, name, by.Who, b, now); err != nil {
		return nil, err
	}
	done := *e
	done.row.Ready, done.row.Inside, done.inside = now, b, inside
	x.mu.Lock()
	x.keep(&done)
	x.mu.Unlock()
	x.Wake()
	return x.view(ctx, &done, true)
}

// Remove forgets a release and the objects that no other one has. [ErrInUse] while a
// rollout wants it.
func (x *Releases) Remove(ctx context.Context, by access.Caller, name string) error {
	if err := by.May(rest.ReleasesWrite); err != nil {
		return err
	}
	e, err := x.find(by.Tenant, name)
	if err != nil {
		return err
	}
	// From here on no rollout begins with it; so none begins after Uses has looked.
	x.leave(e, true)
	if uses := x.cfg.Uses(by.Tenant, name); len(uses) > 0 {
		x.leave(e, false)
		return fmt.Errorf("%w: release %s is rolled out by %v; abort those first", ErrInUse, name, uses)
	}
	if err := x.cfg.Rows.Remove(ctx, by.Tenant, name, by.Who); err != nil {
		x.leave(e, false)
		return err
	}
	x.mu.Lock()
	delete(x.by, key{by.Tenant, name})
	x.ready = nil
	gone := x.unnamed()
	x.mu.Unlock()
	return x.drop(ctx, gone)
}

func (x *Releases) leave(e *entry, leaving bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := *x.by[key{e.row.Tenant, e.row.Name}]
	now.leaving = leaving
	x.by[key{e.row.Tenant, e.row.Name}] = &now
}

// unnamed forgets the objects that no release names, and gives their trees; x.mu is held.
func (x *Releases) unnamed() (out []release.Hash) {
	named := map[release.Hash]bool{}
	for _, e := range x.by {
		for o := range objects(e.manifest) {
			named[o.Tree] = true
		}
	}
	for tree := range x.known {
		if !named[tree] {
			out = append(out, tree)
			delete(x.known, tree)
		}
	}
	return out
}

// drop removes objects, and the patches that lead to files that are known no more.
func (x *Releases) drop(ctx context.Context, trees []release.Hash) error {
	var rows []releaserows.Patch
	x.mu.Lock()
	for k, p := range x.patches {
		if p.state != making && !slices.ContainsFunc(x.entries(), func(e *entry) bool { return e.has(k.became) }) {
			delete(x.patches, k)
			x.ready = nil
			rows = append(rows, p.row)
			if p.row.Size > 0 {
				trees = append(trees, p.row.Tree)
			}
		}
	}
	x.mu.Unlock()
	var errs []error
	if len(rows) > 0 {
		errs = append(errs, x.cfg.Rows.DropPatches(ctx, rows))
	}
	for _, tree := range trees {
		if x.cfg.Objects.Has(tree) {
			errs = append(errs, x.cfg.Objects.Remove(tree))
		}
		_ = os.Remove(filepath.Join(x.cfg.Dir, tree.String())) // half of it, if anything
	}
	return errors.Join(errs...)
}

// entries lists all releases; x.mu is held.
func (x *Releases) entries() (out []*entry) {
	for _, e := range x.by {
		out = append(out, e)
	}
	return out
}
