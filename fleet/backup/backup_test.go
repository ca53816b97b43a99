// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/ca"
	"fulmar/fleet/keyring"
	"fulmar/fleet/registry"
	"fulmar/fleet/store"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// recovery makes a pair in the form of fulmar recovery new.
func recovery(t testing.TB) (public, private []byte) {
	t.Helper()
	k := must(ecdh.X25519().GenerateKey(rand.Reader))
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(k.PublicKey()))}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(k))})
}

// folder is a server's, with its databases open.
func folder(t *testing.T) (dir string, ledger *store.DB) {
	t.Helper()
	dir = t.TempDir()
	must(ca.Open(filepath.Join(dir, "ca")))
	reg := must(registry.Open(dir))
	t.Cleanup(func() { _ = reg.Close() })
	must(reg.NewJoinToken(t.Context(), "default", "", 1, time.Hour))
	ledger = must(store.OpenLedger(dir))
	t.Cleanup(func() { _ = ledger.Close() })
	for path, text := range map[string]string{
		"pictures/whole/default/b1/p1.jpg": strings.Repeat("picture", 30_000), "pictures/parts/default/b1/p2.jpg": "half", "lock": "", "other": "x", "ca/.x.tmp-1": "half",
		"telemetry/tsdb/wal/00000000": "made anew", "telemetry.damaged/tsdb/wal/00000000": "made anew",
	} {
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir, ledger
}

func files(t *testing.T, dir string) (out []string) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			out = append(out, rel)
			if st, err := d.Info(); err != nil || st.Mode().Perm()&0o077 != 0 && filepath.Base(rel) != "ca.pem" {
				t.Errorf("%s: others may read it", rel)
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func TestThereAndBack(t *testing.T) {
	t.Parallel()
	public, private := recovery(t)
	for name, c := range map[string]struct {
		plan    Plan
		private []byte
	}{
		"plain":       {Plan{Pictures: true}, nil},
		"sealed":      {Plan{Pictures: true, Recovery: public}, private},
		"no pictures": {Plan{Recovery: public}, private},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, ledger := folder(t)
			if _, err := ledger.Write.Exec("CREATE TABLE mark (n); INSERT INTO mark VALUES (7)"); err != nil {
				t.Fatal(err)
			}
			cfg := filepath.Join(t.TempDir(), "fleet.yaml")
			if err := os.WriteFile(cfg, []byte("listen: x\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			c.plan.Data, c.plan.Config, c.plan.Release = dir, cfg, "r1"
			var b bytes.Buffer
			h, err := Write(t.Context(), &b, c.plan)
			if err != nil {
				t.Fatal(err)
			}
			// Written after the backup began: not in it, and the server goes on.
			if _, err := ledger.Write.Exec("INSERT INTO mark VALUES (8)"); err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(b.Bytes(), []byte("PRIVATE KEY")) != (c.plan.Recovery == nil) {
				t.Error("the authority's key can be read in it, or is not there")
			}
			if head := must(ReadHead(bufio.NewReader(bytes.NewReader(b.Bytes())))); head.Release != "r1" || head.Made != h.Made || head.SealedTo != h.SealedTo {
				t.Errorf("head %+v", head)
			}
			to := filepath.Join(t.TempDir(), "data")
			res, err := Restore(t.Context(), &b, to, c.private)
			if err != nil {
				t.Fatal(err)
			}
			want := []string{"ca/ca.key", "ca/ca.pem", "ca/since", "ca/told", "config.restored.yaml", "ledger.db", "other", "registry.db"}
			if c.plan.Pictures {
				want = slices.Insert(want, 7, "pictures/whole/default/b1/p1.jpg")
			}
			if got := files(t, to); !slices.Equal(got, want) || res.Config == "" {
				t.Errorf("restored\n%v, wants\n%v", got, want)
			}
			if must(ca.Open(filepath.Join(to, "ca"))).Hash() != must(ca.Pin(filepath.Join(dir, "ca"))) {
				t.Error("another authority")
			}
			back := must(store.OpenLedger(to))
			defer back.Close()
			var n, sum, vacuum int
			if _, err := back.Read.Exec("ATTACH ? AS r", filepath.Join(to, "registry.db")); err != nil {
				t.Fatal(err)
			}
			if err := back.Read.QueryRow("SELECT count(*) FROM r.join_token").Scan(&n); err != nil || n != 0 {
				t.Errorf("%d join tokens are good again, %v", n, err)
			}
			if err := back.Read.QueryRow("SELECT count(*), sum(n) FROM mark").Scan(&n, &sum); err != nil || n != 1 || sum != 7 {
				t.Errorf("%d rows, sum %d, %v", n, sum, err)
			}
			if err := back.Read.QueryRow("PRAGMA auto_vacuum").Scan(&vacuum); err != nil || vacuum != 2 {
				t.Errorf("the copy gives no disk back: auto_vacuum %d %v", vacuum, err)
			}
			if _, err := os.Stat(filepath.Join(dir, workDir)); err == nil {
				t.Error("copies are left in the data folder")
			}
		})
	}
}

func TestWriteRefuses(t *testing.T) {
	t.Parallel()
	public, private := recovery(t)
	dir, _ := folder(t)
	for name, p := range map[string]Plan{
		"no fleet":         {Data: t.TempDir()},
		"private half":     {Data: dir, Recovery: private},
		"noise as key":     {Data: dir, Recovery: []byte("x")},
		"config not there": {Data: dir, Recovery: public, Config: "/nowhere/fleet.yaml"},
	} {
		if h, err := Write(t.Context(), io.Discard, p); err == nil {
			t.Errorf("%s: %+v", name, h)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Write(ctx, io.Discard, Plan{Data: dir}); err == nil {
		t.Error("written though it was called off")
	}
	if err := os.WriteFile(filepath.Join(dir, "ca", "ca.ref"), []byte("exec:/hsm\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "audit"), 0o700), os.WriteFile(filepath.Join(dir, "audit", "audit.ref"), []byte("exec:/hsm audit\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "trust"), 0o700), os.WriteFile(filepath.Join(dir, "trust", "command.ref"), []byte("exec:/hsm one\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "trust", "command-2.ref"), []byte("exec:/hsm two\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if h := must(Write(t.Context(), io.Discard, Plan{Data: dir})); !slices.Equal(h.KeysElsewhere, []string{"exec:/hsm", "exec:/hsm audit", "exec:/hsm two", "exec:/hsm one"}) {
		t.Errorf("keys elsewhere: %v", h.KeysElsewhere)
	}
}

// TestKeyringComesBack: the key sets and the command key of the backup are those of the
// restored server.
func TestKeyringComesBack(t *testing.T) {
	t.Parallel()
	dir, _ := folder(t)
	if _, err := keyring.Open(filepath.Join(dir, keyring.Dir), nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := keyring.RotateCommand(filepath.Join(dir, keyring.Dir), nil, keyring.Rotation{}); err != nil {
		t.Fatal(err)
	}
	was := must(keyring.Open(filepath.Join(dir, keyring.Dir), nil))
	var b bytes.Buffer
	must(Write(t.Context(), &b, Plan{Data: dir}))
	to := filepath.Join(t.TempDir(), "restored")
	must(Restore(t.Context(), &b, to, nil))
	is := must(keyring.Open(filepath.Join(to, keyring.Dir), nil))
	if len(is.After(1)) != 1 || !bytes.Equal(is.After(0)[0], was.After(0)[0]) {
		t.Error("another key set came back")
	}
	if p, err := was.OpenTwin(must(is.SignTwin([]byte("x")))); err != nil || string(p) != "x" {
		t.Errorf("another command key came back: %v", err)
	}
}

// TestRestoreRefuses: what was cut or changed anywhere is refused, and leaves no folder.
func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	public, private := recovery(t)
	_, stranger := recovery(t)
	dir, _ := folder(t)
	var sealed, plain bytes.Buffer
	must(Write(t.Context(), &sealed, Plan{Data: dir, Recovery: public, Pictures: true}))
	must(Write(t.Context(), &plain, Plan{Data: dir, Pictures: true}))
	root := t.TempDir()
	n := 0
	try := func(name string, b, key []byte, want error) {
		t.Helper()
		n++
		to := filepath.Join(root, fmt.Sprint(n))
		if _, err := Restore(t.Context(), bytes.NewReader(b), to, key); !errors.Is(err, want) || err == nil {
			t.Errorf("%s: %v, wants %v", name, err, want)
		}
		if left, _ := os.ReadDir(root); len(left) > 0 {
			t.Fatalf("%s: %s is left", name, left[0].Name())
		}
	}
	try("without the key", sealed.Bytes(), nil, ErrKey)
	try("with another key", sealed.Bytes(), stranger, ErrKey)
	try("with the public half", sealed.Bytes(), public, ErrKey)
	for name, b := range map[string][]byte{"sealed": sealed.Bytes(), "plain": plain.Bytes()} {
		step := len(b)/40 + 1
		for at := 1; at < len(b)-1; at += step {
			try(fmt.Sprintf("%s, cut at %d", name, at), b[:at], private, ErrDamaged)
		}
	}
	b := sealed.Bytes()
	try("sealed, cut by one", b[:len(b)-1], private, ErrDamaged)
	try("sealed, more after it", append(slices.Clone(b), 0), private, ErrDamaged)
	for at := len(magic); at < len(b); at += len(b)/40 + 1 {
		c := slices.Clone(b)
		c[at] ^= 4
		n++
		if _, err := Restore(t.Context(), bytes.NewReader(c), filepath.Join(root, fmt.Sprint(n)), private); err == nil {
			t.Errorf("sealed, changed at %d: restored", at)
		}
	}
	// The head of a sealed one is bound to it, too.
	try("another head", bytes.Replace(b, []byte("\"pictures\":true"), []byte("\"pictures\":false"), 1), private, ErrDamaged)
	p := slices.Clone(plain.Bytes())
	i := bytes.Index(p, []byte("picturepicture"))
	p[i] ^= 1
	try("plain, a picture changed", p, nil, ErrDamaged)
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), bytes.NewReader(plain.Bytes()), full, nil); err == nil || !strings.Contains(err.Error(), "never touches") {
		t.Errorf("over a folder that is not empty: %v", err)
	}
}

// TestEntriesStayInside: a tar made by somebody else, with sums that fit.
func TestEntriesStayInside(t *testing.T) {
	t.Parallel()
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" // SHA-256 of nothing
	for _, c := range []struct {
		h    tar.Header
		want string
	}{
		{tar.Header{Name: "data/../../evil", Typeflag: tar.TypeReg}, "no place"},
		{tar.Header{Name: "/etc/evil", Typeflag: tar.TypeReg}, "no place"},
		{tar.Header{Name: "data//etc/evil", Typeflag: tar.TypeReg}, "no place"},
		{tar.Header{Name: "evil", Typeflag: tar.TypeReg}, "no place"},
		{tar.Header{Name: "data/link", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, "no plain file"},
		{tar.Header{Name: "data/dir", Typeflag: tar.TypeDir}, "no plain file"},
		{tar.Header{Name: "data/" + strings.Repeat("x", maxName), Typeflag: tar.TypeReg}, "no plain file"},
		{tar.Header{Name: "data/extra", Typeflag: tar.TypeReg}, "its sums 0"},
	} {
		var b bytes.Buffer
		b.WriteString(magic + "{\"v\":1}\n")
		w := tar.NewWriter(&b)
		sums := "{}"
		if c.want != "its sums 0" {
			sums = fmt.Sprintf("{%q:%q}", c.h.Name, empty)
		}
		if err := errors.Join(w.WriteHeader(&c.h), w.WriteHeader(&tar.Header{Name: sumsName, Typeflag: tar.TypeReg, Size: int64(len(sums))})); err != nil {
			t.Fatal(err)
		}
		must(w.Write([]byte(sums)))
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if _, err := Restore(t.Context(), &b, filepath.Join(dir, "d"), nil); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40s: %v, wants %q", c.h.Name, err, c.want)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%.40s: %s is left", c.h.Name, left[0].Name())
		}
	}
}

// TestPieces: every length around the border of a piece, and pieces put in another
// order or left out.
func TestPieces(t *testing.T) {
	t.Parallel()
	public, private := recovery(t)
	pub, priv := must(parsePublic(public)), must(parsePrivate(private))
	seal := func(n int) []byte {
		var b bytes.Buffer
		s := must(newSealer(&b, pub, nil))
		must(s.Write(bytes.Repeat([]byte{7}, n)))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	open := func(b []byte) ([]byte, error) {
		o, err := newOpener(bytes.NewReader(b), priv, nil)
		if err != nil {
			return nil, err
		}
		return io.ReadAll(o)
	}
	for _, n := range []int{0, 1, pieceBytes - 1, pieceBytes, pieceBytes + 1, 3 * pieceBytes} {
		if b, err := open(seal(n)); err != nil || len(b) != n {
			t.Errorf("%d bytes became %d: %v", n, len(b), err)
		}
	}
	b := seal(3 * pieceBytes)
	piece := 4 + pieceBytes + tagBytes
	at := func(i int) []byte { return b[encBytes+i*piece:][:piece] }
	for name, parts := range map[string][][]byte{
		"swapped":           {at(1), at(0), at(2)},
		"first left out":    {at(1), at(2)},
		"last left out":     {at(0), at(1)},
		"twice":             {at(0), at(0), at(1), at(2)},
		"last one only":     {at(2)},
		"ended at the next": {at(0), append([]byte{at(1)[0] | 0x80}, at(1)[1:]...)},
	} {
		if _, err := open(append(slices.Clone(b[:encBytes]), bytes.Join(parts, nil)...)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzRestore(f *testing.F) {
	f.Add([]byte(magic + "{\"v\":1}\n"))
	f.Add([]byte(magic + "{\"v\":1,\"sealed_to\":\"x\"}\n"))
	_, private := recovery(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Restore(t.Context(), bytes.NewReader(b), filepath.Join(t.TempDir(), "d"), private); err == nil {
			t.Fatal("noise was restored")
		}
	})
}
