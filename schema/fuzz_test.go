// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

// seedWith adds the encodings of all vectors of a type, and some damage.
func seedWith(f *testing.F, blank any) {
	for _, v := range vectors() {
		if reflect.TypeOf(v.value) != reflect.TypeOf(blank) {
			continue
		}
		b, err := Encode(v.value)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
		f.Add(append(bytes.Clone(b), 0))
	}
	f.Add([]byte{0xa1, 0x09, 0x9a, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0xbf, 0x01, 0x01, 0xff})
}

// stable says that what was read is within the limits, and that writing and
// reading it again changes nothing. Bytes that leave fields out may be shorter
// than what is written, so only an overlong result is forgiven.
func stable[T any](t *testing.T, b []byte) {
	v := new(T)
	if err := Decode(b, v); err != nil {
		return
	}
	once, err := Encode(v)
	if err != nil {
		if strings.Contains(err.Error(), "bytes, at most") {
			return
		}
		t.Fatalf("%x was read and cannot be written: %v", b, err)
	}
	again := new(T)
	if err := Decode(once, again); err != nil {
		t.Fatalf("%x cannot be read back: %v", once, err)
	}
	if !reflect.DeepEqual(v, again) {
		t.Fatalf("read %+v, read back %+v", v, again)
	}
	twice, err := Encode(again)
	if err != nil || !bytes.Equal(once, twice) {
		t.Fatalf("written %x, then %x: %v", once, twice, err)
	}
}

func FuzzMessage(f *testing.F) {
	seedWith(f, new(Message))
	f.Fuzz(func(t *testing.T, b []byte) { stable[Message](t, b) })
}

func FuzzChunk(f *testing.F) {
	seedWith(f, new(Chunk))
	f.Fuzz(func(t *testing.T, b []byte) { stable[Chunk](t, b) })
}

func FuzzPresence(f *testing.F) {
	seedWith(f, new(Presence))
	f.Fuzz(func(t *testing.T, b []byte) { stable[Presence](t, b) })
}

func FuzzHello(f *testing.F) {
	seedWith(f, new(Hello))
	f.Fuzz(func(t *testing.T, b []byte) { stable[Hello](t, b) })
}

func FuzzHelloAck(f *testing.F) {
	seedWith(f, new(HelloAck))
	f.Fuzz(func(t *testing.T, b []byte) { stable[HelloAck](t, b) })
}

func FuzzAttestation(f *testing.F) {
	seedWith(f, new(Attestation))
	f.Fuzz(func(t *testing.T, b []byte) { stable[Attestation](t, b) })
}

func FuzzAttestReport(f *testing.F) {
	seedWith(f, new(AttestReport))
	f.Fuzz(func(t *testing.T, b []byte) { stable[AttestReport](t, b) })
}

func FuzzAck(f *testing.F) {
	seedWith(f, new(Ack))
	f.Fuzz(func(t *testing.T, b []byte) { stable[Ack](t, b) })
}

func FuzzRecord(f *testing.F) {
	seedWith(f, new(Record))
	f.Fuzz(func(t *testing.T, b []byte) {
		stable[Record](t, b)
		r, err := DecodeRecord(b)
		if (err == nil) != (r != nil) {
			t.Fatalf("%v and %v", r, err)
		}
		if err == nil && len(b) > MaxRecord {
			t.Fatalf("a record of %d bytes was read", len(b))
		}
		if kind, at, terr := DecodeTime(b); err == nil && (terr != nil || kind != r.Kind || at != r.Time) {
			t.Fatalf("of kind %s and %+v, by its time alone %s and %+v: %v", r.Kind, r.Time, kind, at, terr)
		}
	})
}

func FuzzParseTopic(f *testing.F) {
	for _, s := range []string{"f/v1/acme/dock-1/t/host", "f/v1/acme/dock-1/hello/ack", "f/v1/a/b/blob/x.jpg", "f/v1/+/#", "f/v1///"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		topic, err := ParseTopic(s)
		if err != nil {
			return
		}
		if topic.String() != s {
			t.Fatalf("%q was read as %+v, which is %q", s, topic, topic)
		}
		if strings.ContainsAny(s, "+#$\x00 ") || !strings.HasPrefix(s, BoardPrefix(topic.Tenant, topic.Board)) {
			t.Fatalf("%q was let through", s)
		}
	})
}
