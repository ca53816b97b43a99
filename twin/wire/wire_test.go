// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"fulmar/schema"
)

var update = flag.Bool("update", false, "write testdata anew; what boards in the field speak must not change")

type vector struct {
	name  string
	value any
	blank func() any
}

func of[T any]() any { return new(T) }

func vectors() []vector {
	sum := bytes.Repeat([]byte{7, 13}, 16)
	return []vector{
		{"up", &Up{
			V: 1, Conn: 3_600_123, Want: WantHead | WantDesired,
			Head:     Head{Epoch: "b00000007-0badcafe", Counter: 9, Reported: sum, Version: 12, Desired: sum, Override: sum},
			Reported: &Reported{Epoch: "b00000007-0badcafe", From: 8, To: 9, Set: map[string][]byte{"log.level": {0x64, 'i', 'n', 'f', 'o'}}, Unset: []string{"model.old"}},
			Override: &Override{Clock: map[string]uint64{"b00000007-0badcafe": 3}, Entries: []Entry{{
				Key: "valve.1.limit", Value: []byte{0x18, 40}, Dot: Dot{"b00000007-0badcafe", 3}, Seen: map[string]uint64{"f00000001-00000001": 11},
				Author: "operator", Reason: "the pump shakes", Policy: 4, LeaseMs: 3_600_000,
			}}},
		}, of[Up]},
		{"down", &Down{
			V: 1, Conn: 3_600_123, Want: WantReported, Head: Head{Version: 13, Desired: sum, Override: sum},
			Desired: &Desired{
				From: 12, Version: 13, Clock: map[string]uint64{"f00000001-00000001": 13}, Gone: []string{"model.old"}, Envelope: []byte("{}"),
				Entries: []Entry{{Key: "sample.fast.period", Value: []byte{0x62, '2', 's'}, Dot: Dot{"f00000001-00000001", 13}, Author: "alice"}},
			},
			Override: &Override{Clock: map[string]uint64{"b00000007-0badcafe": 3}},
		}, of[Down]},
		{"statement", &Statement{V: 1, Tenant: "default", Board: "dock-1", Version: 13, Digest: sum}, of[Statement]},
	}
}

// TestVectors: what this program writes is, byte for byte, what it always wrote.
func TestVectors(t *testing.T) {
	t.Parallel()
	for _, v := range vectors() {
		file := filepath.Join("testdata", v.name+".hex")
		got, err := schema.Encode(v.value)
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(file, []byte(hex.EncodeToString(got)+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(string(text)) != hex.EncodeToString(got) {
			t.Errorf("%s: the encoding changed to %x", v.name, got)
		}
		back := v.blank()
		if err := schema.Decode(got, back); err != nil || !reflect.DeepEqual(back, v.value) {
			t.Errorf("%s: decoded %+v, %v", v.name, back, err)
		}
	}
}

// TestLimits: each bound is refused when it is passed by one, on the way out and in.
func TestLimits(t *testing.T) {
	t.Parallel()
	head := Head{Epoch: "b"}
	dot := Dot{"b", 1}
	many := make([]Entry, MaxKeys+1)
	actors := map[string]uint64{}
	for i := range MaxActors + 1 {
		actors[string(rune('a'+i))] = 1
	}
	for i := range many {
		many[i] = Entry{Key: "k", Dot: dot}
	}
	env := []byte("e")
	for what, m := range map[string]any{
		"version":        &Up{V: 2},
		"epoch":          &Up{V: 1, Head: Head{Epoch: strings.Repeat("b", maxActor+1)}},
		"digest":         &Up{V: 1, Head: Head{Override: make([]byte, 33)}},
		"reported key":   &Up{V: 1, Reported: &Reported{Epoch: "b", Set: map[string][]byte{strings.Repeat("k", MaxKey+1): {1}}}},
		"reported value": &Up{V: 1, Reported: &Reported{Epoch: "b", Set: map[string][]byte{"k": make([]byte, MaxValue+1)}}},
		"no value":       &Up{V: 1, Reported: &Reported{Epoch: "b", Set: map[string][]byte{"k": {}}}},
		"unset key":      &Up{V: 1, Reported: &Reported{Epoch: "b", Unset: []string{""}}},
		"from after to":  &Up{V: 1, Reported: &Reported{Epoch: "b", From: 2, To: 1}},
		"entries":        &Down{V: 1, Desired: &Desired{Version: 1, Envelope: env, Entries: many}},
		"no envelope":    &Down{V: 1, Desired: &Desired{Version: 1}},
		"envelope":       &Down{V: 1, Desired: &Desired{Version: 1, Envelope: make([]byte, MaxEnvelope+1)}},
		"gone key":       &Down{V: 1, Desired: &Desired{Version: 1, Envelope: env, Gone: []string{""}}},
		"from":           &Down{V: 1, Desired: &Desired{From: 1, Version: 1, Envelope: env}},
		"clock":          &Down{V: 1, Desired: &Desired{Version: 1, Envelope: env, Clock: actors}},
		"no key":         &Down{V: 1, Override: &Override{Entries: []Entry{{Dot: dot}}}},
		"key":            &Down{V: 1, Override: &Override{Entries: []Entry{{Key: strings.Repeat("k", MaxKey+1), Dot: dot}}}},
		"value":          &Down{V: 1, Override: &Override{Entries: []Entry{{Key: "k", Dot: dot, Value: make([]byte, MaxValue+1)}}}},
		"no dot":         &Down{V: 1, Override: &Override{Entries: []Entry{{Key: "k"}}}},
		"actor":          &Down{V: 1, Override: &Override{Entries: []Entry{{Key: "k", Dot: Dot{strings.Repeat("b", maxActor+1), 1}}}}},
		"author":         &Down{V: 1, Override: &Override{Entries: []Entry{{Key: "k", Dot: dot, Author: strings.Repeat("a", schema.MaxName+1)}}}},
		"reason":         &Down{V: 1, Override: &Override{Entries: []Entry{{Key: "k", Dot: dot, Reason: strings.Repeat("a", schema.MaxFact+1)}}}},
		"seen":           &Down{V: 1, Override: &Override{Entries: []Entry{{Key: "k", Dot: dot, Seen: actors}}}},
		"override clock": &Up{V: 1, Override: &Override{Clock: map[string]uint64{"": 1}}},
		"statement":      &Statement{V: 1, Digest: []byte{1}},
	} {
		if _, err := schema.Encode(m); err == nil {
			t.Errorf("%s: is sent", what)
		}
	}
	if _, err := schema.Encode(&Up{V: 1, Head: head}); err != nil {
		t.Error(err)
	}
}

// FuzzUp and FuzzDown: what is read can be written, and reads the same again.
func FuzzUp(f *testing.F) { fuzz[Up](f) }

func FuzzDown(f *testing.F) { fuzz[Down](f) }

func fuzz[T any](f *testing.F) {
	for _, v := range vectors() {
		b, err := schema.Encode(v.value)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v := new(T)
		if schema.Decode(b, v) != nil {
			return
		}
		once, err := schema.Encode(v)
		if err != nil {
			if strings.Contains(err.Error(), "bytes, at most") {
				return
			}
			t.Fatal(err)
		}
		again := new(T)
		if err := schema.Decode(once, again); err != nil || !reflect.DeepEqual(v, again) {
			t.Fatalf("read %+v, read back %+v: %v", v, again, err)
		}
	})
}
