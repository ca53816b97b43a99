// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package show writes what the commands about a fleet were asked for: as a table for
// people, as tab-separated values, names or JSON for programs.
package show

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"fulmar/internal/cli"
)

// Format is how rows are written.
type Format struct{ kind string }

// Register adds the option -o to a command.
func (f *Format) Register(c *cobra.Command) {
	c.Flags().StringVarP(&f.kind, "output", "o", "table", "table, wide, tsv, name or json")
	c.Flags().Bool("json", false, "the same as -o json")
	cli.Takes(c, "output", "FORM")
	cli.Values(c, "output", "table", "wide", "tsv", "name", "json")
}

// Check settles the form; an unknown one is wrong usage.
func (f *Format) Check(c *cobra.Command) error {
	if j, err := c.Flags().GetBool("json"); err == nil && j {
		f.kind = "json"
	}
	switch f.kind {
	case "table", "wide", "tsv", "name", "json":
		return nil
	}
	return fmt.Errorf("%w: -o %q is none of table, wide, tsv, name and json", cli.ErrUsage, f.kind)
}

// Quiet tells whether a program reads: nothing but the rows is said.
func (f *Format) Quiet() bool { return f.kind == "tsv" || f.kind == "name" || f.kind == "json" }

// most is how much of a value stands in a table, in bytes.
const most = 60

// Value writes a value of JSON for a row: as a person would write it, and in a table no
// longer than one can be read beside others; -o wide and tsv have all of it.
func (f *Format) Value(raw json.RawMessage) string {
	var v any
	var b strings.Builder
	d, e := json.NewDecoder(bytes.NewReader(raw)), json.NewEncoder(&b)
	d.UseNumber()
	e.SetEscapeHTML(false) // > is no \u003e to people
	if len(raw) == 0 || d.Decode(&v) != nil || e.Encode(v) != nil {
		return string(raw)
	}
	s := strings.TrimSpace(b.String())
	if f.kind == "table" && len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

// Column is one of a table.
type Column[T any] struct {
	Name string
	Of   func(T) string
	Wide bool // only with -o wide and tsv
}

// Rows writes the rows; the first column is what -o name writes. JSON is the rows as
// the API gave them, in a list.
func Rows[T any](w io.Writer, f *Format, rows []T, columns ...Column[T]) error {
	switch f.kind {
	case "json":
		if rows == nil {
			rows = []T{}
		}
		return JSON(w, rows)
	case "name":
		for _, r := range rows {
			if _, err := fmt.Fprintln(w, Clean(columns[0].Of(r))); err != nil {
				return err
			}
		}
		return nil
	}
	var use []Column[T]
	for _, c := range columns {
		if !c.Wide || f.kind != "table" {
			use = append(use, c)
		}
	}
	out, end := w, func() error { return nil }
	if f.kind != "tsv" {
		var b strings.Builder
		t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		out, end = t, func() error { return errors.Join(t.Flush(), trimmed(w, b.String())) }
	}
	cells := make([]string, len(use))
	for i, c := range use {
		cells[i] = strings.ToUpper(c.Name)
	}
	fmt.Fprintln(out, strings.Join(cells, "\t"))
	for _, r := range rows {
		for i, c := range use {
			cells[i] = Clean(c.Of(r))
		}
		line := strings.Join(cells, "\t") // whole: a row without its last cells would end the columns there
		if f.kind == "tsv" {
			line = strings.TrimRight(line, "\t")
		}
		fmt.Fprintln(out, line)
	}
	return end()
}

// trimmed writes lines without the spaces at their ends.
func trimmed(w io.Writer, text string) error {
	var b strings.Builder
	for l := range strings.Lines(text) {
		b.WriteString(strings.TrimRight(l, " \n") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// One writes one thing for a program: its name alone with -o name, else JSON.
func (f *Format) One(w io.Writer, name string, v any) error {
	if f.kind == "name" {
		_, err := fmt.Fprintln(w, Clean(name))
		return err
	}
	return JSON(w, v)
}

// JSON writes one value for a program.
func JSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// Clean keeps what a server sends from steering the terminal.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// Age writes how long ago t was, "" for the zero time.
func Age(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := now.Sub(t)
	switch {
	case d <= -time.Second:
		return "in " + span(-d)
	case d < time.Second:
		return "now"
	}
	return span(d)
}

// Ago is [Age] in a sentence: "3 min ago", "now".
func Ago(t, now time.Time) string {
	if d := now.Sub(t); t.IsZero() || d < time.Second {
		return Age(t, now)
	}
	return Age(t, now) + " ago"
}

func span(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d d", d/(24*time.Hour))
}

// At writes a moment in the zone of this machine, with the zone: "" for the zero time.
func At(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05 MST")
}
