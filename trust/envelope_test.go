// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func newEd(t testing.TB) crypto.Signer {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newP256(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sealed is an envelope signed by the keys.
func sealed(t testing.TB, typ Type, payload string, keys ...crypto.Signer) *Envelope {
	t.Helper()
	e, err := NewEnvelope(typ, []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if err := e.Sign(k); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

// need skips without a program, and fails under CI=true.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing; make test installs it", program)
		}
		t.Skipf("%s is missing; make test installs it", program)
	}
}

// TestDSSE holds the encoding and the signature to the example of the DSSE protocol
// (github.com/secure-systems-lab/dsse, protocol.md). Its signature is r and s, 32
// bytes each; ours are DER.
func TestDSSE(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/dsse.json")
	if err != nil {
		t.Fatal(err)
	}
	var j envelopeJSON
	if err := json.Unmarshal(b, &j); err != nil {
		t.Fatal(err)
	}
	if got := string(PAE(j.PayloadType, j.Payload)); got != "DSSEv1 29 http://example.com/HelloWorld 11 hello world" {
		t.Fatalf("PAE %q", got)
	}
	number := func(s string) *big.Int { n, _ := new(big.Int).SetString(s, 10); return n }
	point := number("46950820868899156662930047687818585632848591499744589407958293238635476079160").FillBytes(make([]byte, 32))
	point = append(append([]byte{4}, point...), number("5640078356564379163099075877009565129882514886557779369047442380624545832820").FillBytes(make([]byte, 32))...)
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		t.Fatal(err)
	}
	raw := j.Signatures[0].Sig
	der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:32]), new(big.Int).SetBytes(raw[32:])})
	if err != nil {
		t.Fatal(err)
	}
	id, err := KeyID(key)
	if err != nil {
		t.Fatal(err)
	}
	e := &Envelope{Type: j.PayloadType, payload: j.Payload, Signatures: []Signature{{id, der}}}
	if !e.SignedBy(key) {
		t.Fatal("the example's signature does not verify")
	}
	for name, bad := range map[string]*Envelope{
		"payload":  {Type: e.Type, payload: []byte("hello World"), Signatures: e.Signatures},
		"type":     {Type: e.Type + "x", payload: e.payload, Signatures: e.Signatures},
		"boundary": {Type: "http://example.com/HelloWorld 11", payload: []byte("ello world"), Signatures: e.Signatures},
	} {
		if bad.SignedBy(key) {
			t.Errorf("another %s verifies", name)
		}
	}
}

func TestEnvelopeThereAndBack(t *testing.T) {
	t.Parallel()
	ed, ec := newEd(t), newP256(t)
	e := sealed(t, TypeRelease, "{\"a\":\"\u00e9\"}\n", ed, ec, ed)
	if len(e.Signatures) != 2 {
		t.Fatalf("%d signatures of two keys", len(e.Signatures))
	}
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseEnvelope(b)
	if err != nil || !bytes.Equal(back.Unverified(), e.payload) || !back.SignedBy(ed.Public()) || !back.SignedBy(ec.Public()) || back.SignedBy(newEd(t).Public()) {
		t.Fatalf("%+v %v", back, err)
	}
	// A signature is the key's own, whatever id it goes under.
	back.Signatures[0].KeyID, back.Signatures[1].KeyID = back.Signatures[1].KeyID, back.Signatures[0].KeyID
	if back.SignedBy(ed.Public()) || back.SignedBy(ec.Public()) {
		t.Fatal("signatures under each other's ids verify")
	}
	if p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader); !errors.Is(e.Sign(p384), ErrKeyKind) {
		t.Fatal("a P-384 key signs")
	}
	if err := e.Sign(liar{ed}); err == nil || len(e.Signatures) != 2 || !e.SignedBy(ed.Public()) {
		t.Fatalf("a wrong signature is taken: %v", err)
	}
}

// liar shows another key than it signs with.
type liar struct{ crypto.Signer }

func (l liar) Public() crypto.PublicKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)).Public()
}

func TestEnvelopeRefuses(t *testing.T) {
	t.Parallel()
	good, err := sealed(t, TypeRelease, "x", newEd(t)).Encode()
	if err != nil {
		t.Fatal(err)
	}
	s := strings.TrimSpace(string(good))
	id := s[strings.Index(s, "keyid")+8:][:64]
	for name, bad := range map[string]string{
		"empty":             "",
		"noise":             "noise",
		"null":              "null",
		"list":              "[]",
		"cut":               s[:len(s)-1],
		"more":              s + "{}",
		"unknown field":     strings.Replace(s, "{", "{\"x\":1,", 1),
		"field twice":       strings.Replace(s, "{", "{\"payload\":\"eQ==\",", 1),
		"field twice, case": strings.Replace(s, "{", "{\"PAYLOAD\":\"eQ==\",", 1),
		"no payload":        strings.Replace(s, "eA==", "", 1),
		"no base64":         strings.Replace(s, "eA==", "e-A=", 1),
		"no type":           strings.Replace(s, string(TypeRelease), "", 1),
		"long type":         strings.Replace(s, string(TypeRelease), strings.Repeat("x", maxType+1), 1),
		"short key id":      strings.Replace(s, id, id[:62], 1),
		"key id no hex":     strings.Replace(s, id, "z"+id[1:], 1),
		"empty signature":   strings.Replace(s, s[strings.Index(s, "sig\":")+6:len(s)-4], "", 1),
		"long signature":    strings.Replace(s, "\"sig\":\"", "\"sig\":\""+strings.Repeat("AAAA", 30), 1),
		"17 signatures":     strings.Replace(s, "[", "["+strings.Repeat(s[strings.Index(s, "[")+1:len(s)-2]+",", 16), 1),
		"deep":              strings.Repeat("[", 1000),
		"long":              strings.Replace(s, "eA==", base64.StdEncoding.EncodeToString(make([]byte, MaxPayload+1)), 1),
		"longer":            strings.Repeat(" ", MaxEnvelope) + s,
	} {
		if e, err := ParseEnvelope([]byte(bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v %v", name, e, err)
		}
	}
	// The largest of all fits the bound of the JSON form.
	big := &Envelope{Type: Type(strings.Repeat("t", maxType)), payload: make([]byte, MaxPayload)}
	for range MaxSignatures {
		big.Signatures = append(big.Signatures, Signature{id, make([]byte, maxSig)})
	}
	b, err := big.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseEnvelope(b); err != nil {
		t.Errorf("the largest envelope, %d bytes: %v", len(b), err)
	}
}

// TestOpenSSLVerifies: another program takes our signatures over the PAE.
func TestOpenSSLVerifies(t *testing.T) {
	t.Parallel()
	need(t, "openssl")
	for name, k := range map[string]crypto.Signer{"Ed25519": newEd(t), "P-256": newP256(t)} {
		dir := t.TempDir()
		e := sealed(t, TypeCommand, "reboot", k)
		pub, err := PublicPEM(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		file := func(name string, b []byte) string {
			p := filepath.Join(dir, name)
			if err := os.WriteFile(p, b, 0o600); err != nil {
				t.Fatal(err)
			}
			return p
		}
		args := []string{"pkeyutl", "-verify", "-pubin", "-inkey", file("pub", pub), "-rawin", "-in", file("data", PAE(e.Type, e.payload)), "-sigfile", file("sig", e.Signatures[0].Sig)}
		if name == "P-256" {
			args = append(args, "-digest", "sha256")
		}
		if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
		file("data", PAE(e.Type, []byte("rebooT")))
		if out, err := exec.Command("openssl", args...).CombinedOutput(); err == nil {
			t.Errorf("%s: openssl takes it over other bytes: %s", name, out)
		}
	}
}

func FuzzParseEnvelope(f *testing.F) {
	good, _ := sealed(f, TypeKeySet, "{\"v\":1}", newEd(f)).Encode()
	f.Add(good)
	f.Add([]byte("{\"payload\":\"eA==\",\"payloadType\":\"t\",\"signatures\":null}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEnvelope(b)
		if err != nil {
			return
		}
		out, err := e.Encode()
		if err != nil {
			t.Fatalf("read and cannot be written: %v", err)
		}
		back, err := ParseEnvelope(out)
		if err != nil || back.Type != e.Type || !bytes.Equal(back.payload, e.payload) || len(back.Signatures) != len(e.Signatures) {
			t.Fatalf("%+v became %+v: %v", e, back, err)
		}
	})
}
