// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/cmd/fulmar/fault"
	"fulmar/schema/onboard"
)

// boardAnswers serves a socket that answers each order as it is told to: what a real board
// says of these cannot be brought about at will (tests/cli has those that can).
func boardAnswers(t *testing.T, status int, answer any) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "c") // short: names of sockets are
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, onboard.Socket)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/kinds", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`[{"name":"restart","lane":"normal","effect":"starts anew"}]`))
	})
	mux.HandleFunc("POST /v1/commands", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(answer)
	})
	srv := &http.Server{Handler: mux}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() {
		_ = srv.Close()
		_ = os.RemoveAll(dir)
	})
	return path
}

// boardCodes are those that come of answers of a board, each with its exit code.
func boardCodes(t *testing.T) map[string]bool {
	t.Helper()
	seen := map[string]bool{}
	step := func(state string) any {
		return onboard.Step{ID: strings.Repeat("ab", 16), State: state, Code: "why", Final: true}
	}
	for _, c := range []struct {
		status int
		answer any
		code   string
		exit   int
	}{
		{200, step("done"), "", 0},
		{200, step("refused"), "FLT0804", fault.ExitRefused},
		{200, step("failed"), "FLT0805", fault.ExitFailed},
		{200, step("expired"), "FLT0806", fault.ExitExpired},
		{200, step("cancelled"), "FLT0807", fault.ExitCancelled},
		{200, step("unknown"), "FLT0808", fault.ExitAway},
		{403, onboard.Problem{Code: onboard.NotAllowed, Text: "no"}, "FLT0803", fault.ExitDenied},
		{403, onboard.Problem{Code: onboard.NotSigned, Text: "no"}, "FLT0809", fault.ExitDenied},
		{403, onboard.Problem{Code: onboard.Challenged, Text: "no"}, "FLT0809", fault.ExitDenied},
		{404, onboard.Problem{Code: onboard.NotKnown, Text: "no"}, "FLT0810", fault.ExitNone},
		{409, onboard.Problem{Code: "not-alone", Text: "no"}, "FLT0804", fault.ExitRefused},
		{503, onboard.Problem{Code: onboard.TooMany, Text: "no"}, "FLT0811", fault.ExitWrong},
		{503, onboard.Problem{Code: onboard.NotReady, Text: "no"}, "FLT0812", fault.ExitConflict},
		{500, "what is this", "FLT0811", fault.ExitWrong},
		{200, "what is this", "FLT0801", fault.ExitAway},
	} {
		code, _, errs := run("local", "give", "restart", "--socket", boardAnswers(t, c.status, c.answer))
		if code != c.exit || codeOf(errs) != c.code {
			t.Errorf("%d %+v: ends with %d, %s, wants %d %s", c.status, c.answer, code, errs, c.exit, c.code)
		}
		seen[c.code] = true
	}
	link := filepath.Join(t.TempDir(), "link.sock")
	if err := os.Symlink(boardAnswers(t, 200, step("done")), link); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := run("local", "status", "--socket", link); code != fault.ExitWrong || codeOf(errs) != "FLT0813" {
		t.Errorf("a link: %d %s", code, errs)
	}
	seen["FLT0813"] = true
	return seen
}
