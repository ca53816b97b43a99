// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package updates

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/agent/identity"
	"fulmar/agent/update/sources"
	"fulmar/ota/fetch"
	"fulmar/ota/release"
	"fulmar/ota/slot"
	"fulmar/schema"
	"fulmar/tests/local"
)

// roll plans a rollout of one wave over all boards, starts it and watches it to its end.
func (w *world) roll(component, release string) (out string, code int) {
	w.Helper()
	var plan struct {
		ID string `json:"id"`
	}
	text := w.fulmar("rollout", "create", "--component", component, "--release", release, "--wave", "100%/1s", "--json")
	if err := json.Unmarshal([]byte(text), &plan); err != nil || plan.ID == "" {
		w.Fatalf("%v\n%s", err, text)
	}
	w.fulmar("rollout", "start", plan.ID)
	cmd := exec.Command(filepath.Join(w.root, "bin/fulmar"), "rollout", "watch", plan.ID, "--timeout", "2m")
	cmd.Env = w.env
	b, err := cmd.CombinedOutput()
	if e, ok := err.(*exec.ExitError); ok {
		return string(b), e.ExitCode()
	} else if err != nil {
		w.Fatal(err)
	}
	return string(b), 0
}

// TestByTheFleet: a rollout brings fulmard from 1.0 to 2.0: signed by release key and
// director, fresh by nonce, objects over the link; and is held on a release that is broken.
func TestByTheFleet(t *testing.T) {
	t.Parallel() // they mostly wait
	w := newWorld(t, local.Board{NoInfer: true, Extra: quiet})
	w.desk()
	w.bundle("2.0", "agent", w.agent("2.0", "good"), "2.0", "within=90s,hold=5s")
	t.Logf("%s", w.fulmar("release", "upload", filepath.Join(w.dir, "release-2.0")))
	begin := time.Now()
	out, code := w.roll("agent", "2.0")
	t.Logf("%d after %v\n%s", code, time.Since(begin).Round(time.Second), out)
	w.unit.runs("2.0", 10*time.Second)
	w.told("update/agent", "committed", "attempt")
	if code != 0 {
		t.Errorf("the rollout ended with %d", code)
	}
	w.web(filepath.Join(w.dir, "agent-2.0", slot.Agent))
	w.bundle("3.0", "agent", w.agent("3.0~exits", "exits"), "3.0~exits", "within=60s,hold=5s")
	w.fulmar("release", "upload", filepath.Join(w.dir, "release-3.0"))
	out, code = w.roll("agent", "3.0")
	t.Logf("%d\n%s", code, out)
	if code != 21 || !strings.Contains(out, "1 failed") { // one board of one is too few for a gate to say more
		t.Errorf("%d, wants 21: held for a person", code)
	}
	w.unit.runs("2.0", 30*time.Second)
	w.told("update/agent", "rolled-back", "launcher")
}

// web brings an object of a release as the board does it without its link: over HTTPS, with
// the board's own certificate; and not with none.
func (w *world) web(file string) {
	w.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		w.Fatal(err)
	}
	o, _, err := release.Describe(bytes.NewReader(b))
	if err != nil {
		w.Fatal(err)
	}
	e := &identity.Enroller{Dir: filepath.Join(w.site.BoardDir(board), "identity"), Fleet: w.site.HTTPS, Board: board, Mode: schema.KeySoftware, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
	defer cancel()
	id, err := e.Enrol(ctx) // it is enrolled
	if err != nil {
		w.Fatal(err)
	}
	for _, nobody := range []bool{true, false} {
		dir := w.TempDir()
		s, err := sources.Open(sources.Config{
			Dir: dir, Link: noLink{}, Log: slog.New(slog.DiscardHandler),
			Fleet: func() (string, *tls.Config) {
				address, c := id.Web(w.site.HTTPS)
				if nobody {
					c.Certificates = nil
				}
				return address, c
			},
		})
		if err != nil {
			w.Fatal(err)
		}
		within, stop := ctx, func() {}
		if nobody {
			within, stop = context.WithTimeout(ctx, 3*time.Second)
		}
		path, err := s.Fetch(within, o, nil)
		stop()
		switch got, _ := os.ReadFile(path); {
		case nobody && (err == nil || !strings.Contains(err.Error(), "403")):
			w.Errorf("without a certificate: %v", err)
		case !nobody && (err != nil || !bytes.Equal(got, b)):
			w.Errorf("over HTTPS: %d bytes of %d, %v", len(got), len(b), err)
		}
	}
}

type noLink struct{}

func (noLink) Name() string                            { return "link" }
func (noLink) Bring(context.Context, *fetch.Job) error { return errors.New("the link is down") }
