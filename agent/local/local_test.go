// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/command"
	"fulmar/command/dispatch"
	"fulmar/schema/onboard"
)

const closeValve = `{"name":"set-valve","args":{"valve":"main","percent":0.5},"reason":"leak","wait_s":20}`

// TestGive: a person gives a command, sees it go and ends with how it ended; the log says
// who, and the valve has moved once.
func TestGive(t *testing.T) {
	t.Parallel()
	b := start(t, nil)
	code, body := b.ask("POST", "/v1/commands", closeValve)
	steps := lines(t, body)
	if code != http.StatusOK || len(steps) < 2 {
		t.Fatalf("%d %s", code, body)
	}
	first, last := steps[0], steps[len(steps)-1]
	if first.State != "accepted" || first.Final || last.State != "done" || !last.Final || string(last.Value) != `{"percent":0.5}` || last.ID != first.ID {
		t.Errorf("steps %+v", steps)
	}
	if at, n := b.position(); at != 0.5 || n != 1 {
		t.Errorf("the valve is at %v after %d moves", at, n)
	}
	var log []onboard.Entry
	_, body = b.ask("GET", "/v1/commands?n=1", "")
	if err := json.Unmarshal([]byte(body), &log); err != nil || len(log) != 1 {
		t.Fatal(body, err)
	}
	if e := log[0]; e.Actor != "local/"+me() || e.Reason != "leak" || e.Name != "set-valve" || string(e.Args) != `{"percent":0.5,"valve":"main"}` || e.State != "done" || e.Given.IsZero() {
		t.Errorf("the log says %+v", e)
	}
	if !strings.Contains(b.log.String(), "actor=local/"+me()) {
		t.Errorf("fulmard's log does not tell who: %s", b.log)
	}
	// Again by its id: the same last word.
	code, body = b.ask("GET", "/v1/commands/"+last.ID+"?wait_s=5", "")
	if s := lines(t, body); code != http.StatusOK || len(s) != 1 || s[0].State != "done" {
		t.Errorf("asked again: %d %s", code, body)
	}
}

// TestRefused: each refusal has a code and a status of its own, and nothing moves.
func TestRefused(t *testing.T) {
	t.Parallel()
	b := start(t, nil)
	huge := `{"name":"talk","reason":"` + strings.Repeat("x", onboard.MaxBody) + `"}`
	for _, c := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"POST", "/v1/commands", huge, 413, onboard.TooLarge},
		{"POST", "/v1/commands", `{"name":"talk"}` + strings.Repeat(" ", onboard.MaxBody), 413, onboard.TooLarge},
		{"POST", "/v1/commands", ``, 400, onboard.BadRequest},
		{"POST", "/v1/commands", `{"name":"talk","force":true}`, 400, onboard.BadRequest},
		{"POST", "/v1/commands", `{"name":"talk"}{"name":"talk"}`, 400, onboard.BadRequest},
		{"POST", "/v1/commands", `{"name":"talk","wait_s":601}`, 400, onboard.BadRequest},
		{"POST", "/v1/commands", `{"name":"talk","wait_s":-1}`, 400, onboard.BadRequest},
		{"POST", "/v1/commands", `{"name":"talk","reason":"` + strings.Repeat("x", 257) + `"}`, 400, onboard.BadRequest},
		{"POST", "/v1/commands", `{"name":"fly"}`, 404, command.CodeUnknown},
		{"POST", "/v1/commands", `{"name":"talk","args":{"loud":1}}`, 400, command.CodeArgs},
		{"POST", "/v1/commands", `{"name":"talk","args":[1]}`, 400, command.CodeArgs},
		{"POST", "/v1/commands", `{"name":"set-valve","args":{"valve":"main"}}`, 400, command.CodeArgs},
		{"POST", "/v1/commands", `{"name":"set-valve","args":{"valve":"main","percent":"0"}}`, 400, command.CodeArgs},
		{"POST", "/v1/commands", `{"name":"set-valve","args":{"valve":"main","percent":201}}`, 400, command.CodeArgs},
		{"GET", "/v1/commands/abc", "", 400, onboard.BadRequest},
		{"GET", "/v1/commands/" + strings.Repeat("ab", 16), "", 404, onboard.NotKnown},
		{"POST", "/v1/commands/" + strings.Repeat("ab", 16) + "/cancel", `{}`, 404, onboard.NotKnown},
		{"GET", "/v1/commands?n=0", "", 400, onboard.BadRequest},
		{"GET", "/v1/nothing", "", 404, onboard.NotKnown},
		{"GET", "/v1/twin/keys/app.x", "", 404, onboard.NotKnown},
		{"PUT", "/v1/twin/keys/log.level", `{"value":"loud"}`, 409, "refused"},
		{"PUT", "/v1/twin/keys/app.x", `{"value":null}`, 400, onboard.BadRequest},
		{"PUT", "/v1/twin/keys/app.x", `{"value":1,"for_s":-5}`, 400, onboard.BadRequest},
		{"PUT", "/v1/twin/keys/" + strings.Repeat("k", 97), `{"value":1}`, 400, onboard.BadRequest},
	} {
		status, body := b.ask(c.method, c.path, c.body)
		if p := problem(t, body); status != c.status || p.Code != c.code || p.Text == "" {
			t.Errorf("%s %.60s %.60s: %d %s", c.method, c.path, c.body, status, body)
		}
	}
	// The board's own refusal is a result: it has an id and stands in the log.
	_, body := b.ask("POST", "/v1/commands", `{"name":"set-valve","args":{"valve":"main","percent":150},"wait_s":20}`)
	if s := lines(t, body); len(s) != 1 || s[0].State != "refused" || s[0].Code != "out-of-range" || !s[0].Final {
		t.Errorf("by the board: %s", body)
	}
	if _, n := b.position(); n != 0 {
		t.Errorf("the valve moved %d times", n)
	}
}

// TestPolicy: what the board's policy refuses while it is alone comes through with its code.
func TestPolicy(t *testing.T) {
	t.Parallel()
	b := start(t, func(b *board) {
		b.cfg.Allow = func(actor, name string) error {
			if name == "set-valve" {
				return &command.Error{Code: "not-alone", Text: name + " may not be given while the fleet cannot be asked, also not by " + actor}
			}
			return nil
		}
	})
	status, body := b.ask("POST", "/v1/commands", closeValve)
	if p := problem(t, body); status != http.StatusConflict || p.Code != "not-alone" || !strings.Contains(p.Text, "local/"+me()) {
		t.Errorf("%d %s", status, body)
	}
	if status, body := b.ask("POST", "/v1/commands", `{"name":"talk","check_only":true}`); status != 200 || !strings.Contains(body, `"done"`) {
		t.Errorf("another: %d %s", status, body)
	}
	if _, n := b.position(); n != 0 {
		t.Error("the valve moved")
	}
}

// TestOneOfMany: who waits for a command hears of that one, whatever else runs.
func TestOneOfMany(t *testing.T) {
	t.Parallel()
	b := start(t, nil)
	b.ask("POST", "/v1/commands", `{"name":"talk"}`)
	for range 20 {
		_, body := b.ask("POST", "/v1/commands", closeValve)
		s := lines(t, body)
		for _, x := range s {
			if x.ID != s[0].ID || x.Name != "set-valve" || strings.HasPrefix(x.Text, "aaa") {
				t.Fatalf("a step of another: %+v", x)
			}
		}
	}
}

// TestValues: what is one value to people is one to the twin.
func TestValues(t *testing.T) {
	t.Parallel()
	whole, err := edit(&onboard.Set{Value: []byte("5")})
	if err != nil {
		t.Fatal(err)
	}
	for text, same := range map[string]bool{"5.0": true, "5e0": true, "5.5": false, `"5"`: false} {
		e, err := edit(&onboard.Set{Value: []byte(text)})
		if err != nil || bytes.Equal(e.Value, whole.Value) != same {
			t.Errorf("%s: %x, 5 is %x, %v", text, e.Value, whole.Value, err)
		}
	}
	for _, text := range []string{"1e999", "{", "[[[[[[1]]]]]]", `"` + strings.Repeat("x", 2000) + `"`, "[null]"} {
		if e, err := edit(&onboard.Set{Value: []byte(text)}); err == nil {
			t.Errorf("%.20s is taken: %x", text, e.Value)
		}
	}
}

// TestCancel ends a command that runs, by name of who did it.
func TestCancel(t *testing.T) {
	t.Parallel()
	b := start(t, nil)
	_, body := b.ask("POST", "/v1/commands", `{"name":"talk"}`)
	id := lines(t, body)[0].ID
	if status, body := b.ask("POST", "/v1/commands/"+id+"/cancel", `{"reason":"too loud"}`); status != 200 {
		t.Fatal(status, body)
	}
	_, body = b.ask("GET", "/v1/commands/"+id+"?wait_s=20", "")
	s := lines(t, body)
	if last := s[len(s)-1]; last.State != "cancelled" || !strings.Contains(last.Text, "local/"+me()+": too loud") {
		t.Errorf("%+v", last)
	}
}

// TestTwin sets a key with a lease, sees it, and clears it.
func TestTwin(t *testing.T) {
	t.Parallel()
	b := start(t, nil)
	if status, body := b.ask("PUT", "/v1/twin/keys/app.limit", `{"value":5.0,"for_s":3600,"reason":"repair"}`); status != 200 || !strings.Contains(body, `"value":5,"from":"board"`) {
		t.Fatal(status, body)
	}
	if status, body := b.ask("GET", "/v1/twin", ""); status != 200 || !strings.Contains(body, `"key":"app.limit"`) {
		t.Error(status, body)
	}
	if _, body := b.ask("GET", "/v1/twin/history", ""); !strings.Contains(body, `"author":"local/`+me()+`","reason":"repair"`) {
		t.Error(body)
	}
	if status, body := b.ask("GET", "/v1/twin/conflicts", ""); status != 200 || body != "[]\n" {
		t.Error(status, body)
	}
	for _, was := range []string{"true", "false"} {
		if status, body := b.ask("DELETE", "/v1/twin/keys/app.limit", ""); status != 200 || !strings.Contains(body, `"was":`+was) {
			t.Error(status, body)
		}
	}
}

// TestNotReady: before the board has a name it says so.
func TestNotReady(t *testing.T) {
	t.Parallel()
	b := start(t, func(b *board) {
		b.cfg.Commands = func() Commands { return nil }
		b.cfg.Twin = func() Twin { return nil }
	})
	for _, c := range [][2]string{{"GET", "/v1/kinds"}, {"POST", "/v1/commands"}, {"GET", "/v1/twin"}, {"POST", "/v1/challenge"}} {
		if status, body := b.ask(c[0], c[1], "{}"); status != 503 || problem(t, body).Code != onboard.NotReady {
			t.Error(c, status, body)
		}
	}
	if status, _ := b.ask("GET", "/v1/state", ""); status != 200 {
		t.Error(status)
	}
}

// TestPath: what is at the socket's path and is none stays as it is, a link is not followed.
func TestPath(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link.sock")
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{victim, link} {
		err := New(Config{Path: path, Log: slog.New(slog.DiscardHandler)}).Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "is no socket") {
			t.Errorf("%s: %v", path, err)
		}
	}
	st, err := os.Stat(victim)
	if err != nil || st.Mode().Perm() != 0o600 || st.Size() != 8 {
		t.Errorf("the file behind the link: %v, %v", st, err)
	}
	// A link that comes into the place of the socket gets no mode.
	if err := open(link); err == nil {
		t.Error("the mode of a link's target was changed")
	}
	if st, _ := os.Stat(victim); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	other, err := net.Listen("unix", filepath.Join(dir, "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	toOther := filepath.Join(dir, "link2.sock")
	if err := errors.Join(os.Chmod(filepath.Join(dir, "other"), 0o600), os.Symlink(filepath.Join(dir, "other"), toOther)); err != nil {
		t.Fatal(err)
	}
	if err := open(toOther); err == nil {
		t.Error("the mode of another socket was changed")
	}
	if st, _ := os.Stat(toOther); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	// A socket that a dead process left is replaced.
	path := filepath.Join(dir, "s")
	for range 2 {
		l, err := listen(path)
		if err != nil {
			t.Fatal(err)
		}
		if st, err := os.Lstat(path); err != nil || st.Mode().Perm() != 0o660 {
			t.Errorf("%v, %v", st.Mode(), err)
		}
		l.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false)
		l.Close()
	}
}

// TestErrors: errors of the parts of the board have the right status.
func TestErrors(t *testing.T) {
	t.Parallel()
	for err, status := range map[error]int{
		&command.Error{Code: "interlocked"}: 409, dispatch.ErrNotKnown: 404, context.DeadlineExceeded: 503, errors.New("disk"): 500,
	} {
		if got := refusalOf(err); got.status != status || got.Code == "" {
			t.Errorf("%v: %d %+v", err, got.status, got.Problem)
		}
	}
}
