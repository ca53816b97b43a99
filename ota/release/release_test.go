// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"fulmar/trust"
)

var update = flag.Bool("update", false, "write testdata/golden anew; what boards in the field read must not change")

func hashOf(text string) Hash { return sha256.Sum256([]byte(text)) }

func object(name string, size int64) Object {
	return Object{SHA256: hashOf(name), Size: size, Tree: hashOf(name + " tree")}
}

func from(name string) *Hash { h := hashOf(name); return &h }

// full uses each field of a manifest.
func full() *Manifest {
	return &Manifest{
		V: 1, Release: "1.9.0", Epoch: 3, Notes: "Drivers of the BMI270 are read every second.",
		Components: []Component{
			{
				Name: "agent", Version: "1.9.0",
				Files: []File{
					{Path: "fulmard", Object: object("fulmard", 13_264_401), Encodings: []Encoding{
						{Codec: "elf", From: from("fulmard 1.8.2"), Object: object("patch", 412_003)},
						{Codec: "zstd", Object: object("fulmard.zst", 4_702_113)},
					}},
					{Path: "lib/libonnxruntime.so.1", Object: object("onnx", 22<<20)},
				},
				Needs:  Needs{Arch: "arm64", L4TMin: "35.4.1", L4TMax: "36.4", Space: 64 << 20},
				Health: Health{WithinS: 300, HoldS: 60, Checks: []string{CheckProcess, CheckLink}},
			},
			{
				Name: "model/parcels", Version: "parcels-7",
				Files:  []File{{Path: "files.tar", Object: object("tar", 40_960), Unpack: true, Unpacked: 31_007}},
				Needs:  Needs{Board: "NVIDIA Jetson Orin", TensorRT: "8.5", Components: map[string]string{"agent": "1.8", "worker": "1.8"}},
				Health: Health{RateMin: 0.9},
			},
		},
	}
}

func small() *Manifest {
	return &Manifest{V: 1, Release: "r", Components: []Component{{Name: "config", Version: "1", Files: []File{{Path: "fulmard.yaml", Object: object("yaml", 1)}}}}}
}

func directive() *Directive {
	return &Directive{
		V: 1, Tenant: "default", Board: "dock-9", Rollout: "r-31", Component: "agent", Release: "1.9.0", Attempt: 3<<24 | 11, Act: ActInstall,
		Manifest: hashOf("manifest"), Before: "1.8.2",
		Patches: []Patch{{To: hashOf("fulmard"), Encoding: Encoding{Codec: "elf", From: from("fulmard 1.7.0"), Object: object("patch 2", 900_000)}}},
	}
}

func fresh() *Fresh {
	return &Fresh{
		V: 1, Tenant: "default", Board: "dock-9", Nonce: strings.Repeat("0a", 16), Time: 1_767_225_600_123,
		Attempts: map[string]uint64{"agent": 3<<24 | 11, "model/parcels": 7}, KeySet: 4, Floor: 3,
	}
}

// TestVectors: what this program writes is, byte for byte, what it always wrote, and reads
// as it was.
func TestVectors(t *testing.T) {
	t.Parallel()
	type form interface{ Encode() ([]byte, error) }
	undo := &Directive{V: 1, Tenant: "default", Board: "dock-9", Rollout: "r-31", Component: "agent", Release: "1.9.0", Attempt: 12, Act: ActUndo, Before: "1.8.2"}
	for name, c := range map[string]struct {
		v    form
		read func([]byte) (form, error)
	}{
		"manifest":       {full(), func(b []byte) (form, error) { return Parse(b) }},
		"manifest-small": {small(), func(b []byte) (form, error) { return Parse(b) }},
		"directive":      {directive(), func(b []byte) (form, error) { return ParseDirective(b) }},
		"directive-undo": {undo, func(b []byte) (form, error) { return ParseDirective(b) }},
		"fresh":          {fresh(), func(b []byte) (form, error) { return ParseFresh(b) }},
	} {
		path := filepath.Join("testdata", "golden", name+".json")
		got, err := c.v.Encode()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		golden(t, path, got)
		back, err := c.read(got)
		if err != nil || !reflect.DeepEqual(back, c.v) {
			t.Errorf("%s: read %+v, %v", name, back, err)
		}
	}
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: the form changed: %v\n got %s\nwant %s", path, err, got, want)
	}
}

// keys are those of a test: from their names, so that signatures are pinned too.
func keyOf(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// set is a key set with a release key for each of the names, good as it says.
func setOf(t testing.TB, threshold int, keys ...trust.Key) *trust.KeySet {
	t.Helper()
	s := &trust.KeySet{Version: 1, Thresholds: map[trust.Role]int{trust.RoleRoot: 1, trust.RoleRelease: threshold, trust.RoleDirector: 1}}
	s.Keys = append(s.Keys, trust.Key{Role: trust.RoleRoot, Public: keyOf("root").Public()}, trust.Key{Role: trust.RoleDirector, Public: keyOf("director").Public()})
	s.Keys = append(s.Keys, keys...)
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	return s
}

func releaseKey(name string, from, until uint64) trust.Key {
	return trust.Key{Role: trust.RoleRelease, Public: keyOf(name).Public(), From: from, Until: until}
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

func encoded(t testing.TB, m *Manifest) []byte {
	t.Helper()
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestOpen: a signed manifest, pinned to the byte, and who does not open one.
func TestOpen(t *testing.T) {
	t.Parallel()
	set := setOf(t, 2, releaseKey("a", 0, 0), releaseKey("b", 0, 0), releaseKey("c", 0, 0))
	envelope := sign(t, trust.TypeRelease, encoded(t, full()), "a", "c")
	golden(t, filepath.Join("testdata", "golden", "release.json"), envelope)
	o, err := Open(set, envelope, 3)
	if err != nil || !reflect.DeepEqual(o.Manifest, full()) || o.Hash != hashOf(string(encoded(t, full()))) || len(o.Signers) != 2 {
		t.Fatalf("%+v, %v", o, err)
	}
	for name, c := range map[string]struct {
		envelope []byte
		floor    uint64
		want     error
	}{
		"one of two keys":           {sign(t, trust.TypeRelease, encoded(t, full()), "a"), 0, trust.ErrSignatures},
		"no key":                    {sign(t, trust.TypeRelease, encoded(t, full())), 0, trust.ErrSignatures},
		"keys of another role":      {sign(t, trust.TypeRelease, encoded(t, full()), "root", "director"), 0, trust.ErrSignatures},
		"one and one of no role":    {sign(t, trust.TypeRelease, encoded(t, full()), "a", "x"), 0, trust.ErrSignatures},
		"signed as something else":  {sign(t, trust.TypeCommand, encoded(t, full()), "a", "c"), 0, trust.ErrMalformed},
		"below the floor":           {envelope, 4, ErrEpoch},
		"no manifest":               {sign(t, trust.TypeRelease, []byte(`{"v":1}`), "a", "c"), 0, ErrManifest},
		"no manifest and no key":    {sign(t, trust.TypeRelease, []byte(`{"v":1`), "x"), 0, trust.ErrSignatures},
		"no envelope":               {encoded(t, full()), 0, trust.ErrMalformed},
		"nothing":                   {nil, 0, trust.ErrMalformed},
		"the payload was exchanged": {bytes.Replace(envelope, []byte(`"payload":"eyJ2Ijox`), []byte(`"payload":"eyJ2Ijoy`), 1), 0, trust.ErrSignatures},
	} {
		if o, err := Open(set, c.envelope, c.floor); !errors.Is(err, c.want) || o != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOpenAtItsEpoch: keys are judged at the epoch of what they signed.
func TestOpenAtItsEpoch(t *testing.T) {
	t.Parallel()
	set := setOf(t, 1, releaseKey("old", 0, 4), releaseKey("new", 4, 0))
	for _, c := range []struct {
		by           string
		epoch, floor uint64
		want         error
	}{
		{"old", 3, 3, nil},
		{"old", 4, 3, trust.ErrSignatures}, // it ended with 4, whatever the floor is
		{"old", 3, 4, trust.ErrSignatures}, // and at floor 4 nothing of it is even parsed
		{"new", 4, 3, nil},                 // the first release of the new key raises the floor
		{"new", 4, 4, nil},
		{"new", 3, 3, trust.ErrSignatures}, // not good yet at 3
		{"new", 9, 0, nil},
	} {
		m := small()
		m.Epoch = c.epoch
		if _, err := Open(set, sign(t, trust.TypeRelease, encoded(t, m), c.by), c.floor); !errors.Is(err, c.want) {
			t.Errorf("%s key, epoch %d, floor %d: %v, wants %v", c.by, c.epoch, c.floor, err, c.want)
		}
	}
}
