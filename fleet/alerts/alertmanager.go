// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package alerts

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/url"
	"strconv"
	"strings"
	"time"

	"fulmar/schema/rest"
)

// postable is an alert as POST /api/v2/alerts of Alertmanager takes it.
type postable struct {
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL,omitempty"`
}

// tell posts alerts to Alertmanagers: at once where some changed, else each minute.
func (w *Watch) tell(ctx context.Context) error {
	tick := time.NewTicker(resend)
	defer tick.Stop()
	for {
		var names []string
		var err error
		select {
		case <-ctx.Done():
			return nil
		case name := <-w.changed:
			names = []string{name}
		case <-tick.C:
			names, err = w.names(ctx)
		}
		for _, name := range names {
			err = errors.Join(err, w.Push(ctx, name, func() ([]byte, error) { return json.Marshal(w.postables(ctx, name)) }))
		}
		if err != nil && ctx.Err() == nil {
			w.cfg.Log.Error("alertmanagers are not told", "err", err)
		}
	}
}

// postables are the alerts that Alertmanagers are told of: those that fire, and for a
// while those that are over.
func (w *Watch) postables(ctx context.Context, tenant string) []postable {
	now := time.Now().UTC()
	out := []postable{}
	for _, a := range w.Alerts(ctx, tenant) {
		p := postable{Labels: maps.Clone(a.Labels), StartsAt: a.Since, EndsAt: now.Add(expires)}
		switch a.State {
		case rest.AlertPending:
			continue
		case rest.AlertResolved:
			if p.EndsAt = a.Resolved; now.Sub(a.Resolved) > resentFor {
				continue
			}
		}
		p.Labels["tenant"] = tenant
		p.Annotations = map[string]string{"summary": a.Summary, "count": strconv.Itoa(a.Count)}
		if len(a.Boards) > 0 {
			p.Annotations["boards"] = strings.Join(a.Boards, ", ")
		}
		if a.Value != nil {
			p.Annotations["value"] = strconv.FormatFloat(*a.Value, 'g', -1, 64)
		}
		if w.cfg.URL != "" {
			p.GeneratorURL = strings.TrimSuffix(w.cfg.URL, "/") + "/?alert=" + url.QueryEscape(a.ID)
		}
		out = append(out, p)
	}
	return out
}
