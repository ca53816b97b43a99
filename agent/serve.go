// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"fulmar/agent/errand"
	"fulmar/agent/scrape"
)

// workerSilence is how long the worker may say nothing before that is a cause.
const workerSilence = 10 * time.Second

// Health is what /healthz says: one word and the causes.
type Health struct {
	OK     bool     `json:"ok"`
	Causes []string `json:"causes"` // empty when ok
	Link   string   `json:"link"`
	Worker string   `json:"worker"`
	// Identity is who the board is to its fleet; none with a broker of one's own.
	Identity *IdentityHealth `json:"identity,omitempty"`
	// SpoolKey is who holds the key of what lies on the disk: "tpm"; "file", so that whoever
	// has the disk has the records; "none" where they lie in the clear.
	SpoolKey string `json:"spool_key"`
	// Models tells what each model runs on; none while the worker is silent.
	Models []ModelHealth `json:"models,omitempty"`
}

// ModelHealth is a model in /healthz. That it runs on a fallback is no cause of ill
// health: it sees.
type ModelHealth struct {
	Name     string `json:"name"`
	State    string `json:"state"`
	Engine   string `json:"engine,omitempty"`
	Version  string `json:"engine_version,omitempty"`
	Build    string `json:"build,omitempty"`
	Fallback string `json:"fallback,omitempty"`
}

// Health tells how the board is now.
func (a *Agent) Health() Health {
	cfg := a.config()
	h := Health{Causes: []string{}, Identity: a.identityHealth()}
	a.status.mu.Lock()
	h.Link = a.status.link.State
	linkErr, keyErr := a.status.link.Err, a.status.identity.Err
	at, w := a.status.workerAt, a.status.worker
	a.status.mu.Unlock()
	if s := a.link.Load(); s != nil {
		st := s.Status()
		h.Link, linkErr = string(st.State), st.Err
		if keyErr != nil {
			h.Causes = append(h.Causes, "identity: "+keyErr.Error())
		}
	}
	if linkErr != nil {
		h.Causes = append(h.Causes, "link: "+linkErr.Error())
	}
	switch {
	case cfg.Infer.Mode == "off":
		h.Worker = "off"
	case at.IsZero() || time.Since(at) > workerSilence:
		h.Worker = "silent"
		h.Causes = append(h.Causes, "worker: not heard of")
	default:
		h.Worker = "ok"
		h.Causes = append(h.Causes, errand.Causes(&w)...)
		h.Models = a.models()
	}
	spool := a.spool.Stats()
	if h.SpoolKey = "none"; spool.Keys != nil {
		h.SpoolKey = spool.Keys.Kind
	}
	if spool.Memory != "" {
		h.Causes = append(h.Causes, "spool: records stay in memory: "+spool.Memory)
	}
	if !a.alive() {
		h.Causes = append(h.Causes, "schedule: no tick within its deadline")
	}
	h.OK = len(h.Causes) == 0
	return h
}

// models tells of each model what it runs on, by the newest word of the worker.
func (a *Agent) models() (out []ModelHealth) {
	a.status.mu.Lock()
	defer a.status.mu.Unlock()
	for _, m := range a.status.worker.Models {
		out = append(out, ModelHealth{m.Name, m.State, m.Engine, m.EngineVersion, m.Build, m.Fallback})
	}
	return out
}

// serveStatus serves /metrics and /healthz, unless the config says not to.
func (a *Agent) serveStatus(ctx context.Context) error {
	cfg := a.config()
	if cfg.Status.Listen == "off" {
		return nil
	}
	s, err := scrape.Listen(&cfg)
	if err != nil {
		// The page of a board must not take the board down.
		a.log.Error("status is not served", "err", err)
		a.say("status", "refused", 1, "metrics and health are not served: "+err.Error())
		return nil
	}
	return s.Serve(ctx, a.metrics, a.serveHealth)
}

func (a *Agent) serveHealth(w http.ResponseWriter, _ *http.Request) {
	h := a.Health()
	w.Header().Set("Content-Type", "application/json")
	if !h.OK {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(h)
}
