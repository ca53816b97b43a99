// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"archive/tar"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"fulmar/internal/ustar"
	"fulmar/ota/release"
	"fulmar/trust"
)

func keyOf(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func sign(t testing.TB, typ trust.Type, payload []byte, by ...string) []byte {
	t.Helper()
	e, err := trust.NewEnvelope(typ, payload)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range by {
		if err := e.Sign(keyOf(name)); err != nil {
			t.Fatal(err)
		}
	}
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// keySet is version n, of one root, with the release key of that name.
func keySet(t testing.TB, n uint64, releaseKey string) []byte {
	t.Helper()
	s := &trust.KeySet{
		Version: n, Thresholds: map[trust.Role]int{trust.RoleRoot: 1, trust.RoleRelease: 1},
		Keys: []trust.Key{{Role: trust.RoleRoot, Public: keyOf("root").Public()}, {Role: trust.RoleRelease, Public: keyOf(releaseKey).Public()}},
	}
	payload, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return sign(t, trust.TypeKeySet, payload, "root")
}

func opened(t testing.TB, envelope []byte) *trust.KeySet {
	t.Helper()
	e, err := trust.ParseEnvelope(envelope)
	if err != nil {
		t.Fatal(err)
	}
	s, err := trust.OpenKeySet(e, sha256.Sum256(e.Unverified()))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// store holds objects by their trees.
type store map[release.Hash]string

func (s store) put(text string) release.Object {
	o, _, err := release.Describe(strings.NewReader(text))
	if err != nil {
		panic(err)
	}
	s[o.Tree] = text
	return o
}

func (s store) open(o release.Object) (io.ReadCloser, error) {
	text, ok := s[o.Tree]
	if !ok {
		return nil, fmt.Errorf("no object %s", o.Tree)
	}
	return io.NopCloser(strings.NewReader(text)), nil
}

// some is a release whose agent has a patch and a packed form, and whose model has neither.
func some(t testing.TB, s store) *release.Manifest {
	t.Helper()
	base := s.put("fulmard 1.8.2")
	program := s.put(strings.Repeat("fulmard 1.9.0 ", 10_000))
	return &release.Manifest{V: 1, Release: "1.9.0", Epoch: 3, Components: []release.Component{
		{Name: "agent", Version: "1.9.0", Files: []release.File{{Path: "fulmard", Object: program, Encodings: []release.Encoding{
			{Codec: "elf", From: &base.SHA256, Object: s.put("patch")},
			{Codec: "zstd", Object: s.put("packed")},
		}}}},
		{Name: "model/parcels", Version: "7", Files: []release.File{
			{Path: "model.onnx", Object: s.put(strings.Repeat("w", 3*release.Piece+1))},
			{Path: "copy.onnx", Object: s.put(strings.Repeat("w", 3*release.Piece+1))},
		}},
	}}
}

func encode(t testing.TB, m *release.Manifest) []byte {
	t.Helper()
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func line(t testing.TB, board string) []byte {
	t.Helper()
	d := &Directed{Tenant: "default", Board: board, Component: "agent", Statement: []byte("{}"), Envelope: []byte("{}"), Count: 2, Index: 1, Path: make([]byte, 32)}
	b, err := d.Line()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// contents is a release with two key sets and directives for two boards.
func contents(t testing.TB) *Contents {
	t.Helper()
	s := store{}
	return &Contents{
		Envelope: sign(t, trust.TypeRelease, encode(t, some(t, s)), "release-2"),
		KeySets:  [][]byte{keySet(t, 2, "release-1"), keySet(t, 3, "release-2")}, Directives: append(line(t, "dock-8"), line(t, "dock-9")...), Open: s.open,
	}
}

func written(t testing.TB, c *Contents) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, c); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// stream does what a board does with a bundle that comes over a socket. It gives the objects.
func stream(b []byte, set *trust.KeySet) (map[release.Hash]string, error) {
	f, err := Read(io.MultiReader(bytes.NewReader(b)))
	if err != nil {
		return nil, err
	}
	if set, err = f.Follow(set, nil); err != nil {
		return nil, err
	}
	m, err := release.Open(set, f.Envelope(), 0)
	if err != nil {
		return nil, err
	}
	out := map[release.Hash]string{}
	for {
		o, r, err := f.Next(m)
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		text, err := io.ReadAll(r)
		if err != nil {
			return out, form(err)
		}
		out[o.Tree] = string(text)
	}
}

// board does what a board does with a stick.
func board(b []byte, set *trust.KeySet) (*Bundle, *release.Opened, error) {
	f, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, nil, err
	}
	if set, err = f.Follow(set, nil); err != nil {
		return nil, nil, err
	}
	m, err := release.Open(set, f.Envelope(), 0)
	if err != nil {
		return nil, nil, err
	}
	return f, m, f.Index(m)
}

// TestBundle: the bytes are pinned, any tar lists them, and a board that knows the first key set
// gets from them to the objects.
func TestBundle(t *testing.T) {
	t.Parallel()
	c := contents(t)
	b := written(t, c)
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != "e4499d4d5974de1d894a512684582f5b36faadb45091f39d1a61094e8db9c75b" {
		t.Errorf("the form changed: %x", sum)
	}
	if !bytes.Equal(b, written(t, contents(t))) {
		t.Error("the same contents gave other bytes")
	}
	var names []string
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, fmt.Sprintf("%.12s", h.Name))
	}
	if got := strings.Join(names[:4], " ") + fmt.Sprint(len(names)); got != "release.json keysets/2.js keysets/3.js directives.j7" {
		t.Errorf("it holds %s", got) // patch, packed, and the one model of two names
	}
	var took int
	first := opened(t, keySet(t, 1, "release-1"))
	f, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := release.Open(first, f.Envelope(), 0); !errors.Is(err, trust.ErrSignatures) {
		t.Errorf("a board that follows no key set: %v", err)
	}
	set, err := f.Follow(first, func([]byte) error { took++; return nil })
	if err != nil || set.Version != 3 || took != 2 {
		t.Fatalf("set %d after %d steps, %v", set.Version, took, err)
	}
	if again, err := f.Follow(set, func([]byte) error { return io.ErrClosedPipe }); err != nil || again != set {
		t.Errorf("a board that has the newest: %v", err)
	}
	if _, err := f.Follow(first, func([]byte) error { return io.ErrClosedPipe }); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a set that cannot be kept: %v", err)
	}
	m, err := release.Open(set, f.Envelope(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if f.Object(m.Components[1].Files[0].Object) != nil {
		t.Error("an object before its index")
	}
	if err := f.Index(m); err != nil {
		t.Fatal(err)
	}
	agent := m.Components[0].Files[0]
	for _, o := range []release.Object{agent.Encodings[0].Object, agent.Encodings[1].Object, m.Components[1].Files[1].Object} {
		got, err := io.ReadAll(f.Object(o))
		if err != nil || release.Hash(sha256.Sum256(got)) != o.SHA256 {
			t.Errorf("object %s: %d bytes, %v", o.Tree, len(got), err)
		}
	}
	if f.Object(agent.Object) != nil {
		t.Error("the program is there as it is, though packed beside it")
	}
	for who, want := range map[string]bool{"dock-9": true, "dock-8": true, "dock-7": false} {
		if p, err := f.Directive("default", who, "agent"); err != nil || (p != nil) != want {
			t.Errorf("directive of %s: %v, %v", who, p, err)
		}
	}
	if p, err := f.Directive("rival", "dock-9", "agent"); p != nil || err != nil {
		t.Errorf("of another tenant: %v, %v", p, err)
	}
}

// TestStream: the same bundle as a stream gives the same objects, and directives before them.
func TestStream(t *testing.T) {
	t.Parallel()
	b := written(t, contents(t))
	set := opened(t, keySet(t, 1, "release-1"))
	got, err := stream(b, set)
	if err != nil || len(got) != 3 {
		t.Fatalf("%d objects, %v", len(got), err)
	}
	for tree, text := range got {
		if o, _, err := release.Describe(strings.NewReader(text)); err != nil || o.Tree != tree {
			t.Errorf("object %s: %v", tree, err)
		}
	}
	f, err := Read(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	var boards []string
	if err := f.Directives(func(d *Directed) bool { boards = append(boards, d.Board); return true }); err != nil || strings.Join(boards, " ") != "dock-8 dock-9" {
		t.Errorf("directives of %v, %v", boards, err)
	}
	if set, err = f.Follow(set, nil); err != nil {
		t.Fatal(err)
	}
	m, err := release.Open(set, f.Envelope(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Next(&release.Opened{Manifest: m.Manifest}); !errors.Is(err, ErrBundle) {
		t.Errorf("with another manifest: %v", err)
	}
	for n := 0; ; n++ { // nothing of an object is read
		_, _, err := f.Next(m)
		if err == io.EOF {
			if n != 3 {
				t.Errorf("%d objects", n)
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestWriteRefuses: what no board would take is not written.
func TestWriteRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(c *Contents){
		"no manifest":             func(c *Contents) { c.Envelope = []byte("{}") },
		"an envelope of a set":    func(c *Contents) { c.Envelope = c.KeySets[0] },
		"key sets that fall":      func(c *Contents) { c.KeySets = [][]byte{c.KeySets[1], c.KeySets[0]} },
		"a key set twice":         func(c *Contents) { c.KeySets = [][]byte{c.KeySets[1], c.KeySets[1]} },
		"a manifest as a key set": func(c *Contents) { c.KeySets = [][]byte{c.Envelope} },
		"many key sets":           func(c *Contents) { c.KeySets = make([][]byte, MaxKeySets+1) },
		"many directives":         func(c *Contents) { c.Directives = make([]byte, MaxDirectives+1) },
		"no objects":              func(c *Contents) { c.Open = store{}.open },
		"an object that changed": func(c *Contents) {
			open := c.Open
			c.Open = func(o release.Object) (io.ReadCloser, error) {
				r, err := open(o)
				if err != nil {
					return nil, err
				}
				b, err := io.ReadAll(r)
				b[0] ^= 1
				return io.NopCloser(bytes.NewReader(b)), err
			}
		},
		"an object that grew": func(c *Contents) {
			open := c.Open
			c.Open = func(o release.Object) (io.ReadCloser, error) {
				r, err := open(o)
				return io.NopCloser(io.MultiReader(r, strings.NewReader("x"))), err
			}
		},
		"an object that was cut": func(c *Contents) {
			c.Open = func(release.Object) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("")), nil }
		},
	} {
		c := contents(t)
		change(c)
		if err := Write(io.Discard, c); err == nil {
			t.Errorf("%s was written", name)
		}
	}
}

type entry struct{ name, text string }

func raw(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := ustar.NewWriter(&b)
	for _, e := range entries {
		if err := w.Create(e.name, int64(len(e.text))); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// entries takes a bundle apart, so that an attack can put it together otherwise.
func entries(t testing.TB, b []byte) (out []entry) {
	t.Helper()
	r := ustar.NewReader(bytes.NewReader(b), limits())
	for {
		e, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, entry{e.Name, string(text)})
	}
}

// TestForged: whoever makes a stick gets nothing past its manifest, and nothing of it is read
// before that is verified.
func TestForged(t *testing.T) {
	t.Parallel()
	good := entries(t, written(t, contents(t)))
	set := opened(t, keySet(t, 1, "release-1"))
	with := func(change func(e []entry) []entry) []byte { return raw(t, change(append([]entry{}, good...))...) }
	other := string(sign(t, trust.TypeRelease, encode(t, some(t, store{})), "thief"))
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"nothing":                      {nil, ErrBundle},
		"an empty tar":                 {raw(t), ErrBundle},
		"text":                         {[]byte(strings.Repeat("x", 4096)), ErrBundle},
		"a manifest of a thief":        {with(func(e []entry) []entry { e[0].text = other; return e }), trust.ErrSignatures},
		"a manifest that is not first": {with(func(e []entry) []entry { return append(e[1:], e[0]) }), ErrBundle},
		"a manifest without end":       {with(func(e []entry) []entry { e[0].text += strings.Repeat(" ", trust.MaxEnvelope); return e }), ErrBundle},
		"a key set of a thief": {with(func(e []entry) []entry {
			e[1].text = string(sign(t, trust.TypeKeySet, []byte(`{}`), "thief"))
			return e
		}), trust.ErrSignatures},
		"a key set under another number": {with(func(e []entry) []entry { e[1].name, e[2].name = "keysets/4.json", "keysets/5.json"; return e }), ErrBundle},
		"key sets that fall":             {with(func(e []entry) []entry { e[1], e[2] = e[2], e[1]; return e }), ErrBundle},
		"a key set named otherwise":      {with(func(e []entry) []entry { e[1].name = "keysets/02.json"; return e }), ErrBundle},
		"many key sets": {with(func(e []entry) []entry {
			out := e[:1:1]
			for i := range MaxKeySets + 1 {
				out = append(out, entry{fmt.Sprintf("keysets/%d.json", i+2), "x"})
			}
			return append(out, e[3:]...)
		}), ErrBundle},
		"a key set among the objects":  {with(func(e []entry) []entry { return append(e, entry{"keysets/9.json", "x"}) }), ErrBundle},
		"directives after the objects": {with(func(e []entry) []entry { return append(append(append([]entry{}, e[:3]...), e[4:]...), e[3]) }), ErrBundle},
		"an object that nobody named":  {with(func(e []entry) []entry { return append(e, entry{"objects/" + strings.Repeat("0", 64), "x"}) }), ErrBundle},
		"an object longer than signed": {with(func(e []entry) []entry { e[5].text += "x"; return e }), ErrBundle},
		"objects in another order":     {with(func(e []entry) []entry { e[4], e[5] = e[5], e[4]; return e }), ErrBundle},
		"no way to the program":        {with(func(e []entry) []entry { return append(e[:5:5], e[6:]...) }), ErrBundle},
		"no way to the model":          {with(func(e []entry) []entry { return e[:6] }), ErrBundle},
		"a file beside them":           {with(func(e []entry) []entry { return append(e, entry{"readme.txt", "x"}) }), ErrBundle},
		"a path upwards":               {with(func(e []entry) []entry { return append(e, entry{"objects/../../etc/passwd", "x"}) }), ErrBundle},
		"cut":                          {with(func(e []entry) []entry { return e })[:20_000], ErrBundle},
		"bytes after it":               {append(with(func(e []entry) []entry { return e }), "x"...), ErrBundle},
	} {
		if _, _, err := board(c.b, set); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, wants %v", name, err, c.want)
		}
		if _, err := stream(c.b, set); !errors.Is(err, c.want) {
			t.Errorf("%s, as a stream: %v, wants %v", name, err, c.want)
		}
	}
	// Patches may be left out: they are for some boards alone.
	if _, _, err := board(with(func(e []entry) []entry { return append(e[:4:4], e[5:]...) }), set); err != nil {
		t.Errorf("without the patch: %v", err)
	}
	// An index with the manifest of another release.
	f, err := Open(bytes.NewReader(with(func(e []entry) []entry { return e })), int64(len(with(func(e []entry) []entry { return e }))))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Index(&release.Opened{Manifest: some(t, store{})}); !errors.Is(err, ErrBundle) {
		t.Errorf("with another manifest: %v", err)
	}
	// Directives that are no lines of JSON are an error where they are asked for.
	for _, text := range []string{"{}x\n", strings.Repeat("x", maxLine+1), `{"tenant":"a","tenant":"b"}` + "\n"} {
		f, _, err := board(with(func(e []entry) []entry { e[3].text = text; return e }), set)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Directive("default", "dock-9", "agent"); !errors.Is(err, ErrBundle) {
			t.Errorf("directives %.20q: %v", text, err)
		}
	}
}

// huge is a bundle whose object has no end to speak of: a header and zeros.
type huge struct {
	head []byte
	size int64
	read int64
}

func (h *huge) ReadAt(b []byte, at int64) (int, error) {
	n := 0
	if at < int64(len(h.head)) {
		n = copy(b, h.head[at:])
	}
	clear(b[n:])
	h.read += int64(len(b))
	return len(b), nil
}

// TestMemory: opening and indexing a bundle of 8 GiB reads and holds little.
func TestMemory(t *testing.T) {
	s := store{}
	m := some(t, s)
	m.Components[1].Files[0].Size = 8 << 30
	m.Components[1].Files[1].Size = 8 << 30
	envelope := sign(t, trust.TypeRelease, encode(t, m), "release-1")
	var b bytes.Buffer
	w := ustar.NewWriter(&b)
	for _, e := range []entry{{manifestName, string(envelope)}, {"objects/" + m.Components[0].Files[0].Encodings[1].Tree.String(), "packed"}} {
		if err := w.Create(e.name, int64(len(e.text))); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Create("objects/"+m.Components[1].Files[0].Tree.String(), 8<<30); err != nil {
		t.Fatal(err)
	}
	h := &huge{head: b.Bytes(), size: int64(b.Len()) + 8<<30 + 1024}
	set := opened(t, keySet(t, 1, "release-1"))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f, err := Open(h, h.size)
	if err != nil {
		t.Fatal(err)
	}
	o, err := release.Open(set, f.Envelope(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Index(o); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 512<<10 || h.read > 64<<10 {
		t.Errorf("it took %d bytes of memory and read %d of the file", n, h.read)
	}
}

// FuzzBundle: no file makes a board panic, or gives it an object of another size.
func FuzzBundle(f *testing.F) {
	b := written(f, contents(f))
	set := opened(f, keySet(f, 1, "release-1"))
	f.Add(b)
	f.Add(b[:2048])
	f.Fuzz(func(t *testing.T, b []byte) {
		x, m, err := board(b, set)
		if _, serr := stream(b, set); (err == nil) != (serr == nil) {
			t.Fatalf("in place %v, as a stream %v", err, serr)
		}
		if err != nil {
			return
		}
		for _, o := range Objects(m.Manifest) {
			if r := x.Object(o); r != nil && r.Size() != o.Size {
				t.Fatalf("object of %d bytes, wants %d", r.Size(), o.Size)
			}
		}
		_, _ = x.Directive("default", "dock-9", "agent")
	})
}
