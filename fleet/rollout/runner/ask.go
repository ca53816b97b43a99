// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"fulmar/fleet/rollout"
	"fulmar/fleet/rollout/state"
	"fulmar/schema/rest"
)

const (
	// guardTimeout bounds the reading of one guard.
	guardTimeout = 30 * time.Second
	// maxAnswer is how much of a hook's answer is read, for its reason.
	maxAnswer = 256
)

// errPrivate: a hook would reach into the server's own network.
var errPrivate = errors.New("private address: hooks reach public ones alone")

// hookClient calls hooks: no redirects, no proxies of the environment, and no private
// address unless they are allowed. The address is checked when it is dialled, so that
// no name can change in between.
func hookClient(private bool) *http.Client {
	d := &net.Dialer{Timeout: 10 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if a := ap.Addr().Unmap(); !private && (!a.IsGlobalUnicast() || a.IsPrivate()) {
			return fmt.Errorf("%s: %w", a, errPrivate)
		}
		return nil
	}}
	return &http.Client{
		Transport:     &http.Transport{DialContext: d.DialContext, TLSHandshakeTimeout: 10 * time.Second, DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// ask calls the hook and reads the guards that the logic wants. Their answers count
// only while the rollout is still where it was when they were asked for.
func (x *Rollouts) ask(r *state.Rollout, fx rollout.Effects) {
	if x.ctx == nil || fx.Hook == nil && fx.Guards == nil {
		return
	}
	ctx, k, since, state := x.ctx, key{r.Tenant, r.ID}, r.Since, r.State
	give := func(ev rollout.Event) {
		x.mu.Lock()
		defer x.mu.Unlock()
		now := x.open[k]
		if now == nil || now.State != state || !now.Since.Equal(since) || ctx.Err() != nil {
			return
		}
		if err := x.apply(ctx, now, false, ev); err != nil {
			x.cfg.Log.Error("answer not taken", "rollout", k.id, "error", err.Error())
		}
	}
	if fx.Hook != nil {
		hook, body := *fx.Hook, called(r)
		x.asks.Go(func() { give(x.call(ctx, hook, body)) })
	}
	if fx.Guards != nil {
		guards, baseline := fx.Guards, fx.Baseline
		x.asks.Go(func() { give(rollout.Measured{Baseline: baseline, Values: x.measure(ctx, k.tenant, guards)}) })
	}
}

// called is the body of a hook's request.
func called(r *state.Rollout) []byte {
	b, _ := json.Marshal(struct { // of strings and numbers: cannot fail
		Rollout   string `json:"rollout"`
		Tenant    string `json:"tenant"`
		Component string `json:"component"`
		Release   string `json:"release"`
		Wave      int    `json:"wave"`
		State     string `json:"state"`
	}{r.ID, r.Tenant, r.Spec.Component, r.Spec.Release, r.Wave, string(r.State)})
	return b
}

// call makes a hook's request.
func (x *Rollouts) call(ctx context.Context, h rest.Hook, body []byte) rollout.Hooked {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(h.LimitS)*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(body))
	if err != nil {
		return rollout.Hooked{Say: "its URL cannot be used"}
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := x.client.Do(req)
	switch {
	case errors.Is(err, errPrivate):
		return rollout.Hooked{Say: errPrivate.Error()}
	case ctx.Err() != nil:
		return rollout.Hooked{Say: fmt.Sprintf("no answer within %d s", h.LimitS)}
	case err != nil:
		return rollout.Hooked{Say: "no answer: the connection failed"} // an error names the URL, which may hold a secret
	}
	defer res.Body.Close() //nolint:errcheck // what matters was read
	text, _ := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	return rollout.Hooked{OK: res.StatusCode/100 == 2, Say: fmt.Sprintf("answered %d: %.200q", res.StatusCode, text)}
}

// measure reads guards: a value for each board. What cannot be read has none.
func (x *Rollouts) measure(ctx context.Context, tenant string, guards []rest.Guard) map[string]map[string]float64 {
	out := map[string]map[string]float64{}
	for _, g := range guards {
		out[g.Name] = map[string]float64{}
		if x.cfg.Metrics == nil {
			continue
		}
		one, cancel := context.WithTimeout(ctx, guardTimeout)
		samples, err := x.cfg.Metrics.Instant(one, tenant, g.Expr, time.Now())
		cancel()
		if err != nil {
			x.cfg.Log.Warn("guard not read", "guard", g.Name, "error", err.Error())
			continue
		}
		for _, s := range samples {
			if b := s.Labels["board"]; b != "" {
				out[g.Name][b] = s.Value
			}
		}
	}
	return out
}
