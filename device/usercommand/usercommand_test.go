// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package usercommand

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/device/child"
	"fulmar/internal/exetest"
)

// TestMain is fulmard where a command is bounded.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == child.Word {
		os.Exit(child.Become(os.Args[2:], os.Stderr))
	}
	os.Exit(m.Run())
}

// shop is a folder of manifests, and of programs.
type shop struct {
	t   *testing.T
	dir string
}

func newShop(t *testing.T) shop {
	t.Helper()
	// Not t.TempDir: the user that runs the programs has to come in.
	dir, err := os.MkdirTemp("", "o-shop")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	s := shop{t, dir}
	s.put("self", string(b), 0o755)
	return s
}

func (s shop) put(name, text string, mode os.FileMode) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := exetest.Write(path, []byte(text), mode); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s shop) load() ([]*Command, error) { return Load(s.dir, filepath.Join(s.dir, "self")) }

// flush is a manifest that is good, with more lines behind.
func (s shop) flush(program, more string) string {
	path := s.put("program", "#!/bin/bash\n"+program, 0o755)
	return "name: flush-filter\neffect: opens the flush valve\nrun: " + path + "\nuser: nobody\nmemory_mib: 256\n" + more
}

func TestDo(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.put("a.yaml", s.flush("read -r q; echo \"{\\\"heard\\\": $q, \\\"who\\\": \\\"$(id -u)\\\"}\"", "args: [{name: seconds, type: integer, min: 1, max: 60, required: true}, {name: line, type: text, one_of: [north, south]}]\n"), 0o644)
	all, err := s.load()
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	c := all[0]
	if c.Lane != Normal || c.Timeout != 30*time.Second {
		t.Errorf("%+v", c.Manifest)
	}
	got, err := c.Do(t.Context(), Call{ID: "00ff", Actor: "local/anna", Args: map[string]any{"seconds": uint64(5), "line": "north"}})
	if err != nil {
		t.Fatal(err)
	}
	b, _ := json.Marshal(got["heard"])
	if string(b) != `{"actor":"local/anna","again":false,"args":{"line":"north","seconds":5},"ask":"do","command":"flush-filter","id":"00ff"}` {
		t.Error(string(b))
	}
	if os.Geteuid() == 0 && got["who"] == "0" {
		t.Error("it ran as root")
	}
	for _, args := range []map[string]any{
		nil, {"seconds": 0}, {"seconds": 61}, {"seconds": 1.5}, {"seconds": "5"}, {"seconds": 5, "line": "east"}, {"seconds": 5, "line": 3}, {"seconds": 5, "volume": 1},
	} {
		if err := c.Check(args); err == nil {
			t.Error("taken:", args)
		}
		if _, err := c.Do(t.Context(), Call{Args: args}); err == nil {
			t.Error("done:", args)
		}
	}
	// Who could change the program since the start could do what he likes.
	if err := os.Chmod(c.program, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do(t.Context(), Call{Args: map[string]any{"seconds": 5}}); err == nil || !strings.Contains(err.Error(), "others may write it") {
		t.Error(err)
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ program, more, want string }{
		"nothing": {":", "", ""},
		"list":    {"echo '[1]'", "", "no JSON object"},
		"two":     {"echo '{} {}'", "", "no JSON object"},
		"fails":   {"echo stuck >&2; exit 4", "", "exit status 4: stuck"},
		"long":    {"head -c 5000 /dev/zero | tr '\\0' x", "", "more than it may"},
		"slow":    {"sleep 60", "timeout: 1s\n", "was ended"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			s.put("a.yaml", s.flush(c.program, c.more), 0o644)
			all, err := s.load()
			if err != nil {
				t.Fatal(err)
			}
			_, err = all[0].Do(t.Context(), Call{})
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, wants %q", err, c.want)
			}
		})
	}
}

func TestWhetherHappened(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.put("a.yaml", s.flush("grep -q '\"ask\":\"happened\"' && echo '{\"happened\": true, \"value\": {\"level\": 3}}'", "happened: true\n"), 0o644)
	all, err := s.load()
	if err != nil {
		t.Fatal(err)
	}
	did, value, err := all[0].WhetherHappened(t.Context(), Call{Again: true})
	if !did || value["level"] != 3.0 || err != nil {
		t.Error(did, value, err)
	}
	s.put("program", "#!/bin/bash\necho '{}'", 0o755)
	if _, _, err := all[0].WhetherHappened(t.Context(), Call{}); err == nil {
		t.Error("an answer that says nothing was taken")
	}
	all[0].Happened = false
	if _, _, err := all[0].WhetherHappened(t.Context(), Call{}); err == nil {
		t.Error("one that cannot tell was asked")
	}
}

// TestLoad: a bad manifest is said and harms no other.
func TestLoad(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	good := s.flush(":", "")
	s.put("a.yaml", good, 0o644)
	s.put("ignored.txt", "x", 0o644)
	for name, text := range map[string]string{
		"is in":               good,
		"unknown field":       strings.Replace(good, "flush-filter", "b", 1) + "shell: true\n",
		"name: \"B\"":         strings.Replace(good, "flush-filter", "B", 1),
		"not an absolute":     "name: b\neffect: x\nrun: here\n",
		"no such file":        "name: b\neffect: x\nrun: /nowhere/x\n",
		"wants normal":        strings.Replace(good, "flush-filter", "b", 1) + "lane: safety\n",
		"at most 1m0s":        strings.Replace(good, "flush-filter", "b", 1) + "timeout: 5m\n",
		"at most one":         strings.Replace(good, "flush-filter", "b", 1) + "repeat: true\nhappened: true\n",
		"a number has":        strings.Replace(good, "flush-filter", "b", 1) + "args: [{name: x, type: number}]\n",
		"wants number":        strings.Replace(good, "flush-filter", "b", 1) + "args: [{name: x, type: float}]\n",
		"there twice":         strings.Replace(good, "flush-filter", "b", 1) + "args: [{name: x, type: bool}, {name: x, type: bool}]\n",
		"never run as root":   strings.Replace(strings.Replace(good, "flush-filter", "b", 1), "nobody", "root", 1),
		"max_output":          strings.Replace(good, "flush-filter", "b", 1) + "max_output: 100000\n",
		"is over 16384 bytes": strings.Repeat("#", maxManifest+1),
	} {
		s.put("b.yaml", text, 0o644)
		all, err := s.load()
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "b.yaml") {
			t.Errorf("got %v, wants %q", err, name)
		}
		if len(all) != 1 {
			t.Errorf("%s: %d commands, wants the good one", name, len(all))
		}
	}
	s.put("b.yaml", strings.Replace(good, "flush-filter", "b", 1), 0o666)
	if all, err := s.load(); len(all) != 1 || err == nil || !strings.Contains(err.Error(), "others may write it") {
		t.Error(all, err)
	}
	if err := os.Remove(filepath.Join(s.dir, "b.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if all, err := s.load(); len(all) != 0 || err == nil {
		t.Error("a folder that others may write was taken", all, err)
	}
	if err := os.Chmod(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(filepath.Join(s.dir, "a.yaml"), 65534, 0); err != nil {
			t.Fatal(err)
		}
		if all, err := s.load(); len(all) != 0 || err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
			t.Error(all, err)
		}
	}
	if all, err := Load("/nowhere", ""); all != nil || err != nil {
		t.Error(all, err)
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte("name: a\neffect: x\nrun: /bin/true\nargs: [{name: x, type: number, min: 0, max: 1}]\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		if err == nil && m.Validate() != nil {
			t.Error("parse gave a manifest that Validate refuses")
		}
	})
}
