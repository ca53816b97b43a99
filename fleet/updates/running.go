// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package updates

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"fulmar/fleet/releases"
	"fulmar/fleet/rollout/plan"
	"fulmar/fleet/web"
	"fulmar/schema/rest"
)

// Runs gives what a board runs, by component: what it says, else what it has committed last.
func (u *Updates) Runs(tenant string, b *web.Board) map[string]string {
	out := map[string]string{}
	if b.Release != "" {
		out["agent"] = b.Release
	}
	for i := range b.Cameras {
		if name, version, ok := strings.Cut(b.Cameras[i].Model, "@"); ok {
			out["model/"+name] = version
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for component := range u.parts[[2]string{tenant, b.Name}] {
		if is := u.runs[place{tenant, b.Name, component}]; is != "" && out[component] == "" {
			out[component] = is
		}
	}
	return out
}

// running counts what boards run, by component.
func (u *Updates) running(ctx context.Context, tenant string) (map[string]map[string]int, error) {
	ov, err := u.cfg.Look(ctx, tenant)
	if err != nil {
		return nil, err
	}
	u.mu.Lock()
	for i := range ov.Boards {
		u.sites[[2]string{tenant, ov.Boards[i].Name}] = ov.Boards[i].Meta.Site
	}
	u.mu.Unlock()
	out := map[string]map[string]int{}
	for i := range ov.Boards {
		for component, is := range u.Runs(tenant, &ov.Boards[i]) {
			if out[component] == nil {
				out[component] = map[string]int{}
			}
			out[component][is]++
		}
	}
	return out, nil
}

// Fill implements [runner.Releases].
func (u *Updates) Fill(ctx context.Context, tenant string, s *rest.RolloutSpec) (func(*plan.Candidate), error) {
	w, err := u.Releases.Want(tenant, s.Component, s.Release)
	if err == nil {
		err = w.Here(u.Releases)
	}
	if errors.Is(err, releases.ErrUnknown) || errors.Is(err, releases.ErrMissing) || errors.Is(err, releases.ErrUntrusted) {
		return nil, &plan.Error{Pointer: "/release", Detail: err.Error()}
	}
	if err != nil {
		return nil, err
	}
	if len(s.Envelope) > 0 && !bytes.Equal(s.Envelope, w.Envelope) {
		return nil, &plan.Error{Pointer: "/envelope", Detail: "it is not the one that the fleet knows of release " + s.Release + "; leave it out"}
	}
	s.Envelope = w.Envelope
	if s.Bytes == 0 {
		s.Bytes = w.Bytes
	}
	ov, err := u.cfg.Look(ctx, tenant)
	if err != nil {
		return nil, err
	}
	return func(c *plan.Candidate) {
		running := map[string]string{}
		if b := ov.Board(c.Board); b != nil {
			running = u.Runs(tenant, b)
		}
		if c.Release == "" {
			c.Release = running[s.Component]
		}
		if w.Runs(c.Release) {
			c.Release = s.Release
		}
		c.Lacks = w.Lacks(c.Facts, running)
	}, nil
}
