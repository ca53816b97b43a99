// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"fulmar/internal/ustar"
	"fulmar/ota"
	"fulmar/ota/bundle"
	"fulmar/ota/prove"
	"fulmar/ota/release"
	"fulmar/schema/onboard"
	"fulmar/trust"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func keyOf(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func sign(typ trust.Type, payload []byte, by ...string) []byte {
	e := must(trust.NewEnvelope(typ, payload))
	for _, name := range by {
		if err := e.Sign(keyOf(name)); err != nil {
			panic(err)
		}
	}
	return must(e.Encode())
}

// keySet is version n of a fleet: its release key is called release-n.
func keySet(n uint64, root string) []byte {
	key := func(role trust.Role, name string) trust.Key {
		return trust.Key{Role: role, Public: keyOf(name).Public()}
	}
	s := &trust.KeySet{
		Version: n, Thresholds: map[trust.Role]int{trust.RoleRoot: 1, trust.RoleRelease: 1, trust.RoleDirector: 1},
		Keys: []trust.Key{key(trust.RoleRoot, root), key(trust.RoleRelease, fmt.Sprint("release-", n)), key(trust.RoleDirector, "director")},
	}
	return sign(trust.TypeKeySet, must(s.Encode()), root)
}

// world is a release and a board that it is brought to.
type world struct {
	objects  map[release.Hash]string
	manifest *release.Manifest
	contents *bundle.Contents
	set      *trust.KeySet // nil: the board has none
	learned  int
	offered  []ota.Order
	refuse   error // of each offer
	dir      string
	shelf    *Shelf
}

func (w *world) put(text string) release.Object {
	o, _, err := release.Describe(strings.NewReader(text))
	if err != nil {
		panic(err)
	}
	w.objects[o.Tree] = text
	return o
}

// nothing is an installer of a board on which nothing runs; it is no base of any patch.
type nothing struct{ ota.Installer }

func (nothing) Running(context.Context) (string, error) { return "", nil }

func (nothing) Base(context.Context, release.Hash) (string, error) { return "", ota.ErrNoBase }

// network is the fetcher behind a shelf.
type network struct{}

var errNetwork = errors.New("the network was asked")

func (network) Fetch(context.Context, release.Object, func(have, all int64)) (string, error) {
	return "", errNetwork
}

func (network) Drop(release.Object) error { return nil }

// newWorld is a release of a config and a model that release-2 signed, and a board that
// knows key set 1, updates no model and has nothing.
func newWorld(t *testing.T) *world {
	w := &world{objects: map[release.Hash]string{}, dir: filepath.Join(t.TempDir(), "ota.bundle")}
	base := w.put("an older one")
	w.manifest = &release.Manifest{V: 1, Release: "1.9.0", Epoch: 3, Components: []release.Component{
		{Name: "config", Version: "2", Files: []release.File{
			{Path: "a.yaml", Object: w.put(strings.Repeat("a", 3000)), Encodings: []release.Encoding{{Codec: "elf", From: &base.SHA256, Object: w.put("a patch")}}},
			{Path: "b.yaml", Object: w.put(strings.Repeat("b", 700))},
		}},
		{Name: "model/parcels", Version: "7", Files: []release.File{{Path: "model.onnx", Object: w.put("weights")}}},
	}}
	w.contents = &bundle.Contents{
		Envelope: sign(trust.TypeRelease, must(w.manifest.Encode()), "release-2"), KeySets: [][]byte{keySet(2, "root")},
		Open: func(o release.Object) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(w.objects[o.Tree])), nil
		},
	}
	w.learnFirst(keySet(1, "root"))
	w.shelf = NewShelf(w.dir, network{})
	return w
}

func (w *world) learnFirst(envelope []byte) {
	e := must(trust.ParseEnvelope(envelope))
	w.set = must(trust.OpenKeySet(e, sha256.Sum256(e.Unverified())))
}

func (w *world) config() Config {
	return Config{
		Shelf: w.shelf,
		Keys: func() (*trust.KeySet, error) {
			if w.set == nil {
				return nil, errors.New("no key set is in force")
			}
			return w.set, nil
		},
		Learn: func(envelope []byte) (bool, error) {
			if w.set == nil {
				w.learnFirst(envelope)
				return true, nil
			}
			e, err := trust.ParseEnvelope(envelope)
			if err != nil {
				return false, err
			}
			next, err := w.set.Next(e)
			if err != nil {
				return false, err
			}
			w.set = next
			w.learned++
			return true, nil
		},
		Board: func() (prove.Board, error) {
			return prove.Board{Tenant: "default", Name: "dock-9", Floor: 2, Attempts: func(string) uint64 { return 4 }}, nil
		},
		Installer: func(component string) ota.Installer {
			if component != "config" {
				return nil
			}
			return nothing{}
		},
		Unmet: func(*release.Component) []string { return nil },
		Offer: func(o ota.Order) error {
			if w.refuse == nil {
				w.offered = append(w.offered, o)
			}
			return w.refuse
		},
	}
}

func (w *world) take(r io.Reader) (onboard.Taken, error) {
	return Take(context.Background(), w.config(), r)
}

func (w *world) bytes() []byte {
	var b bytes.Buffer
	if err := bundle.Write(&b, w.contents); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// left are the names in the shelf.
func (w *world) left() (names []string) {
	ents, err := os.ReadDir(w.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		panic(err)
	}
	for _, e := range ents {
		names = append(names, e.Name())
	}
	return names
}

// entry is one of a bundle that is put together by hand.
type entry struct{ name, text string }

func (w *world) entries() []entry {
	out := []entry{{"release.json", string(w.contents.Envelope)}, {"keysets/2.json", string(w.contents.KeySets[0])}}
	for _, o := range bundle.Objects(w.manifest) {
		out = append(out, entry{"objects/" + o.Tree.String(), w.objects[o.Tree]})
	}
	return out
}

func packed(all []entry) []byte {
	var b bytes.Buffer
	w := ustar.NewWriter(&b)
	for _, e := range all {
		if err := w.Create(e.name, int64(len(e.text))); err != nil {
			panic(err)
		}
		_ = must(w.Write([]byte(e.text)))
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// TestTake: a whole bundle is proven by the key set in it, what this board can use is kept
// and given before the network is asked, and the rest is said.
func TestTake(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got, err := w.take(bytes.NewReader(w.bytes()))
	if err != nil || got.Release != "1.9.0" || !slices.Equal(got.Components, []string{"config"}) || len(got.Skipped) != 1 || len(got.Signers) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	if len(w.offered) != 1 || !w.offered[0].Local || w.offered[0].Attempt != 0 || w.learned != 1 {
		t.Errorf("offered %+v with key set %d", w.offered, w.set.Version)
	}
	files := w.manifest.Component("config").Files
	want := []string{files[0].Tree.String(), files[1].Tree.String()} // not the patch, nor the model
	if slices.Sort(want); !slices.Equal(w.left(), want) {
		t.Errorf("kept are %v, wants %v", w.left(), want)
	}
	none := func(_, _ int64) {}
	path, err := w.shelf.Fetch(t.Context(), files[1].Object, none)
	if err != nil || string(must(os.ReadFile(path))) != strings.Repeat("b", 700) {
		t.Errorf("%s, %v", path, err)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("c", 700)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := w.shelf.Fetch(t.Context(), files[1].Object, none); !errors.Is(err, errNetwork) {
		t.Errorf("an object that the disk changed: %v", err)
	}
	if err := errors.Join(w.shelf.Drop(files[1].Object), w.shelf.Drop(files[1].Object), w.shelf.Clear()); err != nil || w.left() != nil {
		t.Errorf("left are %v, %v", w.left(), err)
	}
}

// TestTakeDirected: the director's word for this board makes it that attempt; an older one than
// the board knows is refused, and so is one that another board's is passed off as.
func TestTakeDirected(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		says, is string // board of the line, and of the statement
		attempt  uint64
		want     string // error
		got      uint64
	}{
		"ours":               {"dock-9", "dock-9", 7, "", 7},
		"another's":          {"dock-8", "dock-8", 7, "", 0}, // a person here stands in
		"another's, as ours": {"dock-9", "dock-8", 7, "is for board dock-8", 0},
		"an old one":         {"dock-9", "dock-9", 3, "attempt 3, and attempt 4 is known", 0},
	} {
		w := newWorld(t)
		d := &release.Directive{
			V: 1, Tenant: "default", Board: c.is, Rollout: "r-1", Component: "config", Release: "1.9.0", Attempt: c.attempt, Act: release.ActInstall,
			Manifest: sha256.Sum256(must(w.manifest.Encode())),
		}
		statement := must(d.Encode())
		p := must(trust.SignBatch(trust.TypeAssignment, [][]byte{statement}, keyOf("director")))[0]
		line := bundle.Directed{
			Tenant: "default", Board: c.says, Component: "config", Statement: statement,
			Envelope: p.Envelope, Index: uint32(p.Index), Count: uint32(p.Count), Path: p.Path,
		}
		w.contents.Directives = must(line.Line())
		_, err := w.take(bytes.NewReader(w.bytes()))
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) || len(w.offered) != 0 || w.left() != nil {
				t.Errorf("%s: %v; offered %v, left %v", name, err, w.offered, w.left())
			}
			continue
		}
		if err != nil || len(w.offered) != 1 || w.offered[0].Attempt != c.got || !w.offered[0].Local {
			t.Errorf("%s: %v, offered %+v", name, err, w.offered)
		}
	}
}

// endless gives the same bytes for ever, and counts them.
type endless struct {
	fill byte
	n    int64
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.fill
	}
	e.n += int64(len(p))
	return len(p), nil
}

// TestTakeRefuses: nothing is offered and nothing stays of what is not a bundle, whole and signed.
func TestTakeRefuses(t *testing.T) {
	t.Parallel()
	type made struct {
		r    io.Reader
		want string
		err  error
	}
	of := func(all []entry, want string, err error) made { return made{bytes.NewReader(packed(all)), want, err} }
	edit := func(w *world, i int, e entry) []entry {
		all := w.entries()
		all[i] = e
		return all
	}
	for name, make := range map[string]func(w *world) made{
		"empty": func(*world) made { return made{strings.NewReader(""), "", bundle.ErrBundle} },
		"a name under objects that is none": func(w *world) made {
			return of(append(w.entries(), entry{"objects/../x", "x"}), "may not be called", bundle.ErrBundle)
		},
		"a name of no entry": func(w *world) made {
			return of(append(w.entries(), entry{"readme", "x"}), "may not be called", bundle.ErrBundle)
		},
		"an object that the manifest does not name": func(w *world) made {
			return of(append(w.entries(), entry{"objects/" + strings.Repeat("ab", 32), "x"}), "not what the manifest has next", bundle.ErrBundle)
		},
		"another order": func(w *world) made {
			all := w.entries()
			all[3], all[4] = all[4], all[3]
			return of(all, "not what the manifest has next", bundle.ErrBundle)
		},
		"key sets behind objects": func(w *world) made {
			all := w.entries()
			return of(append(slices.Delete(all, 1, 2), entry{"keysets/2.json", string(w.contents.KeySets[0])}), "", trust.ErrSignatures)
		},
		"an object missing": func(w *world) made {
			return of(slices.Delete(w.entries(), 4, 5), "b.yaml of config is not in it", bundle.ErrBundle)
		},
		"a patch alone": func(w *world) made {
			return of(slices.Delete(w.entries(), 3, 4), "a.yaml of config is not in it, but for patches", bundle.ErrBundle)
		},
		"an object missing that this board does not take": func(w *world) made {
			return of(slices.Delete(w.entries(), 5, 6), "model.onnx of model/parcels is not in it", bundle.ErrBundle)
		},
		"other bytes": func(w *world) made {
			e := w.entries()[4]
			return of(edit(w, 4, entry{e.name, strings.Replace(e.text, "b", "c", 1)}), "not those that the release names", nil)
		},
		"another size": func(w *world) made {
			e := w.entries()[4]
			return of(edit(w, 4, entry{e.name, e.text + "b"}), "not what the manifest has next", bundle.ErrBundle)
		},
		"signed by nobody": func(w *world) made {
			return of(edit(w, 0, entry{"release.json", string(sign(trust.TypeRelease, must(w.manifest.Encode())))}), "", trust.ErrSignatures)
		},
		"signed by a stranger": func(w *world) made {
			return of(edit(w, 0, entry{"release.json", string(sign(trust.TypeRelease, must(w.manifest.Encode()), "stranger"))}), "", trust.ErrSignatures)
		},
		"signed by a key that the newest set has not": func(w *world) made {
			return of(edit(w, 0, entry{"release.json", string(sign(trust.TypeRelease, must(w.manifest.Encode()), "release-1"))}), "", trust.ErrSignatures)
		},
		"key sets of a stranger": func(w *world) made {
			return of(edit(w, 1, entry{"keysets/2.json", string(keySet(2, "stranger"))}), "key set 2", trust.ErrSignatures)
		},
		"key sets to a board that has none": func(w *world) made {
			w.set = nil
			return of(w.entries(), "no key set is in force", nil)
		},
		"an epoch that has ended": func(w *world) made {
			w.manifest.Epoch = 1
			return of(edit(w, 0, entry{"release.json", string(sign(trust.TypeRelease, must(w.manifest.Encode()), "release-2"))}), "", release.ErrEpoch)
		},
		"zeros without end": func(w *world) made {
			return made{io.MultiReader(bytes.NewReader(w.bytes()), &endless{}), "after its end", bundle.ErrBundle}
		},
		"an offer that is refused": func(w *world) made {
			w.refuse = ota.ErrFull
			return of(w.entries(), "", ota.ErrFull)
		},
		"a disk that breaks off": func(w *world) made {
			return made{io.MultiReader(io.LimitReader(bytes.NewReader(w.bytes()), int64(len(w.bytes())-900)), failing{}), "", io.ErrNoProgress}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			m := make(w)
			_, err := w.take(m.r)
			if err == nil || m.err != nil && !errors.Is(err, m.err) || !strings.Contains(err.Error(), m.want) {
				t.Errorf("%v, wants %q %v", err, m.want, m.err)
			}
			if len(w.offered) != 0 || len(w.left()) != 0 {
				t.Errorf("offered %v, left %v", w.offered, w.left())
			}
		})
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrNoProgress }

// TestTakeCut: a bundle that ends too early, wherever, leaves nothing.
func TestTakeCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	all := w.bytes()
	for n := 0; n < len(all); n += 173 {
		if got, err := w.take(bytes.NewReader(all[:n])); err == nil || len(w.offered) != 0 || len(w.left()) != 0 {
			t.Fatalf("the first %d bytes of %d: %+v, %v; left are %v", n, len(all), got, err, w.left())
		}
	}
}

// TestTakeStays: what an earlier bundle brought is not taken away by a later one that is cut.
func TestTakeStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	all := w.bytes()
	if _, err := w.take(bytes.NewReader(all)); err != nil {
		t.Fatal(err)
	}
	before := w.left()
	if _, err := w.take(bytes.NewReader(all[:len(all)-900])); !errors.Is(err, bundle.ErrBundle) {
		t.Errorf("a cut one: %v", err)
	}
	if !slices.Equal(before, w.left()) {
		t.Errorf("left are %v of %v", w.left(), before)
	}
}

// TestTakeEndless: what never ends is ended by its bounds, in little memory, or by who asked.
func TestTakeEndless(t *testing.T) {
	w := newWorld(t)
	head := func(name string, size int64) []byte {
		var b bytes.Buffer
		if err := ustar.NewWriter(&b).Create(name, size); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	object := w.manifest.Component("config").Files[1]
	front := packed(w.entries()[:2])
	front = front[:len(front)-1024] // without its end
	many := slices.Clone(front)
	for i := range bundle.MaxKeySets {
		one := packed([]entry{{fmt.Sprintf("keysets/%d.json", i+3), "x"}})
		many = append(many, one[:len(one)-1024]...)
	}
	for name, c := range map[string]struct {
		front []byte
		want  string
	}{
		"a manifest":         {head("release.json", 1<<30), "begins with release.json of"},
		"a key set":          {append(slices.Clone(front), head("keysets/3.json", 1<<40)...), "more than"}, // than a tar may have
		"a large key set":    {append(slices.Clone(front), head("keysets/3.json", 1<<30)...), "key set 3"},
		"key sets":           {many, "key set"},
		"directives":         {append(slices.Clone(front), head("directives.jsonl", 1<<30)...), "at most"},
		"a line":             {append(slices.Clone(front), head("directives.jsonl", bundle.MaxDirectives)...), "directives"},
		"an object":          {append(slices.Clone(front), head("objects/"+object.Tree.String(), 1<<37)...), "not what the manifest has next"},
		"bytes of no header": {nil, "header"},
	} {
		more := &endless{fill: 'x'}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := w.take(io.MultiReader(bytes.NewReader(c.front), more))
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), c.want) || len(w.offered) != 0 || len(w.left()) != 0 {
			t.Errorf("%s: %v; wants %q, left %v", name, err, c.want, w.left())
		}
		if more.n > bundle.MaxDirectives || after.TotalAlloc-before.TotalAlloc > 4<<20 {
			t.Errorf("%s: %d bytes were read and %d allocated", name, more.n, after.TotalAlloc-before.TotalAlloc)
		}
	}
	left := &bounded{t.Context(), &endless{}, 1000}
	if n, err := io.Copy(io.Discard, left); n != 1000 || err == nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	all := w.bytes()
	_, err := Take(ctx, w.config(), io.MultiReader(bytes.NewReader(all[:len(all)-900]), ending(cancel), bytes.NewReader(all[len(all)-900:])))
	if !errors.Is(err, context.Canceled) || len(w.offered) != 0 || len(w.left()) != 0 {
		t.Errorf("who asked has gone: %v", err)
	}
}

// ending calls it when it is read.
type ending func()

func (e ending) Read([]byte) (int, error) {
	e()
	return 0, io.EOF
}

// TestTakeOne: one bundle at a time, and what is being taken in is not cleared away.
func TestTakeOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	all := w.bytes()
	asked := 0
	between := ending(func() {
		asked++
		if _, err := w.take(bytes.NewReader(all)); !errors.Is(err, ErrBusy) {
			t.Errorf("a second one: %v", err)
		}
		if err := w.shelf.Clear(); err != nil || len(w.left()) == 0 {
			t.Errorf("cleared: %v, left %v", err, w.left())
		}
	})
	if _, err := w.take(io.MultiReader(bytes.NewReader(all[:len(all)-900]), between, bytes.NewReader(all[len(all)-900:]))); err != nil || asked != 1 {
		t.Errorf("%v after %d", err, asked)
	}
}
