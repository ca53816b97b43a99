// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/inference/engines/cache"
)

// builds serves a socket of builds, each of which goes as its variant says. What it was
// asked for and what became of it come over the channel.
func builds(t *testing.T) (socket string, heard chan string) {
	t.Helper()
	socket, heard = filepath.Join(t.TempDir(), "b"), make(chan string, 16)
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				j, err := ReadRequest(c)
				if err != nil {
					heard <- "bad request: " + err.Error()
					return
				}
				heard <- fmt.Sprintf("asked for %+v", *j)
				fmt.Fprintln(c, `{"progress":{"phase":"a","percent":40,"elapsed_s":120,"left_s":180}}`)
				switch j.Variant {
				case "good":
					fmt.Fprintln(c, `{"done":{"engine":"e"}}`)
				case "refused":
					fmt.Fprintln(c, `{"error":"network refused: no op Foo","code":3}`)
				case "polite":
					_, _ = io.Copy(io.Discard, c)
					heard <- "told to end"
					fmt.Fprintln(c, `{"error":"the build was cancelled","code":8}`)
				case "deaf":
					time.Sleep(5 * time.Second)
				}
			}()
		}
	}()
	return socket, heard
}

// One build in a unit, by the way it ends.
func TestEndsOfAUnit(t *testing.T) {
	t.Parallel()
	job := Job{Path: "/models/m", Cache: "/c", Quota: 7, Options: cache.Options{MaxBatch: 4, Level: -1, DLACore: -1}}
	for _, c := range []struct {
		variant string
		code    int // 0: no error
		text    string
	}{
		{"good", 0, ""},
		{"refused", ExitRefused, "network refused: no op Foo"},
		{"killed", -1, "without a word"},
		{"deaf", -1, "said nothing for 200ms"},
	} {
		t.Run(c.variant, func(t *testing.T) {
			t.Parallel()
			socket, heard := builds(t)
			b := newUnits(t, socket)
			if c.variant == "deaf" {
				b.Hang = 200 * time.Millisecond
			}
			j, s := job, &said{}
			j.Variant = c.variant
			err := b.Build(t.Context(), j, func() int64 { return 0 }, s.say)
			var be *Error
			if (c.code == 0) != (err == nil) || err != nil && (!errors.As(err, &be) || be.Code != c.code || !strings.Contains(be.Text, c.text)) {
				t.Errorf("%v, wants code %d and %q", err, c.code, c.text)
			}
			if got := <-heard; got != fmt.Sprintf("asked for %+v", j) {
				t.Errorf("%s, wants %+v", got, j)
			}
			if !strings.Contains(s.all(), "building, 40 %") {
				t.Errorf("said %q", s.all())
			}
		})
	}
}

// A cancelled build is told to end, and nobody waits for longer than a moment.
func TestUnitIsCancelled(t *testing.T) {
	t.Parallel()
	socket, heard := builds(t)
	b := newUnits(t, socket)
	ctx, cancel := context.WithCancel(t.Context())
	s := &said{heard: func(text string) {
		if strings.HasPrefix(text, "building, ") {
			cancel()
		}
	}}
	err := b.Build(ctx, Job{Path: "builtin:parcels", Variant: "polite", Cache: "/c", Options: cache.Options{MaxBatch: 1}}, func() int64 { return 0 }, s.say)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	<-heard
	select {
	case got := <-heard:
		if got != "told to end" {
			t.Error(got)
		}
	case <-time.After(5 * time.Second):
		t.Error("the build was not told")
	}
}

func TestNoSocketOfBuilds(t *testing.T) {
	t.Parallel()
	b := newUnits(t, filepath.Join(t.TempDir(), "none"))
	err := b.Build(t.Context(), Job{}, func() int64 { return 0 }, func(string) {})
	if be := new(Error); !errors.As(err, &be) || !strings.Contains(be.Text, "no such file") {
		t.Errorf("%v", err)
	}
}

func newUnits(t *testing.T, socket string) *Children {
	b := NewChildren(nil, slog.New(slog.NewTextHandler(t.Output(), nil)))
	b.Socket, b.Waits, b.grace = socket, []time.Duration{}, 300*time.Millisecond
	return b
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	const good = `{"path":"/m","variant":"int8","cache":"/c","quota":1,"batch":4,"level":-1,"dla":-1}`
	if _, err := ReadRequest(strings.NewReader(good + "\n")); err != nil {
		t.Fatal(err)
	}
	for name, line := range map[string]string{
		"no end":         good,
		"too long":       `{"path":"/` + strings.Repeat("m", maxRequest) + `"}` + "\n",
		"unknown key":    strings.Replace(good, `"quota"`, `"root"`, 1) + "\n",
		"two":            good + good + "\n",
		"relative path":  strings.Replace(good, `"/m"`, `"m"`, 1) + "\n",
		"option":         strings.Replace(good, `"/m"`, `"--cache"`, 1) + "\n",
		"relative cache": strings.Replace(good, `"/c"`, `"c"`, 1) + "\n",
		"variant":        strings.Replace(good, `"int8"`, `"--anew"`, 1) + "\n",
		"quota":          strings.Replace(good, `"quota":1`, `"quota":-1`, 1) + "\n",
		"batch":          strings.Replace(good, `"batch":4`, `"batch":0`, 1) + "\n",
		"level":          strings.Replace(good, `"level":-1`, `"level":99`, 1) + "\n",
		"dla":            strings.Replace(good, `"dla":-1`, `"dla":99`, 1) + "\n",
		"nothing":        "\n",
	} {
		if j, err := ReadRequest(strings.NewReader(line)); err == nil {
			t.Errorf("%s: taken as %+v", name, j)
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"path":"/m","variant":"int8","cache":"/c","quota":1,"batch":4,"level":-1,"dla":-1}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		j, err := ReadRequest(strings.NewReader(string(b)))
		if err != nil {
			return
		}
		if j.check() != nil || strings.HasPrefix(j.Path, "-") || strings.HasPrefix(j.Variant, "-") || !strings.HasPrefix(j.Cache, "/") {
			t.Errorf("%q taken as %+v", b, j)
		}
	})
}
