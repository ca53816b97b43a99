// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Command man writes the manual pages, the completions and docs/errors.md. Pages of
// fulmar and fulmar-fleet are made of their commands, so that they cannot tell of
// others; those of the programs that machines start are in pages/, and a test holds
// their options to the programs'.
//
//	man --out DIR [--release VERSION]   DIR/man/*.1, *.5, *.8 and DIR/completions/SHELL/*
//	man --errors FILE                   the table of the errors of fulmar, as Markdown
//
// The date of a page is $SOURCE_DATE_EPOCH, in seconds since 1970 UTC: the same sources
// make the same bytes on any day.
package main

import (
	"bytes"
	"embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fulmar/agent/config"
	fleet "fulmar/cmd/fulmar-fleet/commands"
	desk "fulmar/cmd/fulmar/commands"
	"fulmar/cmd/fulmar/fault"
	"fulmar/internal/cli"
	"fulmar/schema/rest"
)

// pages are written by hand, in mdoc: whole pages without their first lines, and what
// follows the commands of a generated page.
//
//go:embed pages
var pages embed.FS

func main() {
	out := flag.String("out", "", "folder for man/ and completions/")
	release := flag.String("release", "dev", "version that stands below each page")
	errs := flag.String("errors", "", "write the table of errors to this file")
	flag.Parse()
	err := errors.New("wants --out DIR or --errors FILE")
	switch {
	case *errs != "":
		err = os.WriteFile(*errs, errorsMarkdown(), 0o644)
	case *out != "":
		var at time.Time
		if at, err = date(os.Getenv("SOURCE_DATE_EPOCH")); err == nil {
			err = write(*out, edition{*release, at})
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

func date(epoch string) (time.Time, error) {
	s, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH is %q, wants seconds: git log -1 --format=%%ct", epoch)
	}
	return time.Unix(s, 0).UTC(), nil
}

// edition is what a page tells of itself.
type edition struct {
	release string
	at      time.Time
}

// write makes all files below a folder.
func write(dir string, e edition) error {
	files, err := manual(e)
	if err != nil {
		return err
	}
	for _, root := range []*cobra.Command{desk.Root(e.release), fleet.Root(e.release)} {
		for shell, name := range map[string]string{"bash": "%s", "zsh": "_%s", "fish": "%s.fish"} {
			var b bytes.Buffer
			if err := cli.Completion(root, shell, &b); err != nil {
				return err
			}
			files[filepath.Join("completions", shell, fmt.Sprintf(name, root.Name()))] = b.Bytes()
		}
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// manual gives all pages, by their paths.
func manual(e edition) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, g := range []struct {
		root    *cobra.Command
		section string
		extra   func(p *page)
	}{
		{desk.Root(e.release), "1", errorsSection},
		{fleet.Root(e.release), "8", nil},
	} {
		name := g.root.Name() + "." + g.section
		p := head(g.root.Name(), g.section, e)
		p.program(g.root)
		tail, err := pages.ReadFile("pages/" + name + ".tail")
		if err != nil {
			return nil, err
		}
		before, after, _ := strings.Cut(string(tail), "@MORE@\n")
		p.raw(before)
		p.line(".Sh EXAMPLES")
		p.literal(g.root.Example)
		if g.extra != nil {
			g.extra(p)
		}
		p.raw(after)
		files["man/"+name] = p.Bytes()
	}
	for _, name := range []string{"fulmard.8", "fulmar-infer.8", "fulmar-launch.8", "fulmar-rootfs.8", "fulmard.yaml.5"} {
		text, err := pages.ReadFile("pages/" + name)
		if err != nil {
			return nil, err
		}
		i := strings.LastIndexByte(name, '.')
		p := head(name[:i], name[i+1:], e)
		before, after, found := strings.Cut(string(text), "@KEYS@\n")
		p.raw(before)
		if found {
			p.keys(config.DefaultsYAML)
		}
		p.raw(after)
		files["man/"+name] = p.Bytes()
	}
	return files, nil
}

// errorsSection tells of the codes, which only fulmar has.
func errorsSection(p *page) {
	p.line(".Sh DIAGNOSTICS")
	p.prose("An error ends with its code in brackets. A code is stable, the words of an error are not.")
	p.line(".Bl -tag -width FLT0000")
	for _, r := range fault.Table() {
		p.line(".It %s", r.Code)
		p.prose(sentence(r.What) + " " + r.Why + " Do: " + r.Do + ".")
	}
	p.line(".El")
}

// errorsMarkdown is docs/errors.md.
func errorsMarkdown() []byte {
	var b bytes.Buffer
	b.WriteString(`# Errors of fulmar

An error of ` + "`fulmar`" + ` ends with its code in brackets: ` + "`fulmar: ... [FLT0302]`" + `. A code is stable; words may
become better. ` + "`fulmar explain CODE`" + ` says the same as this page, which is made of the same table
(cmd/fulmar/fault) by ` + "`go run ./cross/man --errors docs/errors.md`" + `.

| code | what | because | do | exit |
|---|---|---|---|---|
`)
	for _, r := range fault.Table() {
		if r.Code >= fault.FleetFirst { // they have a table of their own below
			break
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %d |\n", r.Code, r.What, r.Why, r.Do, r.Exit)
	}
	b.WriteString(`
## Of the fleet

What the API of ` + "`fulmar-fleet`" + ` answers as problem+json, whose ` + "`code`" + ` is one of these (schema/rest). With each answer
comes a ` + "`request_id`" + `, under which the server's log has more. docs/api.md shows the use of the API.

| code | HTTP | exit | what | because | do |
|---|---|---|---|---|---|
`)
	for _, r := range rest.Codes() {
		fmt.Fprintf(&b, "| %s | %d | %d | %s | %s | %s |\n", r.Code, r.Status, fault.ExitOf(r.Status), r.Title, r.Why, r.Do)
	}
	return b.Bytes()
}
