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
	"syscall"
	"testing"
	"time"

	"fulmar/agent/identity"
	"fulmar/agent/update/sources"
	"fulmar/ota/fetch"
	"fulmar/ota/release"
	"fulmar/ota/slot"
	"fulmar/schema"
	"fulmar/schema/rest"
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

// TestProven: a board whose key is in its TPM brings itself to 2.0; that it runs is bound to
// the board by a quote, and the release's epoch is the floor that its TPM counts: what is of an
// older one is refused, also when what the disk knows of floors is as it was before, or gone.
func TestProven(t *testing.T) {
	t.Parallel() // they mostly wait
	w := newWorld(t, local.Board{NoInfer: true, Extra: quiet, TPM: swtpm})
	w.desk()
	w.bundle("2.0", "agent", w.agent("2.0", "good"), "2.0", "within=90s,hold=5s", "--epoch", "2")
	w.fulmar("release", "upload", filepath.Join(w.dir, "release-2.0"))
	if out, code := w.roll("agent", "2.0"); code != 0 {
		t.Fatalf("%d\n%s", code, out)
	}
	w.unit.runs("2.0", 10*time.Second)
	text := w.fulmar("rollout", "show", "r-1", "--boards", "-o", "json")
	var rows []rest.RolloutBoard
	if err := json.Unmarshal([]byte(text), &rows); err != nil || len(rows) != 1 || rows[0].Level != "bound" {
		t.Errorf("%v\n%s", err, text)
	}
	settings := filepath.Join(w.dir, "settings")
	err := os.Mkdir(settings, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(settings, "site.yaml"), []byte("updates: {max_celsius: 90}\n"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.bundle("site-5", "config", settings, "5", "within=60s,hold=2s", "--epoch", "2")
	w.fulmar("release", "upload", filepath.Join(w.dir, "release-site-5"))
	if out, code := w.roll("config", "site-5"); code != 0 { // its files are what the report has
		t.Errorf("%d\n%s", code, out)
	}
	floor := filepath.Join(w.site.BoardDir(board), "floor")
	before := filepath.Join(w.dir, "floor-before")
	if err := os.CopyFS(before, os.DirFS(floor)); err != nil {
		t.Fatal(err)
	}
	newer := w.bundle("2.1", "agent", w.agent("2.1", "good"), "2.1", "within=90s,hold=5s", "--epoch", "3")
	if out, code := w.ota("install-bundle", newer, "--watch"); code != 0 {
		t.Fatalf("%d\n%s", code, out)
	}
	w.unit.runs("2.1", 10*time.Second)
	old := w.bundle("1.9", "agent", w.agent("1.9", "good"), "1.9", "within=90s,hold=5s", "--epoch", "2")
	refused := func(when, why string) {
		t.Helper()
		out, code := w.ota("install-bundle", old, "--watch")
		if code == 0 || !strings.Contains(out, why) {
			t.Errorf("%s: %d\n%s", when, code, out)
		}
		w.unit.runs("2.1", 20*time.Second)
	}
	refused("as it is", "release 1.9 is of epoch 2, and the floor is at 3")
	again := func() {
		t.Helper()
		w.unit.kill(syscall.SIGKILL)
		time.Sleep(time.Second) // it is gone, and started again
		w.up()
	}
	if err = os.RemoveAll(floor); err == nil {
		err = os.CopyFS(floor, os.DirFS(before))
	}
	if err != nil {
		t.Fatal(err)
	}
	give(t, floor)
	again()
	refused("with the floor of a disk of before", "an older state was put back")
	if err := os.RemoveAll(floor); err != nil {
		t.Fatal(err)
	}
	again()
	refused("with a disk that knows no floor", "this board had a floor; find out who changed")
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
