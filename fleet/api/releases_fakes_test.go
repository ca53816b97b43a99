// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"io"

	"fulmar/fleet/access"
	"fulmar/fleet/web"
	"fulmar/schema/rest"
)

// stock knows release 1.9.0 alone.
type stock struct{ *town }

func (s stock) List(context.Context, access.Caller) ([]rest.Release, error) {
	return []rest.Release{{Release: "1.9.0", State: rest.ReleaseReady, Signers: []string{}}}, s.broken
}

func (s stock) Get(_ context.Context, _ access.Caller, name string) (*rest.Release, error) {
	if name != "1.9.0" {
		return nil, web.ErrNotFound
	}
	return &rest.Release{Release: name, State: rest.ReleaseReady, Signers: []string{}}, s.broken
}

func (s stock) Begin(context.Context, access.Caller, []byte) (*rest.Release, error) {
	return &rest.Release{Release: "2.0.0", State: rest.ReleaseIncomplete, Signers: []string{}}, s.broken
}

func (s stock) Check(access.Caller, []byte) (string, error) { return "It would come.", s.broken }

func (s stock) Object(_ access.Caller, tree string) (rest.ReleaseObject, error) {
	return rest.ReleaseObject{Tree: tree, Size: 9}, s.broken
}

func (s stock) Put(_ context.Context, _ access.Caller, tree string, _ int64, r io.Reader) (rest.ReleaseObject, error) {
	n, err := io.Copy(io.Discard, r)
	if err == nil {
		err = s.broken
	}
	return rest.ReleaseObject{Tree: tree, Size: 9, Have: n}, err
}

func (s stock) Complete(ctx context.Context, by access.Caller, name string) (*rest.Release, error) {
	return s.Get(ctx, by, name)
}

func (s stock) Remove(_ context.Context, _ access.Caller, name string) error {
	if name != "1.9.0" {
		return web.ErrNotFound
	}
	return s.broken
}
