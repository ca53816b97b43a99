// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"fulmar/cmd/fulmar/here"
)

// TestFresh: what a fulmard says that was there before the start is not listened to.
func TestFresh(t *testing.T) {
	t.Parallel()
	c := &here.Config{Data: t.TempDir()}
	path := c.Data + "/status.sock"
	put := func(at time.Time) {
		t.Helper()
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	r := &run{shown: &here.Shown{Config: *c}}
	if w, err := r.watch(); err != nil || !w.isFresh() {
		t.Error("nothing was there before, so what comes is new", err)
	}
	put(time.Unix(1000, 0))
	w, err := r.watch()
	if err != nil || w.isFresh() {
		t.Error("the same socket is taken for a new one", err)
	}
	if err := os.Remove(path); err != nil || w.isFresh() {
		t.Error("no socket is taken for a new one", err)
	}
	put(time.Unix(2000, 0))
	if !w.isFresh() {
		t.Error("a new socket is not seen")
	}
}

func TestReadLine(t *testing.T) {
	t.Parallel()
	if s, err := readLine(strings.NewReader("  fe1_x \nmore")); s != "fe1_x" || err != nil {
		t.Error(s, err)
	}
	if _, err := readLine(strings.NewReader("\n")); !errors.Is(err, ErrUsage) {
		t.Error(err)
	}
	if s, _ := readLine(strings.NewReader(strings.Repeat("a", 1<<20))); len(s) > 1000 {
		t.Errorf("%d bytes", len(s))
	}
}

// health is a board that the fleet answered.
func health(t *testing.T, refusal, cause string) *here.Health {
	t.Helper()
	b, err := json.Marshal(map[string]any{"causes": []string{"worker: x", cause}, "identity": map[string]string{"state": "enrolling", "refusal": refusal}})
	if err != nil {
		t.Fatal(err)
	}
	h := new(here.Health)
	if err := json.Unmarshal(b, h); err != nil {
		t.Fatal(err)
	}
	return h
}

// TestRefusals: each no of the fleet says what to do, and what may become a yes is waited
// for.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]string{
		"token": "fulmar-fleet token", "name-taken": "--board NAME", "elsewhere": "fulmar board wipe", "revoked": "fulmar-fleet token --board",
		"refused": "approving it there", "needs-tpm": "fulmar tpm info", "csr": "journalctl",
	} {
		f := refused(health(t, code, "link: fleet refused the enrolment (403 Forbidden): No: because (of that): x"), false)
		if f == nil || !strings.Contains(f.Do, want) || f.Because != "No: because (of that): x" || !errors.Is(f, ErrRefused) {
			t.Errorf("%s: %+v", code, f)
		}
	}
	for _, code := range []string{"", "full", "too-many-requests"} {
		if f := refused(health(t, code, "link: later"), false); f != nil {
			t.Errorf("%q ends it: %v", code, f)
		}
	}
	if f := refused(health(t, "token", "link: no"), true); f != nil {
		t.Errorf("with a pin a person is asked: %v", f)
	}
}

func TestFailure(t *testing.T) {
	t.Parallel()
	f := &Failure{What: "a", Because: "b\nc", Do: "d", Is: ErrUnreachable}
	if got := f.Error(); got != "a\n  because b\n          c\n  do      d" {
		t.Errorf("%q", got)
	}
	var out bytes.Buffer
	r := newReport(true, &out, &bytes.Buffer{})
	if err := r.end(f); !errors.Is(err, ErrUnreachable) || !strings.Contains(out.String(), `"because": "b\nc"`) || !strings.Contains(out.String(), `"ok": false`) {
		t.Errorf("%v %s", err, &out)
	}
}
