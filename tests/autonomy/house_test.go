// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package autonomy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fulmar/schema/onboard"
	"fulmar/schema/rest"
	"fulmar/tests/local"
)

// house is a fleet and its boards: real programs on loopback.
type house struct {
	t *testing.T
	*local.Site
	api *local.API
	up  *local.Uplink
}

// newHouse starts a fleet, with an uplink between it and its boards that can be cut.
func newHouse(t *testing.T) *house {
	t.Helper()
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"fulmar", "fulmard", "fulmar-fleet"} {
		if _, err := os.Stat(filepath.Join(bin, p)); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%v; run: make build", err)
			}
			t.Skipf("%v; run: make build", err)
		}
	}
	dir, err := os.MkdirTemp("", "alone") // the boards' sockets have at most 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s, err := local.New(dir, bin, "/none")
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, Site: s}
	if h.up, err = s.NewUplink(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.up.Close)
	t.Cleanup(h.keepLogs)
	h.startFleet()
	return h
}

func (h *house) startFleet() {
	h.t.Helper()
	if err := h.StartFleet(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	fleet := h.Fleet
	h.t.Cleanup(fleet.Kill)
	var err error
	if h.api, err = h.Admin(); err != nil {
		h.t.Fatal(err)
	}
}

// keepLogs leaves the programs' logs where CI collects them, if the test failed.
func (h *house) keepLogs() {
	dir := os.Getenv("FULMAR_ARTIFACTS")
	if !h.t.Failed() || dir == "" {
		return
	}
	all, _ := filepath.Glob(filepath.Join(h.Dir, "*.log"))
	for _, n := range all {
		if b, err := os.ReadFile(n); err == nil {
			_ = os.WriteFile(filepath.Join(dir, strings.ReplaceAll(h.t.Name(), "/", "-")+"-"+filepath.Base(n)), b, 0o600)
		}
	}
}

// start starts a board; tpm: the path of its TPM, "" for a key in a file.
func (h *house) start(name, tpm, extra string) *local.Proc {
	h.t.Helper()
	extra += fmt.Sprintf("infer: {mode: \"off\"}\nlocal: {operators: [root, \"%d\"]}\n", os.Getuid())
	config, err := h.PrepareBoard(local.Board{Name: name, Extra: extra, NoInfer: true, TPM: tpm})
	if err != nil {
		h.t.Fatal(err)
	}
	return h.run(name, config)
}

func (h *house) run(name, config string) *local.Proc {
	h.t.Helper()
	p, err := h.StartBoard(name, config)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(p.Kill)
	return p
}

func (h *house) until(what string, limit time.Duration, ok func() bool) {
	h.t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			all, _ := filepath.Glob(filepath.Join(h.Dir, "*.log"))
			for _, n := range all {
				b, _ := os.ReadFile(n)
				h.t.Logf("%s:\n%s", filepath.Base(n), b[max(0, len(b)-4<<10):])
			}
			for _, words := range [][]string{{"status"}, {"log", "-n", "8"}, {"twin"}} {
				var v json.RawMessage
				_, said := h.local("dock-1", &v, words...)
				h.t.Logf("%v: %s%s", words, v, said)
			}
			h.t.Fatalf("did not come: %s", what)
		}
	}
}

// local runs fulmar local at a board and gives its JSON and its exit code.
func (h *house) local(board string, into any, words ...string) (code int, said string) {
	h.t.Helper()
	args := append([]string{"local", "--socket", filepath.Join(h.BoardDir(board), onboard.Socket)}, append(slices.Clone(words), "--json")...)
	cmd := exec.Command(filepath.Join(h.Bin, "fulmar"), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatal(err)
	}
	if into != nil && out.Len() > 0 {
		if err := json.Unmarshal(out.Bytes(), into); err != nil {
			h.t.Fatalf("fulmar local %v: %v\n%s%s", words, err, out.Bytes(), errs.Bytes())
		}
	}
	return cmd.ProcessState.ExitCode(), strings.TrimSpace(errs.String())
}

// must is local that has to end well.
func (h *house) must(board string, into any, words ...string) {
	h.t.Helper()
	if code, said := h.local(board, into, words...); code != 0 {
		h.t.Fatalf("fulmar local %v: exit code %d: %s", words, code, said)
	}
}

// post sends JSON to the fleet's API.
func (h *house) post(method, path string, body, into any) {
	h.t.Helper()
	if err := h.api.Send(h.t.Context(), method, "/api/v1/"+path, body, into); err != nil {
		h.t.Fatal(err)
	}
}

// give gives a command from the fleet and returns its id.
func (h *house) give(valid time.Duration, name, args, reason string, boards ...string) string {
	h.t.Helper()
	var c rest.Command
	h.post(http.MethodPost, "commands", rest.CommandSpec{Name: name, Args: json.RawMessage(args), Boards: boards, ValidS: int64(valid / time.Second), Reason: reason}, &c)
	return c.ID
}

// state is how a command of the fleet's stands on its first board.
func (h *house) state(id string) rest.CommandBoard {
	h.t.Helper()
	var c rest.Command
	if err := h.api.Get(h.t.Context(), "/api/v1/commands/"+id, &c); err != nil {
		h.t.Fatal(err)
	}
	if len(c.Boards) == 0 {
		h.t.Fatalf("command %s has no board: %+v", id, c)
	}
	return c.Boards[0]
}

// done waits until a command of the fleet's is.
func (h *house) done(id string) {
	h.t.Helper()
	var b rest.CommandBoard
	h.until("command "+id+" done", 30*time.Second, func() bool { b = h.state(id); return rest.CommandFinal(b.State) })
	if b.State != rest.CommandDone {
		h.t.Fatalf("command %s: %+v", id, b)
	}
}

// wants changes what a board shall be.
func (h *house) wants(board, reason string, set map[string]any) {
	h.t.Helper()
	p := rest.TwinPatch{Reason: reason, Set: map[string]json.RawMessage{}}
	for k, v := range set {
		b, err := json.Marshal(v)
		if err != nil {
			h.t.Fatal(err)
		}
		p.Set[k] = b
	}
	h.post(http.MethodPatch, "boards/"+board+"/twin", p, nil)
}

func (h *house) twin(board string) (t rest.Twin) {
	h.t.Helper()
	if err := h.api.Get(h.t.Context(), "/api/v1/boards/"+board+"/twin", &t); err != nil {
		h.t.Fatal(err)
	}
	return t
}

// rows are the fleet's rows of a board's commands.
func (h *house) rows(board string) (all []rest.Command) {
	h.t.Helper()
	for next := ""; ; {
		var l rest.List[rest.Command]
		if err := h.api.Get(h.t.Context(), "/api/v1/boards/"+board+"/commands?page_size=1000"+next, &l); err != nil {
			h.t.Fatal(err)
		}
		all = append(all, l.Items...)
		if l.Next == "" {
			return all
		}
		next = "&page_token=" + l.Next
	}
}

// linked waits until a board's link is up, or not.
func (h *house) linked(board string, up bool) {
	h.t.Helper()
	h.until(fmt.Sprintf("link of %s up: %v", board, up), time.Minute, func() bool {
		s, err := h.Health(h.t.Context(), board)
		return err == nil && (s.Link == "up") == up
	})
}
