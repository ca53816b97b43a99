// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/release/source"
	"fulmar/internal/cli"
	"fulmar/ota/bundle"
	rel "fulmar/ota/release"
	"fulmar/schema/rest"
	"fulmar/trust"
)

// run runs fulmar release with some words.
func run(words ...string) (out, errs string, err error) {
	var o, e bytes.Buffer
	root := cli.Root(&cobra.Command{Use: "fulmar"}, "test")
	root.AddCommand(Command())
	_, err = cli.Execute(context.Background(), root, append([]string{"release"}, words...), &o, &e)
	return o.String(), e.String(), err
}

func must(t testing.TB, words ...string) string {
	t.Helper()
	out, errs, err := run(words...)
	if err != nil {
		t.Fatalf("fulmar release %v: %v\n%s%s", words, err, out, errs)
	}
	return out
}

// desk is a folder with files of components.
type desk struct {
	testing.TB
	dir string
}

func newDesk(t testing.TB) desk { return desk{t, t.TempDir()} }

func (d desk) path(names ...string) string {
	return filepath.Join(append([]string{d.dir}, names...)...)
}

func (d desk) write(name, text string) {
	d.Helper()
	p := d.path(name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o644)); err != nil {
		d.Fatal(err)
	}
}

// key makes a release key and a key set that knows it.
func (d desk) key() (ref, set string) {
	d.Helper()
	k, err := trust.NewKeyFile(d.path("release.pem"), trust.Ed25519)
	if err != nil {
		d.Fatal(err)
	}
	seed := sha256.Sum256([]byte("root"))
	root := ed25519.NewKeyFromSeed(seed[:])
	s := &trust.KeySet{Version: 1, Thresholds: map[trust.Role]int{trust.RoleRoot: 1, trust.RoleRelease: 1}, Keys: []trust.Key{{Role: trust.RoleRoot, Public: root.Public()}, {Role: trust.RoleRelease, Public: k.Public()}}}
	payload, err := s.Encode()
	if err != nil {
		d.Fatal(err)
	}
	e, err := trust.NewEnvelope(trust.TypeKeySet, payload)
	if err == nil {
		err = e.Sign(root)
	}
	if err != nil {
		d.Fatal(err)
	}
	text, err := e.Encode()
	if err != nil {
		d.Fatal(err)
	}
	d.write("set.json", string(text))
	return "file:" + d.path("release.pem"), d.path("set.json")
}

func (d desk) manifest(release string) *rel.Manifest {
	d.Helper()
	b, err := os.ReadFile(d.path(release, source.ManifestFile))
	if err != nil {
		d.Fatal(err)
	}
	m, err := rel.Parse(b)
	if err != nil {
		d.Fatal(err)
	}
	return m
}

// files of 200 kB that have most in common, and do not shrink by packing alone.
func program(version string) string {
	var b strings.Builder
	sum := sha256.Sum256([]byte("seed"))
	for b.Len() < 200_000 {
		sum = sha256.Sum256(sum[:])
		b.Write(sum[:])
	}
	return b.String()[:100_000] + version + b.String()[100_000:]
}

// TestCreateIsTheSame: the same files give the same release, byte for byte, wherever they lie.
func TestCreateIsTheSame(t *testing.T) {
	t.Parallel()
	sums := map[string]bool{}
	for range 2 {
		d := newDesk(t)
		d.write("agent/fulmard", program("1.9.0"))
		d.write("old/fulmard", program("1.8.2"))
		for i := range 30 {
			d.write(fmt.Sprintf("model/golden/%02d.json", i), fmt.Sprintf(`{"picture": %d}`, i))
		}
		d.write("model/model.onnx", strings.Repeat("weights ", 20_000))
		must(t, "create", "--release", "1.8.2", "--epoch", "2", "--component", "agent="+d.path("old")+"@1.8.2", "--out", d.path("r1"))
		must(t, "create", "--release", "1.9.0", "--epoch", "2", "--component", "agent="+d.path("agent")+"@1.9.0", "--component", "model/parcels="+d.path("model")+"@7", "--from", d.path("r1"), "--out", d.path("r2"))
		m := d.manifest("r2")
		model := m.Component("model/parcels")
		if len(model.Files) != 2 || !model.Files[0].Unpack || model.Files[0].Path != "files.tar" || len(model.Files[0].Encodings) != 1 {
			t.Errorf("the small files of a model are not in one: %+v", model.Files)
		}
		if e := m.Component("agent").Files[0].Encodings; len(e) != 1 || e[0].From == nil || e[0].Size > 2000 {
			t.Errorf("no patch for the program: %+v", e)
		}
		ref, set := d.key()
		must(t, "sign", ref, d.path("r2"))
		must(t, "verify", "--set", set, "--from", d.path("r1"), d.path("r2"))
		h := sha256.New()
		h.Write([]byte(must(t, "inspect", d.path("r2", source.ManifestFile))))
		if err := os.CopyFS(d.path("copy"), os.DirFS(d.path("r2", source.ObjectsDir))); err != nil {
			t.Fatal(err)
		}
		list, err := os.ReadDir(d.path("copy"))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			b, err := os.ReadFile(d.path("copy", e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(h, "%s %x\n", e.Name(), sha256.Sum256(b))
		}
		sums[hex.EncodeToString(h.Sum(nil))] = true
		// Nothing is left beside it.
		if list, err = os.ReadDir(d.dir); err != nil || slices.ContainsFunc(list, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") }) {
			t.Errorf("something was left: %v %v", list, err)
		}
	}
	if len(sums) != 1 {
		t.Error("the same files gave two releases")
	}
}

// TestBundleOfTheSame: a bundle of the same release is the same file, has what an offline board
// needs, and an earlier release may be a bundle.
func TestBundleOfTheSame(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.write("old/fulmard", program("1.8.2")+strings.Repeat("packs well ", 50_000))
	d.write("new/fulmard", program("1.9.0")+strings.Repeat("packs well ", 50_000))
	ref, set := d.key()
	must(t, "create", "--release", "1.8.2", "--epoch", "2", "--component", "agent="+d.path("old")+"@1.8.2", "--out", d.path("r1"))
	must(t, "sign", ref, d.path("r1"))
	must(t, "bundle", "--keyset", set, "--out", d.path("r1.tar"), d.path("r1"))
	must(t, "bundle", "--keyset", set, "--out", d.path("again.tar"), d.path("r1"))
	a, err := os.ReadFile(d.path("r1.tar"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(d.path("again.tar")); err != nil || !bytes.Equal(a, b) {
		t.Errorf("two bundles: %v", err)
	}
	// Its base is packed in the bundle alone.
	must(t, "create", "--release", "1.9.0", "--epoch", "2", "--component", "agent="+d.path("new")+"@1.9.0", "--from", d.path("r1.tar"), "--out", d.path("r2"))
	if e := d.manifest("r2").Components[0].Files[0].Encodings; len(e) != 2 || e[0].From == nil || e[1].From != nil || e[0].Size > e[1].Size {
		t.Errorf("encodings %+v", e)
	}
	must(t, "sign", ref, d.path("r2"))
	out, errs, err := run("verify", "--set", set, "--from", d.path("r1.tar"), d.path("r2"))
	if err != nil || errs != "" || !strings.Contains(out, "came out right, packed or patched: 2") {
		t.Errorf("%s%s%v", out, errs, err)
	}
	// Directives go with it, and are looked at.
	line, err := (&bundle.Directed{Tenant: "default", Board: "dock-9", Component: "agent", Statement: []byte("{}"), Envelope: []byte("{}"), Count: 1}).Line()
	if err != nil {
		t.Fatal(err)
	}
	d.write("directives.jsonl", string(line))
	must(t, "bundle", "--directives", d.path("directives.jsonl"), "--out", d.path("r2.tar"), d.path("r2"))
	d.write("directives.jsonl", "no JSON\n")
	if _, _, err := run("bundle", "--directives", d.path("directives.jsonl"), "--out", d.path("r3.tar"), d.path("r2")); !errors.Is(err, bundle.ErrBundle) {
		t.Errorf("directives that are none: %v", err)
	}
}

// TestTooLarge: what no board would take is not cut, with what to do.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for i := range 150 {
		d.write(fmt.Sprintf("many/%03d.bin", i), fmt.Sprint(i))
	}
	_, _, err := run("create", "--release", "1", "--epoch", "0", "--component", "config="+d.path("many")+"@1", "--out", d.path("r"))
	if !fault.Is(err, fault.TooLarge) || !strings.Contains(err.Error(), "--pack config") {
		t.Errorf("%v", err)
	}
	if list, err := os.ReadDir(d.dir); err != nil || len(list) != 1 {
		t.Errorf("something was left: %v %v", list, err)
	}
	must(t, "create", "--release", "1", "--epoch", "0", "--component", "config="+d.path("many")+"@1", "--pack", "config", "--out", d.path("r"))
	for i := range 200 {
		d.write(fmt.Sprintf("many/x%03d.bin", i), fmt.Sprint(i))
	}
	if _, _, err = run("create", "--release", "1", "--epoch", "0", "--component", "config="+d.path("many")+"@1", "--out", d.path("r2")); !fault.Is(err, fault.TooLarge) {
		t.Errorf("%v", err)
	}
	d.write("empty/fulmard", "")
	if _, _, err = run("create", "--release", "1", "--epoch", "0", "--component", "agent="+d.path("empty")+"@1", "--out", d.path("r3")); !fault.Is(err, fault.NotTaken) {
		t.Errorf("an empty file: %v", err)
	}
	if err := os.Mkdir(d.path("none"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, _, err = run("create", "--release", "1", "--epoch", "0", "--component", "agent="+d.path("none")+"@1", "--out", d.path("r3")); !fault.Is(err, fault.NotTaken) {
		t.Errorf("an empty folder: %v", err)
	}
}

// depot is the API of releases as a fleet has it, in memory, with a line that is cut.
type depot struct {
	t        *testing.T
	mu       sync.Mutex
	objects  map[string][]byte
	sizes    map[string]rel.Object
	release  rest.Release
	cuts     int // requests whose answer is lost
	requests int
}

func (d *depot) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.requests++
	answer := func(status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	tree, object := strings.CutPrefix(r.URL.Path, "/api/v1/objects/")
	switch {
	case r.Header.Get("Authorization") != "Bearer fk1_secret":
		answer(http.StatusUnauthorized, nil)
	case r.Method == http.MethodPost && r.URL.Path == "/api/v1/releases":
		var spec rest.ReleaseSpec
		if err := json.NewDecoder(r.Body).Decode(&spec); err != nil {
			d.t.Error(err)
		}
		e, err := trust.ParseEnvelope(spec.Envelope)
		if err != nil {
			d.t.Error(err)
			return
		}
		m, err := rel.Parse(e.Unverified())
		if err != nil {
			d.t.Error(err)
			return
		}
		d.release = rest.Release{Release: m.Release, State: rest.ReleaseIncomplete, Manifest: rel.Hash(sha256.Sum256(e.Unverified())).String(), Trusted: true}
		for _, o := range bundle.Objects(m) {
			d.sizes[o.Tree.String()] = o
			if have := int64(len(d.objects[o.Tree.String()])); have < o.Size {
				d.release.Missing = append(d.release.Missing, rest.ReleaseObject{Tree: o.Tree.String(), SHA256: o.SHA256.String(), Size: o.Size, Have: have})
			}
		}
		answer(http.StatusCreated, d.release)
	case object:
		o, known := d.sizes[tree]
		if !known {
			answer(http.StatusNotFound, nil)
			return
		}
		if r.Method == http.MethodPut {
			offset, err := strconv.ParseInt(r.URL.Query().Get("offset"), 10, 64)
			if err != nil || offset != int64(len(d.objects[tree])) {
				answer(http.StatusConflict, rest.Problem{Title: "Not what is here", Status: http.StatusConflict})
				return
			}
			b, err := io.ReadAll(r.Body)
			if err != nil || r.Header.Get("Content-Type") != "application/octet-stream" || int64(len(b)) != r.ContentLength {
				d.t.Errorf("%v, %v", err, r.Header)
			}
			d.objects[tree] = append(d.objects[tree], b...)
			if d.cuts > 0 {
				d.cuts--
				panic(http.ErrAbortHandler) // it came, and nobody hears of it
			}
		}
		have := int64(len(d.objects[tree]))
		answer(http.StatusOK, rest.ReleaseObject{Tree: tree, Size: o.Size, Have: have, Done: have == o.Size})
	case strings.HasSuffix(r.URL.Path, "/complete"):
		for tree, o := range d.sizes {
			if sum := sha256.Sum256(d.objects[tree]); rel.Hash(sum) != o.SHA256 {
				answer(http.StatusConflict, rest.Problem{Title: "Objects are missing", Status: http.StatusConflict})
				return
			}
		}
		d.release.State, d.release.Missing = rest.ReleaseReady, nil
		answer(http.StatusOK, d.release)
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
	case r.URL.Path == "/api/v1/releases":
		answer(http.StatusOK, rest.List[rest.Release]{Items: []rest.Release{d.release}})
	default:
		answer(http.StatusOK, d.release)
	}
}

// TestUpload: over TLS, all objects come to the fleet, also where answers are lost, and
// nothing of it twice; a bundle brings what it has packed.
func TestUpload(t *testing.T) {
	d := newDesk(t)
	d.write("new/fulmard", program("1.9.0")+strings.Repeat("packs well ", 1<<20))
	ref, _ := d.key()
	must(t, "create", "--release", "1.9.0", "--epoch", "2", "--component", "agent="+d.path("new")+"@1.9.0", "--out", d.path("r"))
	must(t, "sign", ref, d.path("r"))
	must(t, "bundle", "--out", d.path("r.tar"), d.path("r"))
	d.write("token", "fk1_secret\n")
	if err := os.Chmod(d.path("token"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]string{"folder": "r", "bundle": "r.tar"} {
		t.Run(name, func(t *testing.T) {
			h := &depot{t: t, objects: map[string][]byte{}, sizes: map[string]rel.Object{}, cuts: 1}
			s := httptest.NewTLSServer(h)
			defer s.Close()
			sum := sha256.Sum256(s.Certificate().Raw)
			words := []string{"--fleet", s.Listener.Addr().String(), "--pin", hex.EncodeToString(sum[:]), "--token-file", d.path("token")}
			out, errs, err := run(append([]string{"upload", d.path(from)}, words...)...)
			if err != nil || out != "1.9.0\n" || !strings.Contains(errs, "is ready at the fleet") {
				t.Fatalf("%s%s%v", out, errs, err)
			}
			for tree, o := range h.sizes {
				if rel.Hash(sha256.Sum256(h.objects[tree])) != o.SHA256 {
					t.Errorf("object %s", tree)
				}
			}
			before := h.requests
			if _, _, err := run(append([]string{"upload", d.path(from)}, words...)...); err != nil || h.requests != before+2 {
				t.Errorf("again: %d requests, %v", h.requests-before, err)
			}
			for _, c := range []struct{ words, want string }{{"list", "ready"}, {"show 1.9.0", "release 1.9.0"}, {"remove 1.9.0", ""}} {
				if out, errs, err := run(append(strings.Fields(c.words), words...)...); err != nil || !strings.Contains(out, c.want) {
					t.Errorf("%s: %s%s%v", c.words, out, errs, err)
				}
			}
		})
	}
}
