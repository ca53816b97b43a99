// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/release/source"
	"fulmar/cmd/fulmar/show"
	"fulmar/internal/cli"
	rel "fulmar/ota/release"
)

func inspectCommand() *cobra.Command {
	var f show.Format
	c := &cobra.Command{
		Use: "inspect RELEASE", Short: "what is in a release, how it travels, who signed it", Args: cli.Words("a RELEASE"), Long: about,
		Example: "  fulmar release inspect releases/1.9.0\n  fulmar release inspect fulmar-1.9.0.tar -o json",
		RunE: func(c *cobra.Command, words []string) error {
			if err := f.Check(c); err != nil {
				return err
			}
			s, err := source.Open(words[0])
			if err == nil {
				defer s.Close()
				err = s.Index()
			}
			if err != nil {
				return err
			}
			return picture(c.OutOrStdout(), s, &f)
		},
	}
	f.Register(c)
	return c
}

// way is a row of the picture: how a file of a component can travel.
type way struct {
	component, version, file, how string
	size, full                    int64
}

// barWidth is that of the bars, in columns.
const barWidth = 20

// bar draws a share.
func bar(n, full int64) string {
	k := int(min(barWidth*n/max(full, 1), barWidth))
	if k == 0 && n > 0 {
		return "|" + strings.Repeat(".", barWidth-1)
	}
	return strings.Repeat("#", k) + strings.Repeat(".", barWidth-k)
}

func share(n, full int64) string { return fmt.Sprintf("%.1f %%", 100*float64(n)/float64(max(full, 1))) }

func ways(m *rel.Manifest) (out []way) {
	for i := range m.Components {
		c := &m.Components[i]
		for j := range c.Files {
			f := &c.Files[j]
			for _, e := range slices.Backward(f.Encodings) {
				how := e.Codec
				if e.From != nil {
					how += fmt.Sprintf(" from %.8s", e.From)
				}
				out = append(out, way{c.Name, c.Version, f.Path, how, e.Size, f.Size})
			}
			how := "as it is"
			if f.Unpack {
				how += ", unpacked"
			}
			out = slices.Insert(out, len(out)-len(f.Encodings), way{c.Name, c.Version, f.Path, how, f.Size, f.Size})
		}
	}
	return out
}

// summary is what -o json writes.
type summary struct {
	Release  string        `json:"release"`
	Hash     rel.Hash      `json:"hash"`
	Signers  []string      `json:"signers"` // ids as the envelope says them; verify finds out whether they did
	KeySets  []uint64      `json:"keysets,omitempty"`
	Manifest *rel.Manifest `json:"manifest"`
}

func signers(s *source.Release) []string {
	out := []string{}
	if s.Envelope != nil {
		for _, sig := range s.Envelope.Signatures {
			out = append(out, sig.KeyID)
		}
	}
	return out
}

// picture shows a release: f nil is a table for people.
func picture(w io.Writer, s *source.Release, f *show.Format) error {
	if f != nil && f.Quiet() {
		sum := summary{Release: s.Manifest.Release, Hash: s.Hash(), Signers: signers(s), Manifest: s.Manifest}
		if s.Bundle != nil {
			sum.KeySets = s.Bundle.Versions()
		}
		return show.JSON(w, sum)
	}
	fmt.Fprintf(w, "release %s, epoch %d, SHA-256 %s\n", s.Manifest.Release, s.Manifest.Epoch, s.Hash())
	if s.Manifest.Notes != "" {
		fmt.Fprintf(w, "  %s\n", show.Clean(s.Manifest.Notes))
	}
	switch ids := signers(s); {
	case len(ids) == 0:
		fmt.Fprintln(w, "  nobody has signed it")
	default:
		fmt.Fprintf(w, "  signed, as it says, by %s\n", strings.Join(short(ids), ", "))
	}
	if s.Bundle != nil && len(s.Bundle.Versions()) > 0 {
		fmt.Fprintf(w, "  with key sets %s\n", strings.Trim(fmt.Sprint(s.Bundle.Versions()), "[]"))
	}
	for i := range s.Manifest.Components {
		c := &s.Manifest.Components[i]
		full, least := weights(c)
		fmt.Fprintf(w, "\n%s %s: %s, at most %s travel to a board that has nothing\n", c.Name, c.Version, source.Size(full), source.Size(least))
		if text := needs(&c.Needs); text != "" {
			fmt.Fprintf(w, "  needs  %s\n", show.Clean(text))
		}
		fmt.Fprintf(w, "  trial  %s\n", contract(c))
	}
	fmt.Fprintln(w)
	type col = show.Column[way]
	table := new(show.Format) // the zero one is a table
	return show.Rows(w, table, ways(s.Manifest),
		col{Name: "component", Of: func(r way) string { return r.component }},
		col{Name: "file", Of: func(r way) string { return r.file }},
		col{Name: "travels", Of: func(r way) string { return r.how }},
		col{Name: "size", Of: func(r way) string { return source.Size(r.size) }},
		col{Name: "of all of it", Of: func(r way) string { return bar(r.size, r.full) + "  " + share(r.size, r.full) }},
	)
}

func short(ids []string) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = id[:min(len(id), 16)]
	}
	return out
}

// weights are the files of a component as they are, and what travels of them to a board
// that has none.
func weights(c *rel.Component) (full, least int64) {
	for i := range c.Files {
		f := &c.Files[i]
		full += f.Size
		n := f.Size
		for _, e := range f.Encodings {
			if e.From == nil {
				n = min(n, e.Size)
			}
		}
		least += n
	}
	return full, least
}

// needs is a sentence of what a board must have; "" for nothing.
func needs(n *rel.Needs) string {
	var out []string
	add := func(format string, v string) {
		if v != "" {
			out = append(out, fmt.Sprintf(format, v))
		}
	}
	add("%s", n.Arch)
	add("board %s", n.Board)
	add("L4T from %s", n.L4TMin)
	add("L4T up to %s", n.L4TMax)
	add("TensorRT from %s", n.TensorRT)
	for _, name := range slices.Sorted(maps.Keys(n.Components)) {
		add(name+" from %s", n.Components[name])
	}
	if n.Space > 0 {
		out = append(out, source.Size(n.Space)+" of space beside")
	}
	return strings.Join(out, ", ")
}

// contract is a sentence of how a component proves itself, defaults included.
func contract(c *rel.Component) string {
	h := c.Health.With(c.Name)
	text := fmt.Sprintf("good within %v and for %v: %s", time.Duration(h.WithinS)*time.Second, time.Duration(h.HoldS)*time.Second, strings.Join(h.Checks, ", "))
	if slices.Contains(h.Checks, rel.CheckRate) {
		text += fmt.Sprintf(" (at least %.0f %% of it)", 100*h.RateMin)
	}
	return text
}

func diffCommand() *cobra.Command {
	var f show.Format
	c := &cobra.Command{
		Use: "diff RELEASE RELEASE", Short: "what changes from one release to another, and what travels for it", Args: cli.Words("a RELEASE", "a RELEASE"), Long: about,
		Example: "  fulmar release diff releases/1.8.2 releases/1.9.0",
		RunE: func(c *cobra.Command, words []string) error {
			if err := f.Check(c); err != nil {
				return err
			}
			both, err := source.OpenAll(words)
			if err != nil {
				return err
			}
			defer source.CloseAll(both)
			return diff(c.OutOrStdout(), c.ErrOrStderr(), &f, both[0].Manifest, both[1].Manifest)
		},
	}
	f.Register(c)
	return c
}

// change is a row of diff.
type change struct {
	Component string `json:"component"`
	File      string `json:"file"`
	Change    string `json:"change"` // same, changed, added, removed
	Before    int64  `json:"before"`
	After     int64  `json:"after"`
	Travels   int64  `json:"travels"` // to a board that runs the first
	How       string `json:"how,omitempty"`
}

func changes(a, b *rel.Manifest) (out []change) {
	for i := range b.Components {
		c := &b.Components[i]
		for j := range c.Files {
			f := &c.Files[j]
			r := change{Component: c.Name, File: f.Path, Change: "added", After: f.Size, Travels: f.Size, How: "as it is"}
			old := fileOf(a, c.Name, f.Path)
			for _, e := range f.Encodings {
				if e.Size < r.Travels && (e.From == nil || old != nil && *e.From == old.SHA256) {
					r.Travels, r.How = e.Size, e.Codec
				}
			}
			if old != nil {
				r.Change, r.Before = "changed", old.Size
				if old.SHA256 == f.SHA256 {
					r.Change, r.Travels, r.How = "same", 0, ""
				}
			}
			out = append(out, r)
		}
	}
	for i := range a.Components {
		c := &a.Components[i]
		for j := range c.Files {
			// A component that is not in the second release stays as it is on boards.
			if f := &c.Files[j]; b.Component(c.Name) != nil && fileOf(b, c.Name, f.Path) == nil {
				out = append(out, change{Component: c.Name, File: f.Path, Change: "removed", Before: f.Size})
			}
		}
	}
	return out
}

func fileOf(m *rel.Manifest, component, path string) *rel.File {
	if c := m.Component(component); c != nil {
		for i := range c.Files {
			if c.Files[i].Path == path {
				return &c.Files[i]
			}
		}
	}
	return nil
}

func diff(stdout, stderr io.Writer, f *show.Format, a, b *rel.Manifest) error {
	rows := changes(a, b)
	var travels, all int64
	for _, r := range rows {
		travels += r.Travels
		all += r.After
	}
	type col = show.Column[change]
	err := show.Rows(stdout, f, rows,
		col{Name: "component", Of: func(r change) string { return r.Component }},
		col{Name: "file", Of: func(r change) string { return r.File }},
		col{Name: "is", Of: func(r change) string { return r.Change }},
		col{Name: "before", Of: func(r change) string { return source.Size(r.Before) }},
		col{Name: "after", Of: func(r change) string { return source.Size(r.After) }},
		col{Name: "travels", Of: func(r change) string { return strings.TrimSpace(source.Size(r.Travels) + " " + r.How) }},
		col{Name: "of all of it", Of: func(r change) string { return bar(r.Travels, r.After) + "  " + share(r.Travels, r.After) }},
	)
	if err == nil && !f.Quiet() {
		for i := range b.Components {
			c := &b.Components[i]
			before := "nothing"
			if old := a.Component(c.Name); old != nil {
				before = old.Version
			}
			fmt.Fprintf(stderr, "%s: %s -> %s\n", c.Name, before, c.Version)
		}
		fmt.Fprintf(stderr, "epoch %d -> %d; %s travel to a board that runs %s, %s of all of it\n", a.Epoch, b.Epoch, source.Size(travels), a.Release, share(travels, all))
	}
	return err
}
