// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package releases_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/audit"
	"fulmar/fleet/keyring"
	"fulmar/fleet/objects"
	"fulmar/fleet/registry"
	"fulmar/fleet/registry/releaserows"
	"fulmar/fleet/releases"
	"fulmar/fleet/releases/releasetest"
	"fulmar/internal/ustar"
	"fulmar/ota/release"
	"fulmar/schema"
	"fulmar/schema/rest"
	"fulmar/trust"
)

// store is the real store of objects, as the server joins it.
type store struct{ *objects.Store }

func (s store) Put(_ context.Context, o release.Object, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := s.Store.Put(f, o); errors.Is(err, objects.ErrOther) {
		return errors.Join(releases.ErrWrong, err)
	} else if err != nil {
		return err
	}
	return os.Remove(path)
}

func (s store) Open(tree release.Hash) (*os.File, error) { return s.File(tree) }

// hall is the releases of one server.
type hall struct {
	*releases.Releases
	t       testing.TB
	dir     string
	key     *trust.Signer
	reg     *registry.Registry
	store   *objects.Store
	uses    []string
	running map[string]map[string]int
	maker   releases.Maker
	bytes   int64
}

func open(t testing.TB, bytes int64, maker releases.Maker) *hall {
	h := &hall{t: t, dir: t.TempDir(), bytes: bytes, maker: maker}
	h.key = releasetest.Key(t, h.dir)
	h.open()
	return h
}

func (h *hall) open() {
	h.t.Helper()
	keys, err := keyring.Open(filepath.Join(h.dir, keyring.Dir), nil)
	if err == nil {
		h.reg, err = registry.Open(h.dir)
	}
	if err == nil {
		h.store, err = objects.Open(filepath.Join(h.dir, "objects"), 0)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	reg := h.reg
	h.t.Cleanup(func() { _ = reg.Close() })
	h.Releases, err = releases.New(h.t.Context(), releases.Config{
		Rows: reg.Releases(), Objects: store{h.store}, Dir: filepath.Join(h.dir, "incoming"), Set: keys.Set(), Bytes: h.bytes, Maker: h.maker, Log: slog.New(slog.DiscardHandler),
		Uses: func(_, name string) []string {
			if name == "old" || name == "odd" {
				return nil
			}
			return h.uses
		},
		Running: func(context.Context, string) (map[string]map[string]int, error) { return h.running, nil },
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

const tenant = "default"

func by() access.Caller { return releasetest.By(tenant) }

func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = r.Read(b)
	return b
}

// audited is what the audit log holds of releases.
func (h *hall) audited() (out []string) {
	h.t.Helper()
	err := h.reg.Audit().Each(h.t.Context(), 0, func(e audit.Entry) error {
		if e.What == "release" {
			out = append(out, e.Who+": "+e.Why)
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// TestUpload: in three steps, with cuts, repetitions and a restart in between.
func TestUpload(t *testing.T) {
	t.Parallel()
	h := open(t, 0, nil)
	agent := noise(1, 300_000)
	m := &release.Manifest{Release: "1.9.0", Components: []release.Component{releasetest.Part(t, "agent", "1.9.0", "fulmard", agent)}}
	envelope := releasetest.Sign(t, m, h.key)
	v, err := h.Begin(t.Context(), by(), envelope)
	if err != nil || v.State != rest.ReleaseIncomplete || len(v.Missing) != 1 || v.Missing[0].Size != 300_000 || len(v.Signers) != 1 || !v.Trusted {
		t.Fatalf("%+v, %v", v, err)
	}
	tree := v.Missing[0].Tree
	if _, err := h.Complete(t.Context(), by(), "1.9.0"); !errors.Is(err, releases.ErrMissing) {
		t.Errorf("complete without its objects: %v", err)
	}
	if _, err := h.Want(tenant, "agent", "1.9.0"); !errors.Is(err, releases.ErrMissing) {
		t.Errorf("wanted without its objects: %v", err)
	}
	if _, _, ok := h.Known(tenant, release.Hash(releasetest.Object(t, agent).Tree)); ok {
		t.Error("boards may have an object of a release that is not complete")
	}
	cut := io.MultiReader(bytes.NewReader(agent[:100_000]), iotest.ErrReader(io.ErrUnexpectedEOF))
	if o, err := h.Put(t.Context(), by(), tree, 0, cut); err == nil || o.Have != 100_000 {
		t.Errorf("a cut upload: %+v, %v", o, err)
	}
	h.open() // the server dies
	if v, err = h.Begin(t.Context(), by(), envelope); err != nil || v.Missing[0].Have != 100_000 {
		t.Fatalf("begun again: %+v, %v", v, err)
	}
	var at *releases.OffsetError
	if _, err := h.Put(t.Context(), by(), tree, 0, bytes.NewReader(agent)); !errors.As(err, &at) || at.Have != 100_000 {
		t.Errorf("from the beginning again: %v", err)
	}
	if _, err := h.Put(t.Context(), by(), tree, 100_000, io.MultiReader(bytes.NewReader(agent[100_000:]), strings.NewReader("more"))); !errors.Is(err, releases.ErrWrong) {
		t.Errorf("longer than it is: %v", err)
	}
	if o, _ := h.Object(by(), tree); !o.Done && o.Have != o.Size {
		t.Errorf("%+v", o)
	}
	if o, err := h.Put(t.Context(), by(), tree, 300_000, strings.NewReader("")); err != nil || !o.Done {
		t.Fatalf("the last bytes were here: %+v, %v", o, err)
	}
	if v, err = h.Complete(t.Context(), by(), "1.9.0"); err != nil || v.State != rest.ReleaseReady || v.Have != v.Bytes || len(v.Missing) != 0 {
		t.Fatalf("%+v, %v", v, err)
	}
	w, err := h.Want(tenant, "agent", "1.9.0")
	if err != nil || !bytes.Equal(w.Envelope, envelope) || w.Bytes != 300_000 || !w.Runs("1.9.0") || w.Runs("1.8") {
		t.Errorf("%+v, %v", w, err)
	}
	if _, err := h.Want(tenant, "worker", "1.9.0"); !errors.Is(err, releases.ErrUnknown) || !strings.Contains(err.Error(), "it has agent") {
		t.Errorf("another component: %v", err)
	}
	if o, parts, ok := h.Known(tenant, release.Hash(releasetest.Object(t, agent).Tree)); !ok || o.Size != 300_000 || !slices.Equal(parts, []string{"agent"}) {
		t.Errorf("%+v %v %v", o, parts, ok)
	}
	if _, _, ok := h.Known("other", release.Hash(releasetest.Object(t, agent).Tree)); ok {
		t.Error("another tenant has it")
	}
	if log := h.audited(); len(log) != 2 || !strings.HasPrefix(log[0], "rel: 1.9.0 of epoch 0 began") || log[1] != "rel: 1.9.0 is complete" {
		t.Errorf("%q", log)
	}
}

// TestRefused: each thing that is not taken, with its reason, and nothing is left of it.
func TestRefused(t *testing.T) {
	t.Parallel()
	h := open(t, 1<<20, nil)
	part := releasetest.Part(t, "agent", "2", "fulmard", []byte("two"))
	manifest := func(name string, epoch uint64) *release.Manifest {
		return &release.Manifest{Release: name, Epoch: epoch, Components: []release.Component{part}}
	}
	releasetest.Bring(t.Context(), t, h.Releases, tenant, releasetest.Sign(t, manifest("2", 5), h.key), []byte("two"))
	stranger, err := trust.NewKeyFile(filepath.Join(t.TempDir(), "key"), trust.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	director, err := trust.OpenSigner("file:"+filepath.Join(h.dir, keyring.Dir, "director.key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	big := manifest("3", 5)
	big.Components[0].Files = []release.File{{Path: "f", Object: release.Object{SHA256: release.Hash{1}, Tree: release.Hash{2}, Size: 2 << 20}}}
	other := manifest("2", 5)
	other.Notes = "another"
	clash := manifest("3", 5)
	o := releasetest.Object(t, []byte("two"))
	o.SHA256[0] ^= 1
	clash.Components = []release.Component{{Name: "agent", Version: "2", Files: []release.File{{Path: "f", Object: o}}}}
	for name, c := range map[string]struct {
		envelope []byte
		want     error
	}{
		"unsigned":            {releasetest.Sign(t, manifest("3", 5)), releases.ErrUntrusted},
		"a stranger's":        {releasetest.Sign(t, manifest("3", 5), stranger), releases.ErrUntrusted},
		"the director's":      {releasetest.Sign(t, manifest("3", 5), director), releases.ErrUntrusted},
		"noise":               {[]byte("noise"), releases.ErrUntrusted},
		"a lower epoch":       {releasetest.Sign(t, manifest("3", 4), h.key), releases.ErrEpoch},
		"an epoch of the end": {releasetest.Sign(t, manifest("3", 1<<63), h.key), releases.ErrUntrusted},
		"the name of another": {releasetest.Sign(t, other, h.key), releases.ErrTaken},
		"too large":           {releasetest.Sign(t, big, h.key), releases.ErrFull},
		"one tree, two files": {releasetest.Sign(t, clash, h.key), releases.ErrUntrusted},
	} {
		if v, err := h.Begin(t.Context(), by(), c.envelope); !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
	if _, err := h.Begin(t.Context(), access.Caller{Tenant: tenant, Rights: rest.Operator.Rights()}, releasetest.Sign(t, manifest("4", 5), h.key)); !errors.Is(err, access.ErrNotAllowed) {
		t.Errorf("without the right: %v", err)
	}
	if all, err := h.List(t.Context(), by()); err != nil || len(all) != 1 {
		t.Errorf("%d releases, %v", len(all), err)
	}
	h.uses = []string{"r-1"}
	if err := h.Remove(t.Context(), by(), "2"); !errors.Is(err, releases.ErrInUse) {
		t.Errorf("in use: %v", err)
	}
	h.uses = nil
	if err := h.Remove(t.Context(), by(), "2"); err != nil || h.store.Has(releasetest.Object(t, []byte("two")).Tree) {
		t.Errorf("removed: %v, its object is here still", err)
	}
	// Its epoch outlives it, also over a restart.
	h.open()
	if _, err := h.Begin(t.Context(), by(), releasetest.Sign(t, manifest("3", 4), h.key)); !errors.Is(err, releases.ErrEpoch) {
		t.Errorf("a lower epoch after the removal: %v", err)
	}
	// What comes is not what was named.
	v, err := h.Begin(t.Context(), by(), releasetest.Sign(t, manifest("5", 6), h.key))
	if err != nil {
		t.Fatal(err)
	}
	if o, err := h.Put(t.Context(), by(), v.Missing[0].Tree, 0, strings.NewReader("owt")); !errors.Is(err, releases.ErrWrong) || o.Have != 0 {
		t.Errorf("another content: %+v, %v", o, err)
	}
}

// TestDropped: a release whose keys were dropped from the set is shown as refused, and no
// plan takes it.
func TestDropped(t *testing.T) {
	t.Parallel()
	h := open(t, 0, nil)
	releasetest.Known(t.Context(), t, h.Releases, tenant, "1", h.key, "agent")
	if err := os.RemoveAll(filepath.Join(h.dir, keyring.Dir)); err != nil {
		t.Fatal(err)
	}
	h.open()
	if v, err := h.Get(t.Context(), by(), "1"); err != nil || v.Trusted || v.State != rest.ReleaseReady {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := h.Want(tenant, "agent", "1"); !errors.Is(err, releases.ErrUntrusted) {
		t.Errorf("%v", err)
	}
}

// TestMatches: what a board attests is one of the files, also of one that is packed.
func TestMatches(t *testing.T) {
	t.Parallel()
	h := open(t, 0, nil)
	var packed bytes.Buffer
	w := ustar.NewWriter(&packed)
	onnx := noise(3, 1000)
	if err := errors.Join(w.Create("parcels.onnx", 1000), func() error { _, err := w.Write(onnx); return err }(), w.Create("empty", 0), w.Close()); err != nil {
		t.Fatal(err)
	}
	agent := []byte("agent")
	c := releasetest.Part(t, "model/parcels", "7", "parcels.tar", packed.Bytes())
	c.Files[0].Unpack, c.Files[0].Unpacked = true, 1000
	infer := []byte("worker")
	m := &release.Manifest{Release: "r", Components: []release.Component{c, releasetest.Part(t, "agent", "1", "fulmard", agent), releasetest.Part(t, "worker", "2", "fulmar-infer", infer)}}
	releasetest.Bring(t.Context(), t, h.Releases, tenant, releasetest.Sign(t, m, h.key), packed.Bytes(), agent, infer)
	h.open() // from its row
	sum := func(b []byte) []byte { s := releasetest.Object(t, b).SHA256; return s[:] }
	model, err := h.Want(tenant, "model/parcels", "r")
	if err != nil {
		t.Fatal(err)
	}
	program, err := h.Want(tenant, "agent", "r")
	if err != nil {
		t.Fatal(err)
	}
	if why := program.Matches(&schema.AttestReport{Program: sum(agent)}); why != "" {
		t.Error(why)
	}
	if why := model.Matches(&schema.AttestReport{Models: map[string][]byte{"parcels": sum(onnx)}}); why != "" {
		t.Error(why)
	}
	worker, err := h.Want(tenant, "worker", "r")
	if err != nil {
		t.Fatal(err)
	}
	runs := func(version string, files map[string][]byte) *schema.AttestReport {
		return &schema.AttestReport{Components: map[string]string{"worker": version}, Files: files}
	}
	for _, r := range []*schema.AttestReport{
		runs("2", map[string][]byte{"worker/fulmar-infer": sum(infer), "worker/libonnxruntime.so.1": sum(onnx)}),
		runs("2", nil), // of a fulmard that told no files
		runs("2", map[string][]byte{"config/site.yaml": sum(onnx)}),
	} {
		if why := worker.Matches(r); why != "" {
			t.Error(why)
		}
	}
	for name, why := range map[string]string{
		"another version": worker.Matches(runs("1", map[string][]byte{"worker/fulmar-infer": sum(infer)})),
		"another file":    worker.Matches(runs("2", map[string][]byte{"worker/fulmar-infer": sum(agent)})),
		"not that file":   worker.Matches(runs("2", map[string][]byte{"worker/other": sum(infer)})),
		"another program": program.Matches(&schema.AttestReport{Program: sum(onnx)}),
		"another model":   model.Matches(&schema.AttestReport{Models: map[string][]byte{"parcels": sum(agent)}}),
		"no model":        model.Matches(&schema.AttestReport{Program: sum(onnx), Models: map[string][]byte{"other": sum(onnx)}}),
	} {
		if why == "" {
			t.Errorf("%s is taken", name)
		}
	}
}

// TestPatches: for what boards run, most first; kept over a restart; one that is no
// shorter is not kept; and removed with its release.
func TestPatches(t *testing.T) {
	t.Parallel()
	var made []string
	maker := func(_ context.Context, base, target, out *os.File) (string, error) {
		b, err := io.ReadAll(base)
		if err != nil {
			return "", err
		}
		made = append(made, string(b[:3]))
		if string(b[:3]) == "new" {
			return "", errors.New("no such pair")
		}
		if string(b[:3]) == "odd" { // as long as the target
			_, err := io.Copy(out, target)
			return "elf", err
		}
		_, err = out.WriteString("patch from " + string(b[:3]))
		return "elf", err
	}
	h := open(t, 0, maker)
	for _, name := range []string{"old", "odd", "new"} {
		content := append([]byte(name), noise(9, 5000)...)
		m := &release.Manifest{Release: name, Components: []release.Component{releasetest.Part(t, "agent", name+"-v", "fulmard", content)}}
		releasetest.Bring(t.Context(), t, h.Releases, tenant, releasetest.Sign(t, m, h.key), content)
	}
	h.running = map[string]map[string]int{"agent": {"old-v": 9, "odd": 20, "unknown": 70}}
	run := func(until func(v *rest.Release) bool) *rest.Release {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.Run(ctx) }()
		defer func() { cancel(); <-done }()
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if v, err := h.Get(t.Context(), by(), "new"); err != nil {
				t.Fatal(err)
			} else if until(v) {
				return v
			}
		}
		t.Fatal("the patches did not come")
		return nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	if err := h.Run(ctx); err != nil || len(made) != 0 {
		t.Fatalf("made for a release that nobody wants: %q, %v", made, err)
	}
	cancel()
	h.uses = []string{"r-1"}
	v := run(func(v *rest.Release) bool {
		return len(v.Patches) == 2 && !slices.ContainsFunc(v.Patches, func(p rest.ReleasePatch) bool { return p.State == "waiting" || p.State == "making" })
	})
	by2 := map[string]rest.ReleasePatch{}
	for _, p := range v.Patches {
		by2[p.From] = p
	}
	if by2["old"].State != "made" || by2["old"].Bytes != 14 || by2["old"].Boards != 9 || by2["odd"].State != "useless" || made[0] != "odd" {
		t.Errorf("%+v, in the order %q", v.Patches, made)
	}
	h.open()
	w, err := h.Want(tenant, "agent", "new")
	if err != nil {
		t.Fatal(err)
	}
	p := w.Patches(h.Releases, "old")
	if len(p) != 1 || p[0].Codec != "elf" || p[0].From == nil || p[0].Check() != nil || !h.store.Has(p[0].Tree) {
		t.Fatalf("%+v", p)
	}
	if _, parts, ok := h.Known(tenant, p[0].Tree); !ok || !slices.Equal(parts, []string{"agent"}) {
		t.Error("boards may not have the patch")
	}
	if len(w.Patches(h.Releases, "odd")) != 0 || len(w.Patches(h.Releases, "unknown")) != 0 {
		t.Error("a patch that there is not")
	}
	h.uses = nil
	if err := h.Remove(t.Context(), by(), "new"); err != nil || h.store.Has(p[0].Tree) {
		t.Errorf("the patch outlives its release: %v", err)
	}
	if rows, err := h.reg.Releases().Patches(t.Context()); err != nil || slices.ContainsFunc(rows, func(r releaserows.Patch) bool { return r.Size == 14 }) {
		t.Errorf("%+v, %v", rows, err)
	}
}
