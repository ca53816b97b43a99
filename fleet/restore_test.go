// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/backup"
	"fulmar/fleet/registry"
	"fulmar/schema/rest"
	"fulmar/trust"
)

// TestRestoredServes: a server with people, a rollout, an alert rule, a webhook, a saved
// query and metadata is backed up while it runs, goes on, and is lost. Another one on the
// restored folder serves all that was there at the backup, and nothing of what came after.
func TestRestoredServes(t *testing.T) {
	t.Parallel()
	c := released(t)
	c.enrols(t, "dock-1", "dock-2")
	admin := c.apiToken(t, registry.ScopeAdmin)
	c.member(t, "kern", rest.Operator)
	send := func(method, path, body string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+c.HTTPSAddr()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Authorization": {"Bearer " + admin}, "Content-Type": {"application/json"}}
		if method == http.MethodPut {
			req.Header.Set("If-Match", "*")
		}
		res, err := c.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if said, err := io.ReadAll(res.Body); err != nil || res.StatusCode >= 300 {
			t.Fatal(path, res.Status, string(said), err)
		}
	}
	send(http.MethodPut, "/api/v1/boards/dock-1/meta", `{"site": "hall-4", "labels": {"line": "4"}, "version": 0}`)
	send(http.MethodPut, "/api/v1/alert-rules/hot", `{"id": "hot", "summary": "too hot", "severity": "warning", "q": "temp.tj > 85", "for": "5m", "version": 0}`)
	send(http.MethodPost, "/api/v1/webhooks", `{"id": "", "name": "desk", "url": "https://desk.example.org/hook", "kind": "webhook", "version": 0, "waiting": 0}`)
	ann := caller("ann", rest.RolloutsWrite, rest.BoardsRead)
	c.join(t, "dock-3", "updates")
	f, err := c.rolls.Forecast(t.Context(), ann, spec())
	for end := time.Now().Add(10 * time.Second); (err != nil || f.Boards != 1) && time.Now().Before(end); time.Sleep(50 * time.Millisecond) { // the look is of a second ago
		f, err = c.rolls.Forecast(t.Context(), ann, spec())
	}
	r, err := c.rolls.Create(t.Context(), ann, spec())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.reg.Meta().SaveQuery(t.Context(), caller("ann", rest.BoardsRead, rest.BoardsWrite), rest.SavedQuery{Name: "hall", Query: "site = hall-4"}); err != nil {
		t.Fatal(err)
	}

	var b bytes.Buffer
	if _, err := backup.Write(t.Context(), &b, backup.Plan{Data: c.dir, Release: "r", Pictures: true}); err != nil {
		t.Fatal(err)
	}
	send(http.MethodPut, "/api/v1/boards/dock-2/meta", `{"site": "hall-5", "version": 0}`)
	c.stop()
	if err := os.RemoveAll(c.dir); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "data")
	if _, err := backup.Restore(t.Context(), &b, to, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(to, "telemetry")); err == nil {
		t.Error("the time series are in the backup")
	}

	d := serveIn(t, to)
	if d.password != "" {
		t.Error("the restored server takes itself for a new one")
	}
	for path, wants := range map[string][]string{
		"/api/v1/boards":             {`"board":"dock-1"`, `"board":"dock-2"`, "hall-4"},
		"/api/v1/boards/dock-1/meta": {`"site":"hall-4"`, `"line":"4"`},
		"/api/v1/alert-rules":        {`"id":"hot"`, "temp.tj", "fulmar.board-unreachable"},
		"/api/v1/webhooks":           {`"name":"desk"`, "https://desk.example.org/hook"},
		"/api/v1/rollouts":           {r.ID, `"release":"1.9"`},
		"/api/v1/releases/1.9":       {`"state":"ready"`, `"trusted":true`, `"have":25`},
		"/api/v1/users":              {"admin", "kern", "operator"},
		"/api/v1/audit":              {"set-meta", "hall-4"},
		"/metrics":                   {"fulmar_fleet_boards_connected 0", "fulmar_telemetry_rows_behind"},
	} {
		code, body := d.do(t, http.MethodGet, path, admin, "")
		for _, w := range wants {
			if code != http.StatusOK || !strings.Contains(body, w) {
				t.Errorf("%s: %d, wants %s in %.600s", path, code, w, body)
			}
		}
		if strings.Contains(body, "hall-5") {
			t.Errorf("%s knows what came after the backup", path)
		}
	}
	p := d.stranger(t)
	p.post("/login", url.Values{"user": {"kern"}, "password": {longWord}})
	if p.cookie(cookieName) == "" || !strings.Contains(p.get("/"), "hall-4") {
		t.Error("a user with a settled password cannot log in, or sees no site")
	}
	if q, err := d.reg.Meta().Queries(t.Context(), registry.DefaultTenant); err != nil || len(q) != 1 {
		t.Errorf("saved queries %v, %v", q, err)
	}
	var log bytes.Buffer
	if _, err := d.book.Export(t.Context(), &log); err != nil || log.Len() == 0 {
		t.Errorf("the audit log is not whole: %v", err)
	}
	if k, _ := d.keys.KeySet(); k != 2 || d.keys.Ready(trust.RoleDirector) != nil || d.keys.Ready(trust.RoleFreshness) != nil {
		t.Errorf("key set %d, or a key of it is not here", k)
	}
	r2, err := d.rolls.Get(t.Context(), registry.DefaultTenant, r.ID)
	if err != nil || r2.State != "planned" {
		t.Fatalf("%+v, %v", r2, err)
	}
	if _, err := d.rolls.Act(t.Context(), ann, r.ID, r2.Version, rest.RolloutAction{Do: "abort"}); err != nil {
		t.Errorf("a restored rollout cannot be ended: %v", err)
	}
}
