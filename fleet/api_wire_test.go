// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/ca"
	"fulmar/fleet/registry"
	"fulmar/schema"
	"fulmar/schema/rest"
)

// enrols lets boards in, without their connecting.
func (c *town) enrols(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		_, csr := newCSR(t)
		leaf, err := c.ca.Issue([]byte(csr), registry.DefaultTenant, name, schema.TrustSoftware)
		if err != nil {
			t.Fatal(err)
		}
		secret, err := c.reg.NewJoinToken(t.Context(), registry.DefaultTenant, name, 1, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		e := registry.Enrolment{Secret: secret, Board: name, KeyHash: sha256.Sum256([]byte(name))}
		if _, _, err := c.reg.Enrol(t.Context(), e, func(string) (*ca.Leaf, error) { return leaf, nil }); err != nil {
			t.Fatal(err)
		}
	}
	token := c.apiToken(t, registry.ScopeRead)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) { // the look is of a second ago
		if code, body := c.get(t, "/api/v1/boards/"+names[len(names)-1], token); code == http.StatusOK {
			return
		} else if time.Now().After(end) {
			t.Fatalf("%d %s", code, body)
		}
	}
}

// TestAPIPage: the commands of docs/api.md do what the page says, against a real server.
func TestAPIPage(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("curl is not installed; it runs the commands of docs/api.md")
	}
	page, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	// set -e does not look at what is turned round by !, so that a word of ours does it.
	script := "set -euo pipefail\nrefused() { if \"$@\"; then echo 'was not refused'; exit 1; fi; }\n"
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllSubmatch(page, -1)
	for _, b := range blocks {
		script += regexp.MustCompile(`(?m)^! `).ReplaceAllString(string(b[1]), "refused ") + "echo\n"
	}
	c := serve(t)
	c.enrols(t, "dock-1", "dock-2", "dock-3", "gate-1")
	admin := c.apiToken(t, registry.ScopeAdmin)
	c.soon(t, "/api/v1/boards?count=true", admin, `"total":4`)
	dir := t.TempDir()
	for name, text := range map[string]string{"ca.pem": string(c.ca.PEM()), "token": admin} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "FLEET=https://"+c.HTTPSAddr(), "HOME="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil || len(blocks) < 10 {
		t.Errorf("%d blocks: %v\n%s", len(blocks), err, out)
	}
	text := string(out)
	for _, want := range []string{
		`"name":"wallboard"`, `"secret":"fk1_`, `"next":"`, `"total":4`, `{"board":"dock-1","state":"never-heard"`, `{"board":"gate-1"`, `"column":1`, "did you mean state",
		"board,state,cause", "304\n", `"site":"hall-4"`, string(rest.CodeStale), `"would":"Board dock-1 would be forgotten`, `"what":"wipe"`, string(rest.CodeQuery),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("nothing tells %s in\n%s", want, text)
		}
	}
}

// TestAPILimited: a token that is limited by a query sees the boards of the query, and
// makes none that sees more.
func TestAPILimited(t *testing.T) {
	t.Parallel()
	c := serve(t)
	c.enrols(t, "dock-1", "dock-2", "gate-1")
	admin := c.apiToken(t, registry.ScopeAdmin)
	maker := admin
	for _, boards := range []string{"dock", "not dock-2"} {
		status, body := c.do(t, "POST", "/api/v1/tokens", maker, `{"name":"`+boards[:4]+`","rights":["boards:read","users:write","boards:admit"],"boards":"`+boards+`"}`)
		var made rest.MadeToken
		if err := json.Unmarshal([]byte(body), &made); err != nil || status != 201 {
			t.Fatalf("%d %s", status, body)
		}
		maker = made.Secret
	}
	if status, body := c.do(t, "GET", "/api/v1/boards?count=true", maker, ""); status != 200 || !strings.Contains(body, `"total":1`) || !strings.Contains(body, `"board":"dock-1"`) || strings.Contains(body, "dock-2") {
		t.Errorf("%d %s", status, body)
	}
	for path, want := range map[string]int{"boards/dock-1": 200, "boards/dock-2": 404, "boards/gate-1/ledger": 404, "users": 403, "overview": 200} {
		if status, body := c.do(t, "GET", "/api/v1/"+path, maker, ""); status != want || strings.Contains(body, "gate-1") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, body := c.do(t, "POST", "/api/v1/boards/gate-1/revoke", maker, ""); status != 404 {
		t.Errorf("revoked: %d %s", status, body)
	}
	if status, body := c.do(t, "POST", "/api/v1/users", admin, `{"name":"Ann Other","role":"viewer"}`); status != 422 || !strings.Contains(body, "a name wants") {
		t.Errorf("%d %s", status, body)
	}
	if status, body := c.do(t, "PUT", "/api/v1/users/admin/role", admin, `{"role":"viewer"}`); status != 409 {
		t.Errorf("the last administrator: %d %s", status, body)
	}
}
