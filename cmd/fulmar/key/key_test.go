// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package key

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"fulmar/internal/cli"
)

const (
	exitGood  = 0
	exitWrong = 1
)

// run runs a command and gives exit code, standard output and standard error.
func run(args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	root := cli.Root(&cobra.Command{Use: "fulmar"}, "test")
	root.AddCommand(Command())
	if _, err := cli.Execute(context.Background(), root, append([]string{"key"}, args...), &o, &e); err != nil {
		fmt.Fprintln(&e, err)
		code = exitWrong
	}
	return code, o.String(), e.String()
}

// desk is a folder with keys; its commands must end as they are said to.
type desk struct {
	*testing.T
	dir string
}

func (d desk) path(name string) string { return filepath.Join(d.dir, name) }

// do runs "fulmar key" with words of which those that begin with @ are files of the
// desk, as are those after the last = or : (of flags and references).
func (d desk) do(wantCode int, want string, line string) string {
	d.Helper()
	var args []string
	for _, w := range strings.Fields(line) {
		args = append(args, strings.ReplaceAll(w, "@", d.dir+"/"))
	}
	code, out, errs := run(args...)
	if code != wantCode || !strings.Contains(out+errs, want) {
		d.Fatalf("fulmar key %s: %d, wants %d and %q\n%s%s", line, code, wantCode, want, out, errs)
	}
	return out
}

// keyFile makes a key and its public half and gives its id.
func (d desk) keyFile(name, kind string) string {
	d.Helper()
	out := d.do(exitGood, "", "new --kind "+kind+" --out @"+name)
	pub := d.do(exitGood, "key ", "public file:@"+name)
	if err := os.WriteFile(d.path(name+".pub"), []byte(pub), 0o644); err != nil {
		d.Fatal(err)
	}
	return strings.Fields(out)[1]
}

// TestKeysThroughTheirLife: roots, a release key, a release, its rotation, and what must
// not work.
func TestKeysThroughTheirLife(t *testing.T) {
	t.Parallel()
	d := desk{t, t.TempDir()}
	for _, n := range []string{"root1", "root2", "root3", "root4", "release2"} {
		d.keyFile(n, "ed25519")
	}
	release := d.keyFile("release", "p256")
	d.do(exitGood, "signatures wanted: root 2, release 1", "rotate --add root=@root1.pub --add root=@root2.pub --add root=@root3.pub --threshold root=2 --add release=@release.pub --out @set1")
	d.do(exitGood, "1 signatures", "sign file:@root1 @set1")
	d.do(exitWrong, "root wants 2", "verify --set @set1 --type keyset @set1")
	d.do(exitGood, "release      "+release, "sign file:@root3 @set1")
	out := d.do(exitGood, "pin ", "verify --set @set1 --type keyset @set1")
	pin := strings.Fields(out[strings.Index(out, "pin "):])[1]

	if err := os.WriteFile(d.path("manifest"), []byte("what to install"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.do(exitGood, "for role release", "sign file:@release --type release --out @envelope @manifest")
	d.do(exitGood, "enough keys of role release", "verify --set @set1 --pin "+pin+" --type release --out @back @envelope")
	if b, err := os.ReadFile(d.path("back")); err != nil || string(b) != "what to install" {
		t.Fatalf("%q %v", b, err)
	}
	d.do(exitWrong, "not the one that the pin names", "verify --set @set1 --pin "+strings.Repeat("0", 64)+" --type release @envelope")
	d.do(exitWrong, "malformed", "verify --set @set1 --type assignment @envelope")
	d.do(exitGood, "", "sign file:@root1 --type release --out @usurped @manifest")
	d.do(exitWrong, "release wants 1", "verify --set @set1 --type release @usurped")

	// Root 3 is lost, the release key ends at epoch 2.
	root3 := strings.Fields(run3(t, "public", "file:"+d.path("root3")))[1]
	d.do(exitGood, "key set 2", "rotate --set @set1 --drop "+root3[:12]+" --add root=@root4.pub --end "+release[:8]+"=2 --add release=@release2.pub,1 --out @set2")
	d.do(exitGood, "", "sign file:@root1 @set2")
	d.do(exitGood, "", "sign file:@root4 @set2") // enough of the new set, too few of the old
	d.do(exitWrong, "root wants 2", "verify --set @set1 --type keyset @set2")
	d.do(exitGood, "", "sign file:@root2 @set2")
	d.do(exitGood, "key set 2 may follow key set 1", "verify --set @set1 --type keyset @set2")
	d.do(exitGood, "", "sign file:@root2 @set1")
	d.do(exitWrong, "older", "verify --set @set2 --type keyset @set1")
	d.do(exitGood, "", "verify --set @set2 --type release --epoch 1 @envelope")
	d.do(exitWrong, "epoch 2", "verify --set @set2 --type release --epoch 2 @envelope")
}

// run3 gives what a command says on standard error.
func run3(t *testing.T, args ...string) string {
	t.Helper()
	code, _, errs := run(args...)
	if code != exitGood {
		t.Fatal(errs)
	}
	return errs
}

func TestKeyUsage(t *testing.T) {
	t.Parallel()
	d := desk{t, t.TempDir()}
	id := d.keyFile("k", "p256")
	d.do(exitGood, "", "rotate --add root=@k.pub --out @set")
	for line, want := range map[string]string{
		"":                                  "help",
		"burn":                              "no command",
		"new":                               "--out",
		"new --out @x y":                    "arguments",
		"new --kind rsa --out @x":           "rsa",
		"new --out @k":                      "never written over",
		"public":                            "arguments",
		"public @k":                         "file:PATH",
		"public tpm:@k":                     "TPM",
		"sign file:@k --type release @k":    "--out",
		"sign file:@k --type x --out @y @k": "--type",
		"sign file:@k --type release --out @set @k": "is there already",
		"sign file:@k @k":                                         "malformed",
		"sign file:@k @none":                                      "none",
		"verify --type release @set":                              "--set",
		"verify --set @set --type release @set":                   "not signed by enough",
		"verify --set @set --pin x --type release @set":           "64 hex",
		"rotate --out @z":                                         "change",
		"rotate --add root=@k.pub --out @set":                     "is there already",
		"rotate --add king=@k.pub --out @z":                       "unknown role",
		"rotate --add root=@k.pub,x --out @z":                     "no epoch",
		"rotate --add root=@k.pub --drop 12345678 --out @z":       "no key",
		"rotate --add root=@k.pub --drop " + id[:4] + " --out @z": "8 or more",
		"rotate --add root=@k.pub --end " + id + " --out @z":      "ID=EPOCH",
		"rotate --add root=@k.pub --threshold root=x --out @z":    "ROLE=N",
		"rotate --add root=@k.pub --threshold root=2 --out @z":    "wants 2 signatures",
	} {
		var args []string
		for _, w := range strings.Fields(line) {
			args = append(args, strings.ReplaceAll(w, "@", d.dir+"/"))
		}
		if code, out, errs := run(args...); code == exitGood || !strings.Contains(errs, want) {
			t.Errorf("fulmar key %s: %d, wants %q: %s%s", line, code, want, out, errs)
		}
	}
	if _, err := os.Stat(d.path("z")); err == nil {
		t.Error("a refused change left a file")
	}
	if code, out, _ := run("help"); code != exitGood || !strings.Contains(out, "rotate") {
		t.Error("no help")
	}
}
