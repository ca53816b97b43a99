// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package releasetest makes releases for tests: real keys, real signatures, small objects.
package releasetest

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"fulmar/fleet/access"
	"fulmar/fleet/keyring"
	"fulmar/fleet/releases"
	"fulmar/ota/release"
	"fulmar/schema/rest"
	"fulmar/trust"
)

// Key makes a release key and adds it to the key set of a server's data folder, which is
// made where there is none. The server must not run.
func Key(t testing.TB, data string) *trust.Signer {
	t.Helper()
	dir := filepath.Join(data, keyring.Dir)
	k, err := keyring.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := trust.NewKeyFile(filepath.Join(t.TempDir(), "release.pem"), trust.P256)
	if err == nil {
		err = k.Close()
	}
	if err == nil {
		_, _, err = keyring.AddRelease(dir, nil, key.Public(), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Object describes bytes.
func Object(t testing.TB, b []byte) release.Object {
	t.Helper()
	o, _, err := release.Describe(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// Part makes a component of one file.
func Part(t testing.TB, name, version, path string, content []byte) release.Component {
	t.Helper()
	return release.Component{Name: name, Version: version, Files: []release.File{{Path: path, Object: Object(t, content)}}}
}

// Sign signs a manifest.
func Sign(t testing.TB, m *release.Manifest, keys ...*trust.Signer) []byte {
	t.Helper()
	m.V = 1
	payload, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	e, err := trust.NewEnvelope(trust.TypeRelease, payload)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if err := e.Sign(k); err != nil {
			t.Fatal(err)
		}
	}
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// By is somebody who may bring releases.
func By(tenant string) access.Caller {
	return access.Caller{Tenant: tenant, Who: "rel", Author: "rel", Rights: rest.Releaser.Rights()}
}

// Bring brings a signed release with its objects, by what they hold.
func Bring(ctx context.Context, t testing.TB, x *releases.Releases, tenant string, envelope []byte, contents ...[]byte) *rest.Release {
	t.Helper()
	by := By(tenant)
	v, err := x.Begin(ctx, by, envelope)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range contents {
		o := Object(t, c)
		if _, err := x.Put(ctx, by, o.Tree.String(), 0, bytes.NewReader(c)); err != nil {
			t.Fatal(err)
		}
	}
	if v, err = x.Complete(ctx, by, v.Release); err != nil {
		t.Fatal(err)
	}
	return v
}

// Known brings a release of some components, each with one file of its own.
func Known(ctx context.Context, t testing.TB, x *releases.Releases, tenant, name string, key *trust.Signer, components ...string) {
	t.Helper()
	m := &release.Manifest{Release: name}
	var contents [][]byte
	for _, c := range components {
		b := []byte(c + " of " + name)
		m.Components = append(m.Components, Part(t, c, name, "file", b))
		contents = append(contents, b)
	}
	Bring(ctx, t, x, tenant, Sign(t, m, key), contents...)
}
