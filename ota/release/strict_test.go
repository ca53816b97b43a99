// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"fulmar/internal/merkle"
)

// TestStrictJSON: a manifest, a directive and a word of freshness that two readers could see
// differently are refused, whoever signed them.
func TestStrictJSON(t *testing.T) {
	t.Parallel()
	d, err := directive().Encode()
	if err != nil {
		t.Fatal(err)
	}
	f, err := fresh().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		good  []byte
		want  error
		limit int
		read  func([]byte) error
	}{
		"manifest":  {encoded(t, full()), ErrManifest, MaxManifest, func(b []byte) error { _, err := Parse(b); return err }},
		"directive": {d, ErrDirective, MaxDirective, func(b []byte) error { _, err := ParseDirective(b); return err }},
		"fresh":     {f, ErrDirective, MaxFresh, func(b []byte) error { _, err := ParseFresh(b); return err }},
	} {
		if err := c.read(c.good); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		in := func(text string) []byte {
			return bytes.Replace(c.good, []byte(`{"v":1,`), []byte(`{"v":1,`+text+`,`), 1)
		}
		for what, b := range map[string][]byte{
			"an unknown field":        in(`"more":1`),
			"a field twice":           in(`"v":1`),
			"a field twice, in case":  in(`"V":1`),
			"bytes after it":          append(bytes.Clone(c.good), " {}"...),
			"the same twice":          append(bytes.Clone(c.good), c.good...),
			"another version":         bytes.Replace(c.good, []byte(`{"v":1`), []byte(`{"v":2`), 1),
			"a text for a number":     bytes.Replace(c.good, []byte(`{"v":1`), []byte(`{"v":"1"`), 1),
			"a list":                  append(append([]byte("["), c.good...), ']'),
			"cut":                     c.good[:len(c.good)-1],
			"nothing":                 nil,
			"null":                    []byte("null"),
			"over its bound":          append(bytes.Clone(c.good), bytes.Repeat([]byte(" "), c.limit)...),
			"nested for ever":         []byte(strings.Repeat(`{"components":[`, 20_000)),
			"no UTF-8 in a field":     in("\"\xff\":1"),
			"a hash in large letters": bytes.Replace(c.good, []byte(hashOf("manifest").String()), []byte(strings.ToUpper(hashOf("manifest").String())), 1),
		} {
			if bytes.Equal(b, c.good) {
				continue // this form has no such field
			}
			if err := c.read(b); !errors.Is(err, c.want) {
				t.Errorf("%s: %s: %v", name, what, err)
			}
		}
	}
}

// TestManifestBounds: what contradicts itself or is over a bound is neither written nor read.
func TestManifestBounds(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(m *Manifest, c *Component, f *File){
		"no name":             func(m *Manifest, _ *Component, _ *File) { m.Release = "" },
		"a name with a slash": func(m *Manifest, _ *Component, _ *File) { m.Release = "a/b" },
		"a hidden name":       func(m *Manifest, _ *Component, _ *File) { m.Release = ".a" },
		"a name as an option": func(m *Manifest, _ *Component, _ *File) { m.Release = "-a" },
		"long notes":          func(m *Manifest, _ *Component, _ *File) { m.Notes = strings.Repeat("x", MaxNotes+1) },
		"no components":       func(m *Manifest, _ *Component, _ *File) { m.Components = nil },
		"a component twice":   func(m *Manifest, c *Component, _ *File) { m.Components = append(m.Components, *c) },
		"many components": func(m *Manifest, c *Component, _ *File) {
			m.Components = slices.Repeat([]Component{*c}, MaxComponents+1)
		},
		"another component":  func(_ *Manifest, c *Component, _ *File) { c.Name = "launcher" },
		"a model of no name": func(_ *Manifest, c *Component, _ *File) { c.Name = "model/" },
		"a model below":      func(_ *Manifest, c *Component, _ *File) { c.Name = "model/a/b" },
		"no version":         func(_ *Manifest, c *Component, _ *File) { c.Version = "" },
		"no files":           func(_ *Manifest, c *Component, _ *File) { c.Files = nil },
		"many files":         func(_ *Manifest, c *Component, f *File) { c.Files = slices.Repeat([]File{*f}, MaxFiles+1) },
		"a file twice": func(_ *Manifest, c *Component, f *File) {
			g := *f
			g.Path = strings.ToUpper(f.Path)
			c.Files = append(c.Files, g)
		},
		"a file in a file":     func(_ *Manifest, c *Component, f *File) { g := *f; g.Path += "/x"; c.Files = append(c.Files, g) },
		"a path upwards":       func(_ *Manifest, _ *Component, f *File) { f.Path = "../x" },
		"a path from the root": func(_ *Manifest, _ *Component, f *File) { f.Path = "/x" },
		"a path not clean":     func(_ *Manifest, _ *Component, f *File) { f.Path = "a//x" },
		"a path of spaces":     func(_ *Manifest, _ *Component, f *File) { f.Path = "a b" },
		"a long path":          func(_ *Manifest, _ *Component, f *File) { f.Path = strings.Repeat("a/", 100) + "b" },
		"no bytes":             func(_ *Manifest, _ *Component, f *File) { f.Size = 0 },
		"endless bytes":        func(_ *Manifest, _ *Component, f *File) { f.Size = MaxSize + 1 },
		"no hash":              func(_ *Manifest, _ *Component, f *File) { f.SHA256 = Hash{} },
		"no tree":              func(_ *Manifest, _ *Component, f *File) { f.Tree = Hash{} },
		"unpacked to nothing":  func(_ *Manifest, _ *Component, f *File) { f.Unpack = true },
		"unpacked without end": func(_ *Manifest, _ *Component, f *File) { f.Unpack, f.Unpacked = true, MaxSize+1 },
		"a size of no tar":     func(_ *Manifest, _ *Component, f *File) { f.Unpacked = 1 },
		"many encodings": func(_ *Manifest, _ *Component, f *File) {
			f.Encodings = slices.Repeat([]Encoding{{Codec: "zstd", Object: f.Object}}, MaxEncodings+1)
		},
		"a codec of no name":  func(_ *Manifest, _ *Component, f *File) { f.Encodings = []Encoding{{Object: f.Object}} },
		"an empty encoding":   func(_ *Manifest, _ *Component, f *File) { f.Encodings = []Encoding{{Codec: "zstd"}} },
		"a long need":         func(_ *Manifest, c *Component, _ *File) { c.Needs.Arch = strings.Repeat("x", maxName+1) },
		"space below zero":    func(_ *Manifest, c *Component, _ *File) { c.Needs.Space = -1 },
		"a need of no part":   func(_ *Manifest, c *Component, _ *File) { c.Needs.Components = map[string]string{"x": "1"} },
		"an unknown check":    func(_ *Manifest, c *Component, _ *File) { c.Health.Checks = []string{"luck"} },
		"held longer than":    func(_ *Manifest, c *Component, _ *File) { c.Health = Health{WithinS: 60, HoldS: 60} },
		"a trial of two days": func(_ *Manifest, c *Component, _ *File) { c.Health.WithinS = 2 * 24 * 3600 },
		"more than the rate":  func(_ *Manifest, c *Component, _ *File) { c.Health.RateMin = 1.5 },
	} {
		m := small()
		change(m, &m.Components[0], &m.Components[0].Files[0])
		if _, err := m.Encode(); !errors.Is(err, ErrManifest) {
			t.Errorf("%s was written: %v", name, err)
		}
	}
	m := small()
	f := m.Components[0].Files[0]
	m.Components[0].Files = nil
	for i := range MaxFiles {
		g := f
		g.Path = strings.Repeat("d/", 80) + string(rune('a'+i%26)) + string(rune('a'+i/26))
		m.Components[0].Files = append(m.Components[0].Files, g)
	}
	if _, err := m.Encode(); !errors.Is(err, ErrManifest) || !strings.Contains(err.Error(), "fewer files") {
		t.Errorf("over its bytes: %v", err)
	}
}

// TestDirectiveBounds is the same of what the fleet signs.
func TestDirectiveBounds(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Directive){
		"no board":               func(d *Directive) { d.Board = "" },
		"a long tenant":          func(d *Directive) { d.Tenant = strings.Repeat("x", maxName+1) },
		"no attempt":             func(d *Directive) { d.Attempt = 0 },
		"another act":            func(d *Directive) { d.Act = "delete" },
		"an install of nothing":  func(d *Directive) { d.Manifest = Hash{} },
		"an undo of a manifest":  func(d *Directive) { d.Act = ActUndo },
		"another component":      func(d *Directive) { d.Component = "launcher" },
		"a release of no name":   func(d *Directive) { d.Release = "a b" },
		"what ran before it":     func(d *Directive) { d.Before = "../x" },
		"many patches":           func(d *Directive) { d.Patches = slices.Repeat(d.Patches, MaxPatches+1) },
		"a patch without a size": func(d *Directive) { d.Patches[0].Size = 0 },
	} {
		d := directive()
		change(d)
		if _, err := d.Encode(); !errors.Is(err, ErrDirective) {
			t.Errorf("%s was written: %v", name, err)
		}
	}
	for name, change := range map[string]func(*Fresh){
		"a short nonce":     func(f *Fresh) { f.Nonce = "0a" },
		"a long nonce":      func(f *Fresh) { f.Nonce = strings.Repeat("0a", 33) },
		"another component": func(f *Fresh) { f.Attempts = map[string]uint64{"x": 1} },
		"no board":          func(f *Fresh) { f.Board = "" },
		"before 1970":       func(f *Fresh) { f.Time = -1 },
	} {
		f := fresh()
		change(f)
		if _, err := f.Encode(); !errors.Is(err, ErrDirective) {
			t.Errorf("%s was written: %v", name, err)
		}
	}
}

// TestDescribe: each piece of an object is proven by its path, and nothing else is.
func TestDescribe(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, Piece - 1, Piece, Piece + 1, 5*Piece + 7} {
		data := make([]byte, size)
		for i, r := 0, rand.New(rand.NewPCG(1, uint64(size))); i < size; i++ {
			data[i] = byte(r.Uint32())
		}
		o, tree, err := Describe(bytes.NewReader(data))
		if err != nil || o.SHA256 != sha256.Sum256(data) || o.Size != int64(size) || o.Tree != Hash(tree.Root()) || o.Pieces() != tree.Len() {
			t.Fatalf("%d bytes: %+v, %v", size, o, err)
		}
		at := 0
		for i := range o.Pieces() {
			piece := data[at : at+o.PieceSize(i)]
			at += len(piece)
			path := tree.Path(nil, i)
			if !o.Proves(i, piece, path) {
				t.Fatalf("%d bytes: piece %d is not proven", size, i)
			}
			bad := bytes.Clone(piece)
			bad[len(bad)-1] ^= 1
			for name, wrong := range map[string]bool{
				"changed": o.Proves(i, bad, path), "shorter": o.Proves(i, piece[1:], path), "longer": o.Proves(i, append(bytes.Clone(piece), 0), path),
				"elsewhere": o.Proves(i+1, piece, path), "before": o.Proves(i-o.Pieces(), piece, path), "a longer path": o.Proves(i, piece, append(bytes.Clone(path), make([]byte, merkle.Size)...)),
			} {
				if wrong {
					t.Errorf("%d bytes: piece %d, %s, is proven", size, i, name)
				}
			}
		}
		if at != size {
			t.Errorf("pieces of %d bytes have %d", size, at)
		}
	}
	if _, _, err := Describe(strings.NewReader("")); err == nil {
		t.Error("an empty file was described")
	}
	if _, _, err := Describe(io.MultiReader(strings.NewReader("x"), broken{})); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a disk that fails: %v", err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestUnmet: each need and each fact of a board.
func TestUnmet(t *testing.T) {
	t.Parallel()
	facts := map[string]string{FactArch: "arm64", FactModel: "NVIDIA Jetson Orin NX Engineering Reference Developer Kit", FactL4T: "36.4.3", FactTensorRT: "10.3.0"}
	parts := map[string]string{"agent": "1.10.0", "worker": "1.9.0~rc1"}
	for _, c := range []struct {
		n    Needs
		want string // in the one sentence; "" none
	}{
		{Needs{}, ""},
		{Needs{Arch: "arm64", Board: "NVIDIA Jetson Orin", L4TMin: "35.4.1", L4TMax: "36.4.3", TensorRT: "8.5", Components: map[string]string{"agent": "1.9"}}, ""},
		{Needs{Arch: "amd64"}, "needs architecture amd64, and the board has arm64"},
		{Needs{Board: "NVIDIA Jetson Xavier"}, "needs board NVIDIA Jetson Xavier"},
		{Needs{L4TMin: "36.4.4"}, "L4T at least 36.4.4"},
		{Needs{L4TMin: "36.10"}, "at least 36.10"}, // by numbers, not by letters
		{Needs{L4TMax: "36.4"}, ""},
		{Needs{L4TMax: "36"}, ""},
		{Needs{L4TMax: "36.4.2"}, "L4T at most 36.4.2"},
		{Needs{L4TMax: "3"}, "L4T at most 3"},
		{Needs{TensorRT: "10.4"}, "TensorRT at least 10.4, and the board has 10.3.0"},
		{Needs{Components: map[string]string{"worker": "1.9.0"}}, "worker at least 1.9.0, and the board has 1.9.0~rc1"},
		{Needs{Components: map[string]string{"model/x": "1"}}, "model/x at least 1, and the board tells none"},
	} {
		got := c.n.Unmet(facts, parts)
		if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)) {
			t.Errorf("%+v: %q, wants %q", c.n, got, c.want)
		}
	}
	all := Needs{Arch: "arm64", Board: "NVIDIA", L4TMin: "1", L4TMax: "99", TensorRT: "1", Components: map[string]string{"agent": "1"}}
	if got := all.Unmet(nil, nil); len(got) != 6 || !strings.HasSuffix(got[0], "tells none") {
		t.Errorf("a board that tells nothing: %q", got)
	}
}

// FuzzParse: what is read can be written, and is then read as the same.
func FuzzParse(f *testing.F) {
	f.Add(encoded(f, full()))
	f.Add(encoded(f, small()))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		once, err := m.Encode()
		if err != nil {
			if len(b) < MaxManifest/8 { // one of many escaped characters may grow
				t.Fatalf("read and cannot be written: %v", err)
			}
			return
		}
		back, err := Parse(once)
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := back.Encode(); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%s became %s, %v", once, twice, err)
		}
		for _, c := range m.Components {
			for _, file := range c.Files {
				if strings.Contains(file.Path, "..") && strings.Contains("/"+file.Path+"/", "/../") || strings.HasPrefix(file.Path, "/") {
					t.Fatalf("path %q", file.Path)
				}
			}
			c.Needs.Unmet(map[string]string{FactL4T: "36.4"}, nil)
		}
	})
}

// FuzzDirective is the same of the fleet's words.
func FuzzDirective(f *testing.F) {
	d, err := directive().Encode()
	if err != nil {
		f.Fatal(err)
	}
	w, err := fresh().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(d)
	f.Add(w)
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := ParseDirective(b); err == nil {
			if once, err := d.Encode(); err == nil {
				if back, err := ParseDirective(once); err != nil || back.Attempt != d.Attempt || back.Board != d.Board {
					t.Fatalf("%s: %v", once, err)
				}
			}
		}
		if w, err := ParseFresh(b); err == nil {
			if once, err := w.Encode(); err == nil {
				if _, err := ParseFresh(once); err != nil {
					t.Fatalf("%s: %v", once, err)
				}
			}
		}
	})
}

// FuzzProves: no bytes from outside are a piece but the one.
func FuzzProves(f *testing.F) {
	data := bytes.Repeat([]byte("fulmar"), 3*Piece/6+5)
	o, tree, err := Describe(bytes.NewReader(data))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(0, data[:Piece], tree.Path(nil, 0))
	f.Add(3, data[3*Piece:], tree.Path(nil, 3))
	f.Fuzz(func(t *testing.T, i int, piece, path []byte) {
		if o.Proves(i, piece, path) && !bytes.Equal(piece, data[i*Piece:i*Piece+o.PieceSize(i)]) {
			t.Fatalf("%x is piece %d", piece, i)
		}
	})
}
