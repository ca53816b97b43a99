// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/cmd/fulmar/fault"
	"fulmar/schema/onboard"
)

// TestBundle: what is told at the end of a bundle is what is true, with its code.
func TestBundle(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		want string
		word string
		busy bool
		args []string
	}{
		"gone back from":   {want: "[FLT0814]\n", word: "rolled-back"},
		"not over in time": {want: "[FLT0815]\n", busy: true, args: []string{"--timeout", "1s"}},
		"it runs":          {word: "committed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l, err := net.Listen("unix", filepath.Join(dir, "s"))
			if err != nil {
				t.Fatal(err)
			}
			u := onboard.Updates{Components: []onboard.Component{{Name: "agent", Version: "2.0", Word: c.word, Reason: "launcher: it fell"}}}
			if c.busy {
				u.Work = &onboard.Update{Component: "agent", Release: "2.0", Act: "install", State: "trial"}
			}
			mux := http.NewServeMux()
			mux.HandleFunc("POST "+onboard.BundlePath, func(w http.ResponseWriter, r *http.Request) {
				if b, err := io.ReadAll(r.Body); err != nil || string(b) != "a bundle" {
					t.Errorf("%q, %v", b, err)
				}
				_ = json.NewEncoder(w).Encode(onboard.Taken{Release: "2.0", Components: []string{"agent"}})
			})
			mux.HandleFunc("GET /v1/updates", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(u) })
			srv := &http.Server{Handler: mux}
			go func() { _ = srv.Serve(l) }()
			t.Cleanup(func() { _ = srv.Close() })
			file := filepath.Join(dir, "f")
			if err := os.WriteFile(file, []byte("a bundle"), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := Command()
			var out bytes.Buffer
			cmd.SetOut(&out)
			cmd.SetErr(&out)
			cmd.SetArgs(append([]string{"install-bundle", file, "--watch", "--socket", filepath.Join(dir, "s")}, c.args...))
			cmd.SilenceErrors, cmd.SilenceUsage = true, true
			err = cmd.ExecuteContext(t.Context())
			got := ""
			if row, ok := fault.Of(err); ok {
				got = "[" + string(row.Code) + "]\n"
			}
			if got != c.want {
				t.Errorf("%v\n%s", err, out.String())
			}
		})
	}
}

// TestPicture: the present state is marked, all of it fits the width, and nothing that a
// board says steers the terminal.
func TestPicture(t *testing.T) {
	t.Parallel()
	u := onboard.Updates{
		Components: []onboard.Component{{Name: "agent", Version: "1.0", Release: "1.0", Word: "committed"}},
		Work: &onboard.Update{
			Rollout: "r-1", Component: "agent", Release: "2.0", Act: "install", State: "fetching", Progress: 47, Since: 5, Ends: 600, Reason: "\x1b[2Ja window",
		},
		Hold: 7200, HoldBy: "local/anna", Blocked: []string{"temperature: hot"}, Floor: 3, Waiting: []onboard.Update{{Act: "install", Component: "model/m", Release: "7"}},
	}
	for _, width := range []int{minWidth, 80, 200} {
		text := strings.Join(newView(u, width, func(_, w string) string { return w }).lines(), "\n")
		for _, want := range []string{"[fetching]", "47 %", "epoch 3", "waits", "hold"} {
			if !strings.Contains(text, want) {
				t.Errorf("%d columns: no %q in\n%s", width, want, text)
			}
		}
		if strings.Contains(text, "\x1b") {
			t.Errorf("%q", text)
		}
		for l := range strings.SplitSeq(text, "\n") {
			if len([]rune(l)) > width {
				t.Errorf("%d columns: %q", width, l)
			}
		}
	}
}
