// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/internal/cli"
	"fulmar/schema/rest"
)

// fleet is a server that speaks as the API does, and a client of it.
func fleet(t *testing.T, h http.HandlerFunc) (*Client, *httptest.Server) {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	c, err := newClient(s.Listener.Addr().String(), "fk1_secret", &Flags{pin: pinOf(s)})
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

func pinOf(s *httptest.Server) string {
	sum := sha256.Sum256(s.Certificate().Raw)
	return hex.EncodeToString(sum[:])
}

// TestProblems: every code of the fleet comes out as it is, with the exit code of its
// class, and what it says to do.
func TestProblems(t *testing.T) {
	t.Parallel()
	var row rest.CodeRow
	c, _ := fleet(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(row.Status)
		_ = json.NewEncoder(w).Encode(rest.Problem{
			Code: string(row.Code), Title: row.Title, Status: row.Status, Do: row.Do, Detail: "Because of x", Errors: []rest.Fault{{Pointer: "/name", Detail: "too long"}},
		})
	})
	for _, row = range rest.Codes() {
		err := c.Get(t.Context(), "/x", nil, nil)
		got, ok := fault.Of(err)
		if !ok || string(got.Code) != string(row.Code) || got.Exit != fault.ExitOf(row.Status) || StatusOf(err) != row.Status {
			t.Errorf("%s became %+v", row.Code, got)
		}
		if text := err.Error(); !strings.Contains(text, ": because of x") || !strings.Contains(text, "\n  /name  too long") {
			t.Errorf("%s is told as %q", row.Code, text)
		}
	}
	for status, want := range map[int]fault.Code{403: fault.Denied, 404: fault.NotThere, 412: fault.Conflict, 500: fault.Refused} {
		row = rest.CodeRow{Code: "FLT1999", Status: status, Title: "Something new"}
		if err := c.Get(t.Context(), "/x", nil, nil); !fault.Is(err, want) {
			t.Errorf("a code of a newer fleet with %d is %v", status, err)
		}
	}
}

// TestAnswers: what is no answer of a fleet is told as that, and bounded.
func TestAnswers(t *testing.T) {
	t.Parallel()
	body, status := "", 200
	c, _ := fleet(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer fk1_secret" {
			t.Error("no token")
		}
		w.Header().Set("Location", "https://elsewhere.example/")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	})
	var v any
	for _, x := range []struct {
		status int
		body   string
		code   fault.Code
		says   string
	}{
		{200, "<html>", fault.Unreachable, "not JSON"},
		{500, "<html>", fault.Refused, "is it a fleet?"},
		{302, "", fault.Refused, "302"}, // the token is not carried elsewhere
		{200, strings.Repeat("a", maxAnswer+1), fault.Unreachable, "over"},
	} {
		status, body = x.status, x.body
		if err := c.Get(t.Context(), "/x", nil, &v); !fault.Is(err, x.code) || !strings.Contains(err.Error(), x.says) || strings.Contains(err.Error(), "fk1_") {
			t.Errorf("%d %.10q: %.200v", x.status, x.body, err)
		}
	}
}

// TestAll: a list is read page by page, to its end or to a limit, and not for ever.
func TestAll(t *testing.T) {
	t.Parallel()
	endless := false
	c, _ := fleet(t, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		var first, size int
		_, _ = fmt.Sscan(q.Get("page_token"), &first)
		_, _ = fmt.Sscan(q.Get("page_size"), &size)
		page := rest.List[int]{Items: []int{}}
		for i := first; i < min(first+size, 2500); i++ {
			page.Items = append(page.Items, i)
		}
		if first+size < 2500 || endless {
			page.Next = fmt.Sprint(first + size)
		}
		if q.Get("q") != "a b&c" {
			t.Error("the query was lost")
		}
		_ = json.NewEncoder(w).Encode(page)
	})
	q := url.Values{"q": {"a b&c"}}
	for limit, want := range map[int]int{0: 2500, 7: 7, 1500: 1500} {
		got, err := All[int](t.Context(), c, "/x", q, limit)
		if err != nil || len(got) != want || got[want-1] != want-1 {
			t.Errorf("limit %d: %d rows, %v", limit, len(got), err)
		}
	}
	if len(q) != 1 {
		t.Error("the caller's query was changed")
	}
	endless = true
	if _, err := All[int](t.Context(), c, "/x", q, 0); !fault.Is(err, fault.Refused) {
		t.Errorf("an endless list: %v", err)
	}
}

// login runs fulmar login or logout with what comes on standard input.
func run(in string, args ...string) (talk string, err error) {
	root := cli.Root(&cobra.Command{Use: "fulmar"}, "test")
	root.AddCommand(LoginCommand(), LogoutCommand())
	root.SetIn(strings.NewReader(in))
	var out, errs bytes.Buffer
	_, err = cli.Execute(context.Background(), root, args, &out, &errs)
	return errs.String(), err
}

// TestLogin: a log-in is kept for the user alone, stands in where nothing else is said,
// is for no other fleet, and never shows its token.
func TestLogin(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	for _, v := range []string{"FULMAR_FLEET", "FULMAR_TOKEN_FILE", "FULMAR_PIN"} {
		t.Setenv(v, "")
	}
	asked := 0
	_, s := fleet(t, func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.Header.Get("Authorization") != "Bearer fk1_good" {
			w.WriteHeader(401)
			_ = json.NewEncoder(w).Encode(rest.Problem{Code: string(rest.CodeNotLoggedIn), Title: "Log in"})
			return
		}
		_ = json.NewEncoder(w).Encode(rest.Me{Tenant: "default", Who: "token desk", Rights: rest.Viewer.Rights()})
	})
	address := s.Listener.Addr().String()
	if _, err := (&Flags{}).Open(); err == nil || !strings.Contains(err.Error(), "fulmar login") {
		t.Errorf("without a log-in: %v", err)
	}
	if talk, err := run("fk1_bad\n", "login", address, "--pin", pinOf(s)); err == nil || strings.Contains(talk+err.Error(), "fk1_bad") {
		t.Errorf("a bad token: %s, %v", talk, err)
	}
	if _, err := run("password\n", "login", address, "--pin", pinOf(s)); !fault.Is(err, fault.Token) {
		t.Errorf("no token: %v", err)
	}
	before := asked
	if _, err := run("fk1_good\n", "login", address, "--pin", strings.Repeat("00", 32)); !fault.Is(err, fault.Stranger) || asked != before {
		t.Errorf("a stranger: %v, and it was sent the token: %v", err, asked != before)
	}
	if _, err := os.Stat(filepath.Join(dir, "fulmar", "fleet.json")); !os.IsNotExist(err) {
		t.Fatal("something was kept of a log-in that failed")
	}
	talk, err := run("fk1_good\n", "login", address, "--pin", pinOf(s))
	if err != nil || !strings.Contains(talk, "token desk of default, who may boards:read") || strings.Contains(talk, "fk1_") {
		t.Fatalf("%s, %v", talk, err)
	}
	path := filepath.Join(dir, "fulmar", "fleet.json")
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatal(st, err)
	}
	c, err := (&Flags{}).Open()
	if err != nil || c.token != "fk1_good" || c.Page("/x") != "https://"+address+"/x" {
		t.Fatalf("%+v, %v", c, err)
	}
	if _, err := (&Flags{address: "other.example:8443"}).Open(); err == nil || !strings.Contains(err.Error(), "which token?") {
		t.Errorf("the token of one fleet for another: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := (&Flags{}).Open(); !fault.Is(err, fault.Token) {
		t.Errorf("a log-in that others may read: %v", err)
	}
	if _, err := run("", "logout"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Error("the log-in is still there")
	}
	if talk, err := run("", "logout"); err != nil || !strings.Contains(talk, "nobody") {
		t.Error(talk, err)
	}
}
