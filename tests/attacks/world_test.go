// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package attacks

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"

	"fulmar/ota"
	"fulmar/ota/prove"
	"fulmar/ota/release"
	wire "fulmar/schema/ota"
	"fulmar/trust"
)

// world is a fleet's keys and a board of it.
type world struct {
	*testing.T
	keys     map[string]crypto.Signer
	set      *trust.KeySet
	floor    uint64
	attempts map[string]uint64
}

// newWorld has root 2 of 3 and one key of each other role of updates.
func newWorld(t *testing.T) *world {
	w := &world{T: t, keys: map[string]crypto.Signer{}, attempts: map[string]uint64{}, floor: 3}
	for _, name := range []string{"root-1", "root-2", "root-3", "root-4", "release", "director", "freshness", "command", "thief"} {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		w.keys[name] = key
	}
	s := w.draft(1, 2, "root-1", "root-2", "root-3")
	w.set = w.open(w.sign(trust.TypeKeySet, w.encode(s), "root-1", "root-2"))
	return w
}

// draft is a set with some root keys and the keys of the other roles.
func (w *world) draft(version uint64, threshold int, roots ...string) *trust.KeySet {
	s := &trust.KeySet{Version: version, Thresholds: map[trust.Role]int{trust.RoleRoot: threshold}}
	for _, r := range roots {
		s.Keys = append(s.Keys, trust.Key{Role: trust.RoleRoot, Public: w.keys[r].Public()})
	}
	for _, r := range []trust.Role{trust.RoleRelease, trust.RoleDirector, trust.RoleFreshness, trust.RoleCommand} {
		s.Thresholds[r] = 1
		s.Keys = append(s.Keys, trust.Key{Role: r, Public: w.keys[string(r)].Public()})
	}
	return s
}

type encoder interface{ Encode() ([]byte, error) }

func (w *world) encode(v encoder) []byte {
	w.Helper()
	b, err := v.Encode()
	if err != nil {
		w.Fatal(err)
	}
	return b
}

func (w *world) open(envelope []byte) *trust.KeySet {
	w.Helper()
	e, err := trust.ParseEnvelope(envelope)
	if err != nil {
		w.Fatal(err)
	}
	s, err := trust.OpenKeySet(e, sha256.Sum256(e.Unverified()))
	if err != nil {
		w.Fatal(err)
	}
	return s
}

// next is what the board does with a key set that comes.
func (w *world) next(envelope []byte) error {
	e, err := trust.ParseEnvelope(envelope)
	if err != nil {
		return err
	}
	s, err := w.set.Next(e)
	if err == nil {
		w.set = s
	}
	return err
}

func (w *world) sign(typ trust.Type, payload []byte, by ...string) []byte {
	w.Helper()
	e, err := trust.NewEnvelope(typ, payload)
	if err != nil {
		w.Fatal(err)
	}
	for _, name := range by {
		if err := e.Sign(w.keys[name]); err != nil {
			w.Fatal(err)
		}
	}
	b, err := e.Encode()
	if err != nil {
		w.Fatal(err)
	}
	return b
}

// proven signs statements as one batch, and gives the first.
func (w *world) proven(typ trust.Type, key string, statements ...[]byte) *wire.Proven {
	w.Helper()
	proofs, err := trust.SignBatch(typ, statements, w.keys[key])
	if err != nil {
		w.Fatal(err)
	}
	p := proofs[0]
	return &wire.Proven{Statement: statements[0], Proof: wire.Proof{Envelope: p.Envelope, Index: uint32(p.Index), Count: uint32(p.Count), Path: p.Path}}
}

func object(text string) release.Object {
	o, _, err := release.Describe(bytes.NewReader([]byte(text)))
	if err != nil {
		panic(err)
	}
	return o
}

// manifest is a release of an agent and a model.
func manifest(name string, epoch uint64) *release.Manifest {
	return &release.Manifest{V: 1, Release: name, Epoch: epoch, Components: []release.Component{
		{Name: "agent", Version: name, Files: []release.File{{Path: "fulmard", Object: object("fulmard " + name)}}},
		{Name: "model/parcels", Version: name, Files: []release.File{{Path: "model.onnx", Object: object("model " + name)}}},
	}}
}

// directive is the director's word on a manifest for dock-9.
func directive(m *release.Manifest, payload []byte, attempt uint64) *release.Directive {
	return &release.Directive{
		V: 1, Tenant: "default", Board: "dock-9", Rollout: "r-31", Component: "agent", Release: m.Release, Attempt: attempt,
		Act: release.ActInstall, Manifest: sha256.Sum256(payload),
	}
}

// assignment is a good one: what an attack then changes.
func (w *world) assignment(m *release.Manifest, attempt uint64) *wire.Assignment {
	payload := w.encode(m)
	d := directive(m, payload, attempt)
	other := *d
	other.Board = "dock-8"
	return &wire.Assignment{
		V: 1, Rollout: d.Rollout, Component: d.Component, Release: d.Release, Attempt: attempt, Act: wire.Install,
		Envelope:  w.sign(trust.TypeRelease, payload, "release"),
		Directive: w.proven(trust.TypeAssignment, "director", w.encode(d), w.encode(&other)),
	}
}

func (w *world) board() prove.Board {
	return prove.Board{Tenant: "default", Name: "dock-9", Floor: w.floor, Attempts: func(c string) uint64 { return w.attempts[c] }}
}

// takes is what the board does with an assignment, up to the order; with it what it does after.
func (w *world) takes(a *wire.Assignment) (*ota.Order, error) {
	o, err := prove.Assignment(w.set, a, w.board())
	if err == nil {
		w.attempts[o.Component] = max(w.attempts[o.Component], o.Attempt)
	}
	return o, err
}

// refused holds an answer to a refusal of a reason, because of an error.
func (w *world) refused(what string, err error, reason string, because error) {
	w.Helper()
	var r *prove.Refused
	if !errors.As(err, &r) || r.Reason != reason || r.Text == "" || !errors.Is(err, because) {
		w.Errorf("%s: %v; wants %s because of %v", what, err, reason, because)
	}
}

// answer is the fleet's word on what is newest for dock-9.
func answer(nonce []byte, attempts map[string]uint64) *release.Fresh {
	return &release.Fresh{V: 1, Tenant: "default", Board: "dock-9", Nonce: hex.EncodeToString(nonce), Time: 1, Attempts: attempts, KeySet: 1, Floor: 3}
}

func nonce(t *testing.T) []byte {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}
