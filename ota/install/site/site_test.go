// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package site

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fulmar/device/child"
	"fulmar/internal/exetest"
	"fulmar/ota"
	"fulmar/ota/install/installtest"
	"fulmar/ota/release"
)

// TestMain is fulmard where the program is bounded.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == child.Word {
		os.Exit(child.Become(os.Args[2:], os.Stderr))
	}
	os.Exit(m.Run())
}

// place is a folder that the program's user may enter, with its state in it.
type place struct {
	t       *testing.T
	dir     string
	restart string
	program *Program
}

func newPlace(t *testing.T, text, restart string) *place {
	t.Helper()
	dir, err := os.MkdirTemp("", "o-site")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &place{t: t, dir: dir, restart: restart}
	state := filepath.Join(dir, "state")
	p.must(os.Chmod(dir, 0o755))
	p.must(os.Mkdir(state, 0o755))
	if os.Geteuid() == 0 {
		p.must(os.Chown(state, 65534, 65534))
	}
	text = strings.NewReplacer("@STATE@", state, "@RESTART@", restart).Replace(text)
	p.must(exetest.Write(filepath.Join(dir, "program"), []byte(text), 0o755))
	p.manifest("")
	return p
}

func (p *place) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// manifest writes it and loads it, with more lines.
func (p *place) manifest(more string) {
	p.t.Helper()
	path := filepath.Join(p.dir, "rootfs.yaml")
	p.must(os.WriteFile(path, []byte("component: rootfs\nrun: "+filepath.Join(p.dir, "program")+"\nuser: nobody\n"+more), 0o644))
	var err error
	p.program, err = Load(path, p.self())
	p.must(err)
}

// self is this test where the program's user may start it.
func (p *place) self() string {
	p.t.Helper()
	path := filepath.Join(p.dir, "fulmard")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	from, err := os.Executable()
	p.must(err)
	b, err := os.ReadFile(from)
	p.must(err)
	p.must(exetest.Write(path, b, 0o755))
	return path
}

func (p *place) Installer() ota.Installer { return p.program }

func (p *place) Restart(ota.Restart) { p.manifest("") }

func (p *place) Component(version string) (*release.Component, map[string]string) {
	c, paths := installtest.Files(p.t, "rootfs", version, map[string]string{"image.raucb": "image " + version})
	for name, from := range paths { // where the program's user may read
		b, err := os.ReadFile(from)
		p.must(err)
		paths[name] = filepath.Join(p.dir, version+"-"+name)
		p.must(os.WriteFile(paths[name], b, 0o644))
	}
	return c, paths
}

func (p *place) Runs() string {
	token, err := os.ReadFile(filepath.Join(p.dir, "state", "current"))
	if err != nil || len(token) == 0 {
		return ""
	}
	b, err := os.ReadFile(filepath.Join(p.dir, "state", "staged", string(token)))
	if err != nil {
		return err.Error()
	}
	return strings.TrimPrefix(string(b), "image ")
}

func program(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("testdata/program.sh")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestConformance(t *testing.T) {
	t.Parallel()
	installtest.Run(t, func(t *testing.T) installtest.Subject { return newPlace(t, program(t), "machine") })
}

// TestRestart: a program starts the machine anew, or says that it cannot.
func TestRestart(t *testing.T) {
	t.Parallel()
	p := newPlace(t, program(t), "machine")
	var r ota.Restarter = p.program
	p.must(r.Restart(t.Context(), "an update"))
	if b, err := os.ReadFile(filepath.Join(p.dir, "state", "restarted")); err != nil || string(b) != "an update" {
		t.Errorf("%q, %v", b, err)
	}
	r = newPlace(t, program(t), "none").program
	if err := r.Restart(t.Context(), "an update"); err == nil || !strings.Contains(err.Error(), "not mine to do") {
		t.Error(err)
	}
}

func TestFull(t *testing.T) {
	t.Parallel()
	p := newPlace(t, program(t), "none")
	installtest.Full(t, p, "2.0", func() func() {
		full := filepath.Join(p.dir, "state", "full")
		p.must(os.WriteFile(full, nil, 0o644))
		return func() { p.must(os.Remove(full)) }
	})
}

// TestAnswers: what a program may say, and what becomes of one that hangs, floods or dies.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		want string
	}{
		"hangs":                {"sleep 60", "ended"},
		"says too much":        {"yes", "more than it may"},
		"fails":                {"echo the bundle is not for this board >&2; exit 3", "the bundle is not for this board"},
		"is killed":            {"kill -9 $$", "killed"},
		"no standing":          {"", "wants not-yet"},
		"another standing":     {`echo '{"standing":"happy"}'`, "wants not-yet"},
		"no JSON":              {"echo in force", "not JSON"},
		"unknown words":        {`echo '{"standing":"in-force","more":1}'`, "unknown field"},
		"two objects":          {`echo '{"standing":"in-force"}{}'`, "more after"},
		"a version of nothing": {`echo '{"standing":"in-force","version":"../x"}'`, "version"},
		"full":                 {"exit 28", "no space left"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, "#!/bin/sh\n"+c.text+"\n", "none")
			p.manifest("timeout: 2s\nmemory_mib: 64\n")
			begin := time.Now()
			s, _, err := p.program.Look(t.Context(), "1.0-0123456789abcdef")
			if err == nil || s != ota.NotYet || !strings.Contains(err.Error(), c.want) || time.Since(begin) > 20*time.Second {
				t.Errorf("%v, %v after %v; wants %q", s, err, time.Since(begin), c.want)
			}
			if name == "full" && !errors.Is(err, syscall.ENOSPC) {
				t.Error(err)
			}
		})
	}
	p := newPlace(t, "#!/bin/sh\nprintf '%s' '{\"standing\":\"fallen\",\"why\":\"a  b\\n'\"$(head -c 900 /dev/zero | tr '\\0' x)\"'\"}'\n", "none")
	s, why, err := p.program.Look(t.Context(), "1.0-0123456789abcdef")
	if s != ota.Fallen || err != nil || len(why) != maxWhy || !strings.HasPrefix(why, "a b x") {
		t.Errorf("%v, %q, %v", s, why, err)
	}
	silent := newPlace(t, "#!/bin/sh\n", "none")
	c, paths := silent.Component("1.0")
	if need, free, err := silent.program.Space(t.Context(), c); err != nil || need != c.Files[0].Size || free != math.MaxInt64 {
		t.Errorf("%d of %d, %v", need, free, err)
	}
	if token, err := silent.program.Stage(t.Context(), c, paths); err != nil || token == "" {
		t.Errorf("%q, %v", token, err)
	}
}

// TestTrust: a program or manifest that others may change is not run.
func TestTrust(t *testing.T) {
	t.Parallel()
	p := newPlace(t, program(t), "none")
	p.must(os.Chmod(filepath.Join(p.dir, "program"), 0o777))
	if _, err := p.program.Running(t.Context()); err == nil || !strings.Contains(err.Error(), "others may write it") {
		t.Error(err)
	}
	if _, err := Load(filepath.Join(p.dir, "rootfs.yaml"), p.self()); err == nil || !strings.Contains(err.Error(), "others may write it") {
		t.Error(err)
	}
	for text, want := range map[string]string{
		"component: rootfs\nrun: x\n":                      "absolute",
		"component: kernel\nrun: /x\n":                     "component",
		"component: rootfs\nrun: /x\nuser: root\n":         "root",
		"component: rootfs\nrun: /x\ntimeout: 2h\n":        "timeout",
		"component: rootfs\nrun: /x\nmemory_mib: 0\n":      "memory_mib",
		"component: rootfs\nrun: /x\nshell: true\n":        "shell",
		"component: rootfs\nrun: /x\nstage_timeout: -1s\n": "stage_timeout",
		"- a\n": "",
		strings.Repeat("# a long comment\n", maxManifest/16) + "": "over",
	} {
		if m, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %+v, %v; wants %q", text, m, err, want)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	for _, s := range []string{`{"standing":"in-force","why":"x"}`, `{"version":"1.0","need":1,"free":2}`, `{"restart":"machine"}`, "", "{}", "[]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := decodeAnswer(b)
		if err == nil && (len(a.Why) > maxWhy || strings.ContainsAny(a.Why, "\n\t") || a.Version != "" && !release.Name(a.Version)) {
			t.Errorf("%q gives %+v", b, a)
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte("component: rootfs\nrun: /x\ntimeout: 2s\nuser: nobody\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := Parse(b); err == nil && (!release.ComponentName(m.Component) || !filepath.IsAbs(m.Run) || m.Timeout <= 0 || m.MemoryMiB < 1 || m.User == "root") {
			t.Errorf("%q gives %+v", b, m)
		}
	})
}
