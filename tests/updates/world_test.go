// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package updates

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"fulmar/internal/exetest"
	"fulmar/ota/slot"
	"fulmar/schema/onboard"
	"fulmar/tests/local"
)

const (
	board = "dock-1"
	swtpm = "swtpm" // in place of a path: a board with a TPM of its own
)

// world is a fleet, a board that runs out of slots, and a key that signs releases.
type world struct {
	*testing.T
	root, dir string
	site      *local.Site
	api       *local.API
	unit      *unit
	state     string   // folder of slots
	env       []string // of programs that ask the fleet; nil: as the test's
	key       string
}

// missing skips, or under CI fails, for want of a program.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s; run: make build ort", what)
	}
	t.Skipf("%s; run: make build ort", what)
}

// newWorld starts all of it; the board runs version 1.0 of fulmard.
func newWorld(t *testing.T, b local.Board) *world {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(root, "bin")
	lib := filepath.Join(root, ".cache/onnxruntime/1.30.0/linux-"+map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH], "libonnxruntime.so.1")
	for _, p := range []string{"fulmar-fleet", "fulmar", "fulmar-infer"} {
		if _, err := os.Stat(filepath.Join(bin, p)); err != nil {
			missing(t, err.Error())
		}
	}
	w := &world{T: t, root: root, dir: open(t)}
	if w.site, err = local.New(w.dir, bin, lib); err != nil {
		t.Fatal(err)
	}
	if err := w.site.StartFleet(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.site.Fleet.Kill() })
	w.key = filepath.Join(w.dir, "release.pem")
	w.fulmar("key", "new", "--out", w.key)
	public := filepath.Join(w.dir, "release.pub")
	if err := os.WriteFile(public, []byte(w.fulmar("key", "public", "file:"+w.key)), 0o600); err != nil {
		t.Fatal(err)
	}
	w.run(filepath.Join(bin, "fulmar-fleet"), "keys", "add-release", public, "--data", filepath.Join(w.dir, "fleet"))
	w.site.Fleet.Kill() // it reads its key set at its start
	if err := w.site.StartFleet(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.Name = board
	if b.TPM == swtpm {
		chip, path, err := w.site.StartTPM(board)
		if err != nil {
			missing(t, err.Error())
		}
		t.Cleanup(chip.Kill)
		give(t, filepath.Dir(strings.TrimPrefix(path, "unix:")))
		b.TPM = path
	}
	config, err := w.site.PrepareBoard(b)
	if err != nil {
		t.Fatal(err)
	}
	if w.api, err = w.site.API(); err != nil {
		t.Fatal(err)
	}
	launcher := filepath.Join(w.dir, "launch")
	w.state = filepath.Join(w.dir, "state")
	build(t, "./cmd/fulmar-launch", launcher, "release", "1")
	if err := os.Mkdir(w.state, 0o755); err != nil {
		t.Fatal(err)
	}
	give(t, w.state, config, w.site.BoardDir(board))
	out, err := command(launcher, "seed", "--state", w.state, "--from", pack(t, w.dir, "1.0", w.program("1.0", "good"))).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w.unit = startUnit(t, w.dir, launcher, "run", "--state", w.state, slot.Agent, "run", "--config", config)
	w.unit.runs("1.0", 30*time.Second)
	if b.TPM != "" {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		finger, err := w.site.Waiting(ctx, board)
		if err == nil {
			err = w.site.Admit(ctx, board, finger)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if out, err := command(launcher, "confirm", "--state", w.state).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w.up()
	return w
}

// program builds a version of fulmard; good is the real one.
func (w *world) program(version, wrong string) string {
	w.Helper()
	out := filepath.Join(w.dir, "fulmard-"+version)
	args := []string{"build", "-trimpath", "-o", out}
	if wrong == "good" {
		args = append(args, "-ldflags", "-s -w -X main.release="+version, "./cmd/fulmard")
	} else {
		args = append(args, "-ldflags", "-s -w -X main.release="+version+" -X main.wrong="+wrong, "./tests/updates/broken")
	}
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Env = w.root, append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		w.Fatalf("build %s: %v\n%s", version, err, b)
	}
	return out
}

// run runs a program and gives what it printed.
func (w *world) run(program string, args ...string) string {
	w.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = w.env
	out, err := cmd.Output()
	if err != nil {
		text := ""
		if e, ok := err.(*exec.ExitError); ok {
			text = string(e.Stderr)
		}
		w.Fatalf("%s %s: %v\n%s\n%s", filepath.Base(program), strings.Join(args, " "), err, out, text)
	}
	return string(out)
}

func (w *world) fulmar(args ...string) string {
	w.Helper()
	return w.run(filepath.Join(w.root, "bin/fulmar"), args...)
}

// bundle cuts, signs and packs a release of one component.
func (w *world) bundle(name, component, path, version, health string, more ...string) string {
	w.Helper()
	dir, file := filepath.Join(w.dir, "release-"+name), filepath.Join(w.dir, name+".tar")
	args := []string{"release", "create", "--release", name, "--epoch", "1", "--component", component + "=" + path + "@" + version, "--out", dir}
	if health != "" {
		args = append(args, "--health", component+":"+health)
	}
	w.fulmar(append(args, more...)...)
	w.fulmar("release", "sign", "file:"+w.key, dir)
	w.fulmar("release", "bundle", "--out", file, dir)
	return file
}

// desk lets fulmar ask the fleet as an administrator.
func (w *world) desk() {
	w.Helper()
	pin, err := w.site.Pin()
	if err != nil {
		w.Fatal(err)
	}
	token := filepath.Join(w.dir, "token")
	if err := os.WriteFile(token, []byte(w.run(filepath.Join(w.root, "bin/fulmar-fleet"), "api-token", "--scope", "admin", "--for", "1h", "--data", filepath.Join(w.dir, "fleet"))), 0o600); err != nil {
		w.Fatal(err)
	}
	w.env = append(os.Environ(), "FULMAR_FLEET="+w.site.HTTPS, "FULMAR_PIN="+pin, "FULMAR_TOKEN_FILE="+token)
}

// agent is a folder of the component agent.
func (w *world) agent(version, wrong string) string {
	w.Helper()
	dir := filepath.Join(w.dir, "agent-"+version)
	b, err := os.ReadFile(w.program(version, wrong))
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = exetest.Write(filepath.Join(dir, slot.Agent), b, 0o755)
	}
	if err != nil {
		w.Fatal(err)
	}
	return dir
}

// ota is fulmar ota at the board's socket; it gives the exit code.
func (w *world) ota(args ...string) (out string, code int) {
	w.Helper()
	cmd := exec.Command(filepath.Join(w.root, "bin/fulmar"), append(append([]string{"ota"}, args...), "--socket", filepath.Join(w.site.BoardDir(board), onboard.Socket))...)
	b, err := cmd.CombinedOutput()
	if e, ok := err.(*exec.ExitError); ok {
		return string(b), e.ExitCode()
	} else if err != nil {
		w.Fatal(err)
	}
	return string(b), 0
}

// up waits until the board is connected.
func (w *world) up() {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
	defer cancel()
	for ctx.Err() == nil {
		if h, err := w.site.Health(ctx, board); err == nil && h.Link == "up" {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.Fatal("the board does not come up")
}

// told waits until the newest word on a subject at the fleet has this state and text.
func (w *world) told(subject, state, text string) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
	defer cancel()
	last := "nothing"
	for ctx.Err() == nil {
		if b, err := w.api.Board(ctx, board); err == nil {
			for _, r := range b.Reports {
				if r.Subject != subject {
					continue
				}
				if last = r.State + ": " + r.Text; r.State == state && strings.Contains(r.Text, text) {
					return
				}
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.Errorf("of %s the fleet was told %q, wants %s with %q", subject, last, state, text)
}
