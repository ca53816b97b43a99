// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/cmd/fulmar/here"
)

// missing leaves a test out where the machine has no terminals; in CI it has.
func missing(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	t.Skip(err)
}

// terminal is a new pair of ends of one.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		missing(t, err)
	}
	t.Cleanup(func() { _ = person.Close() })
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		missing(t, err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return person, program
}

func echoes(t *testing.T, f *os.File) bool {
	t.Helper()
	m, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return m.Lflag&unix.ECHO != 0
}

// TestAsk: what is pasted is not shown, and the terminal is as before, however it ends.
func TestAsk(t *testing.T) {
	t.Parallel()
	person, program := terminal(t)
	var talk bytes.Buffer
	type answer struct {
		text string
		err  error
	}
	ask := func(ctx context.Context) chan answer {
		got := make(chan answer, 1)
		go func() {
			s, err := askHidden(ctx, program, &talk)
			got <- answer{s, err}
		}()
		for end := time.Now().Add(10 * time.Second); echoes(t, program); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("what is typed is shown")
			}
		}
		return got
	}
	got := ask(t.Context())
	if _, err := person.WriteString("fe1_SECRET\n"); err != nil {
		t.Fatal(err)
	}
	if a := <-got; a.text != "fe1_SECRET" || a.err != nil {
		t.Errorf("%+v", a)
	}
	if !echoes(t, program) || strings.Contains(talk.String(), "SECRET") || !strings.HasSuffix(talk.String(), "\n") {
		t.Errorf("after the answer: echo %v, %q", echoes(t, program), &talk)
	}
	ctx, stop := context.WithCancel(t.Context())
	got = ask(ctx)
	stop()
	if a := <-got; !errors.Is(a.err, context.Canceled) || !echoes(t, program) {
		t.Errorf("interrupted: %+v, echo %v", a, echoes(t, program))
	}
}

// TestFresh: what a fulmard says that was there before the start is not listened to.
func TestFresh(t *testing.T) {
	t.Parallel()
	c := &here.Config{Data: t.TempDir()}
	path := c.Data + "/status.sock"
	put := func(at time.Time) {
		t.Helper()
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	r := &run{shown: &here.Shown{Config: *c}}
	if w, err := r.watch(); err != nil || !w.isFresh() {
		t.Error("nothing was there before, so what comes is new", err)
	}
	put(time.Unix(1000, 0))
	w, err := r.watch()
	if err != nil || w.isFresh() {
		t.Error("the same socket is taken for a new one", err)
	}
	if err := os.Remove(path); err != nil || w.isFresh() {
		t.Error("no socket is taken for a new one", err)
	}
	put(time.Unix(2000, 0))
	if !w.isFresh() {
		t.Error("a new socket is not seen")
	}
}

func TestReadLine(t *testing.T) {
	t.Parallel()
	if s, err := readLine(strings.NewReader("  fe1_x \nmore")); s != "fe1_x" || err != nil {
		t.Error(s, err)
	}
	if _, err := readLine(strings.NewReader("\n")); !errors.Is(err, ErrUsage) {
		t.Error(err)
	}
	if s, _ := readLine(strings.NewReader(strings.Repeat("a", 1<<20))); len(s) > 1000 {
		t.Errorf("%d bytes", len(s))
	}
}

// health is a board that the fleet answered.
func health(t *testing.T, refusal, cause string) *here.Health {
	t.Helper()
	b, err := json.Marshal(map[string]any{"causes": []string{"worker: x", cause}, "identity": map[string]string{"state": "enrolling", "refusal": refusal}})
	if err != nil {
		t.Fatal(err)
	}
	h := new(here.Health)
	if err := json.Unmarshal(b, h); err != nil {
		t.Fatal(err)
	}
	return h
}

// TestRefusals: each no of the fleet says what to do, and what may become a yes is waited
// for.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]string{
		"token": "fulmar-fleet token", "name-taken": "--board NAME", "elsewhere": "fulmar board wipe", "revoked": "fulmar-fleet token --board",
		"refused": "approving it there", "needs-tpm": "fulmar tpm info", "csr": "journalctl",
	} {
		f := refused(health(t, code, "link: fleet refused the enrolment (403 Forbidden): No: because (of that): x"), false)
		if f == nil || !strings.Contains(f.Do, want) || f.Because != "No: because (of that): x" || !errors.Is(f, ErrRefused) {
			t.Errorf("%s: %+v", code, f)
		}
	}
	for _, code := range []string{"", "full", "too-many-requests"} {
		if f := refused(health(t, code, "link: later"), false); f != nil {
			t.Errorf("%q ends it: %v", code, f)
		}
	}
	if f := refused(health(t, "token", "link: no"), true); f != nil {
		t.Errorf("with a pin a person is asked: %v", f)
	}
}

func TestFailure(t *testing.T) {
	t.Parallel()
	f := &Failure{What: "a", Because: "b\nc", Do: "d", Is: ErrUnreachable}
	if got := f.Error(); got != "a\n  because b\n          c\n  do      d" {
		t.Errorf("%q", got)
	}
	var out bytes.Buffer
	r := newReport(true, &out, &bytes.Buffer{})
	if err := r.end(f); !errors.Is(err, ErrUnreachable) || !strings.Contains(out.String(), `"because": "b\nc"`) || !strings.Contains(out.String(), `"ok": false`) {
		t.Errorf("%v %s", err, &out)
	}
}
