// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/ca"
	"fulmar/fleet/registry"
	"fulmar/internal/cli"
	"fulmar/schema"
)

// site is a data folder with an authority and a registry.
type site struct {
	*testing.T
	dir string
	reg *registry.Registry
	a   *ca.Authority // of the server that runs
}

func newSite(t *testing.T) *site {
	t.Helper()
	o := &site{T: t, dir: t.TempDir()}
	o.serve()
	var err error
	if o.reg, err = registry.Open(o.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.reg.Close() })
	return o
}

// serve does with the authority what a start of the server does.
func (o *site) serve() {
	o.Helper()
	var err error
	if o.a, err = ca.Open(filepath.Join(o.dir, "ca")); err != nil {
		o.Fatal(err)
	}
}

// command runs fulmar-fleet.
func command(ctx context.Context, args []string) error {
	_, err := cli.Execute(ctx, Root("dev"), args, io.Discard, io.Discard)
	return err
}

// command runs "fulmar-fleet ca".
func (o *site) command(words ...string) error {
	o.Helper()
	return command(o.Context(), append(append([]string{"ca"}, words...), "--data", o.dir))
}

func (o *site) wants(err error, text string) {
	o.Helper()
	if (err == nil) != (text == "") || err != nil && !strings.Contains(err.Error(), text) {
		o.Fatalf("%v, wants %q", err, text)
	}
}

// board is one that enrolled; the function renews it.
func (o *site) board(name string) (renew func()) {
	o.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		o.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		o.Fatal(err)
	}
	csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		o.Fatal(err)
	}
	issue := func(string) (*ca.Leaf, error) {
		return o.a.Issue(csr, registry.DefaultTenant, name, schema.TrustSoftware)
	}
	secret, err := o.reg.NewJoinToken(o.Context(), registry.DefaultTenant, "", 1, time.Hour)
	if err != nil {
		o.Fatal(err)
	}
	_, leaf, err := o.reg.Enrol(o.Context(), registry.Enrolment{Secret: secret, Board: name, KeyMode: schema.KeySoftware, KeyHash: sha256.Sum256(spki)}, issue)
	if err != nil {
		o.Fatal(err)
	}
	return func() {
		o.Helper()
		id := ca.Identity{Tenant: registry.DefaultTenant, Board: name, Fingerprint: leaf.Fingerprint}
		if leaf, _, err = o.reg.Renew(o.Context(), id, sha256.Sum256(spki), issue); err != nil {
			o.Fatal(err)
		}
	}
}

// TestNobodyIsLeftBehind: an authority takes over only when each board was told, and
// goes only when none has a certificate of it.
func TestNobodyIsLeftBehind(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	one, two := o.board("dock-1"), o.board("dock-2")
	o.board("dock-3")
	if err := o.reg.Revoke(t.Context(), registry.DefaultTenant, "dock-3", registry.Console, ""); err != nil {
		t.Fatal(err)
	}
	o.wants(o.command("switch"), "no other authority")
	o.wants(o.command("drop"), "no other authority")
	o.wants(o.command("next"), "")
	one()
	o.wants(o.command("switch"), "2 boards have not been told of the next authority: dock-1, dock-2;") // no server has started since
	o.serve()
	two()
	o.wants(o.command("switch"), "1 boards have not been told of the next authority: dock-1;")
	one()
	o.wants(o.command("switch"), "")
	o.wants(o.command("drop"), "not restarted since the switch")
	o.serve()
	one()
	o.wants(o.command("drop"), "1 boards may have a certificate of the authority that is to be dropped: dock-2;")
	o.wants(o.command("drop", "--force"), "")
	o.wants(o.command("show"), "")
}

func TestCAUsage(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	for _, words := range []string{"", "burn", "install", "show x", "next --key a --tpm b"} {
		if err := o.command(strings.Fields(words)...); !errors.Is(err, cli.ErrUsage) && err == nil {
			t.Errorf("ca %s: %v", words, err)
		}
	}
	o.wants(o.command("init", "--key", "exec:/nowhere"), "already")
	o.wants(o.command("next", "--key", "exec:/nowhere"), "/nowhere")
	o.wants(o.command("next", "--tpm", filepath.Join(o.dir, "k")+",unix:/nowhere"), "TPM")
	o.wants(o.command("install", "/nowhere/chain.pem"), "/nowhere")
	if err := command(context.Background(), []string{"ca", "show", "--data", t.TempDir()}); err == nil {
		t.Error("an authority is shown where there is none")
	}
}

// TestBackupCommand: files that are there are left alone, and nobody else may read one.
func TestBackupCommand(t *testing.T) {
	t.Parallel()
	o := newSite(t)
	out := filepath.Join(t.TempDir(), "b")
	run := func(words ...string) error { return command(t.Context(), words) }
	o.wants(run("backup", "--data", o.dir), "usage")
	o.wants(run("backup", "--data", o.dir, "--out", out), "")
	if st, err := os.Stat(out); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	o.wants(run("backup", "--data", o.dir, "--out", out), "never written over")
	bad := out + "2"
	o.wants(run("backup", "--data", o.dir, "--out", bad, "--recovery-key", out), "no key is")
	o.wants(run("backup", "--data", t.TempDir(), "--out", bad), "no fleet was ever served")
	if left, _ := filepath.Glob(bad + "*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	o.wants(run("restore", "--from", out, "--data", o.dir), "never touches")
	o.wants(run("restore", "--from", "/nowhere", "--data", out+"3"), "/nowhere")
	o.wants(run("restore", "--from", out, "--data", out+"3"), "")
	o.wants(run("restore", "--data", out+"4"), "usage")
}
