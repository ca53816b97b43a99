// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestOffline: one file carried to a site without a network, signed, checked, installed.
func TestOffline(t *testing.T) {
	t.Parallel()
	b := newBoard(t, "bookworm")
	fulmar, err := filepath.Abs(filepath.Join(top, "out/cross/amd64/fulmar"))
	if err != nil {
		t.Fatal(err)
	}
	keys := t.TempDir()
	key := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(fulmar, append([]string{"key"}, args...)...)
		cmd.Dir = keys
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("fulmar key %v: %v", args, err)
		}
		return string(out)
	}
	for _, k := range []string{"root", "release", "thief"} {
		key("new", "--out", k+".pem")
		if err := os.WriteFile(filepath.Join(keys, k+".pub"), []byte(key("public", "file:"+k+".pem")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key("rotate", "--add", "root=root.pub", "--threshold", "root=1", "--add", "release=release.pub", "--out", "keyset.json")
	key("sign", "file:root.pem", "keyset.json")

	signed := bundle(t, fulmar, v2, "file:"+filepath.Join(keys, "release.pem"))
	stolen := bundle(t, fulmar, v2, "file:"+filepath.Join(keys, "thief.pem"))
	bare := bundle(t, fulmar, v2, "")
	for at, from := range map[string]string{"signed": signed, "stolen": stolen, "bare": bare} {
		b.bind(from, b.folder(at))
	}
	set, err := os.ReadFile(filepath.Join(keys, "keyset.json"))
	if err != nil {
		t.Fatal(err)
	}
	b.write("keyset.json", string(set))

	// A board that has nothing yet cannot check a signature, and says so.
	b.fails([]string{"has no fulmar yet", "Nothing was installed"}, "/signed/install", "--trust", "/keyset.json")
	if out := b.run("/signed/install"); !strings.Contains(out, "signature was not looked at") {
		t.Errorf("it says %q", out)
	}
	b.runs(v2)
	b.run("fulmar", "help")

	if out := b.run("/signed/install", "check", "--trust", "/keyset.json"); !strings.Contains(out, "signed by a key of /keyset.json") {
		t.Errorf("it says %q", out)
	}
	b.fails([]string{"not one to believe", "Nothing was installed"}, "/stolen/install", "--trust", "/keyset.json")
	b.fails([]string{"nobody has signed", "Nothing was installed"}, "/bare/install", "--trust", "/keyset.json")

	// A package changed on the way; and a whole other package under a signature of this one.
	b.run("sh", "-c", "cp -r /signed /changed && echo x >>/changed/fulmar-agent_"+v2+"_amd64.deb")
	b.fails([]string{"not those that were packed", "Nothing was installed"}, "/changed/install")
	b.run("sh", "-c", "cd /changed && sha256sum *.deb install >SHA256SUMS")
	b.fails([]string{"of other packages", "Nothing was installed"}, "/changed/install", "--trust", "/keyset.json")
	b.run("sh", "-c", "rm -rf /changed")

	b.run("/signed/install", "server", "--trust", "/keyset.json")
	b.run("fulmar-fleet", "pin", "-h")
	b.fails([]string{"usage: ./install"}, "/signed/install", "everything")
}

// folder makes a folder in the system.
func (b *board) folder(name string) string {
	b.t.Helper()
	at := filepath.Join(b.Dir, name)
	if err := os.Mkdir(at, 0o755); err != nil {
		b.t.Fatal(err)
	}
	return at
}

// bundle makes the one file of a version, opens it as its user would, and gives the folder.
func bundle(t *testing.T, fulmar, version, key string) string {
	t.Helper()
	dir := t.TempDir()
	for _, n := range names {
		f := n + "_" + version + "_amd64.deb"
		if err := clone(filepath.Join(made.dir, "debs", f), filepath.Join(dir, f)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(filepath.Join(top, "cross/package/bundle"), dir, "amd64")
	cmd.Env = append(os.Environ(), "RELEASE="+version, "SOURCE_DATE_EPOCH=1790000000", "FULMAR_RELEASE_KEY="+key, "FULMAR="+fulmar)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("bundle: %v: %s", err, out)
	}
	check := exec.Command("sha256sum", "--strict", "-c", "SHA256SUMS")
	check.Dir = dir
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("the sums of all: %v: %s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "signature.json")); (err == nil) != (key != "") {
		t.Errorf("with key %q: signature.json: %v", key, err)
	}
	name := "fulmar_" + version + "_amd64"
	if out, err := exec.Command("tar", "--zstd", "-C", dir, "-xf", filepath.Join(dir, name+".tar.zst")).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	return filepath.Join(dir, name)
}
