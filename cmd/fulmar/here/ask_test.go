// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package here

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
			s, err := AskHidden(ctx, program, &talk, "token: ", 1<<10)
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
