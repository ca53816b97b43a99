// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

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

var update = flag.Bool("update", false, "write testdata/golden anew; what boards in the field speak must not change")

func vectors() map[string]any {
	return map[string]any{
		"assignment": &Assignment{
			V: 1, Rollout: "r-31", Component: "model/parcels", Release: "parcels-7", Attempt: 3<<24 | 9, Act: Install, Deadline: 1_767_225_600_123,
			Envelope: []byte(`{"payload":"e30="}`),
		},
		"assignment-undo": &Assignment{V: 1, Rollout: "r-31", Component: "agent", Release: "1.9.0", Attempt: 3<<24 | 10, Act: Undo, Before: "1.8.2"},
		"assignment-signed": &Assignment{
			V: 1, Rollout: "r-31", Component: "agent", Release: "1.9.0", Attempt: 3<<24 | 11, Act: Install, Envelope: []byte(`{"payload":"e30="}`),
			Directive: &Proven{Statement: []byte(`{"v":1}`), Proof: Proof{Envelope: []byte(`{}`), Index: 1, Count: 2, Path: bytes.Repeat([]byte{7}, 32)}},
		},
		"want":             &Want{V: 1, Object: bytes.Repeat([]byte{1}, 32), Size: 1 << 20, From: 8, Missing: []byte{0xfe, 1}, Credit: 16, Cast: true},
		"want-id":          &Want{V: 1, Object: bytes.Repeat([]byte{1}, 32), Size: 1 << 20, From: 8, Missing: []byte{0xfe, 1}, Credit: 16, ID: 7},
		"down-done":        &Down{V: 1, Hold: &Hold{Object: bytes.Repeat([]byte{1}, 32), Done: 7}},
		"want-nonce":       &Want{V: 1, Nonce: bytes.Repeat([]byte{2}, 16)},
		"down-piece":       &Down{V: 1, Piece: &Piece{Object: bytes.Repeat([]byte{1}, 32), Index: 3, Data: []byte("data"), Path: bytes.Repeat([]byte{4}, 64)}},
		"down-fresh":       &Down{V: 1, Fresh: &Proven{Statement: []byte(`{"v":1}`), Proof: Proof{Envelope: []byte(`{}`), Count: 1}}},
		"down-hold":        &Down{V: 1, Hold: &Hold{Object: bytes.Repeat([]byte{1}, 32), ForMs: 2000}},
		"ota-state":        &State{V: 1, Rollout: "r-31", Attempt: 3<<24 | 9, State: Fetching, Progress: 42, Release: "parcels-6"},
		"ota-state-proven": &State{V: 1, Rollout: "r-31", Attempt: 3<<24 | 9, State: Committed, Release: "parcels-7", Component: "model/parcels", Floor: 4, Runs: bytes.Repeat([]byte{5}, 32), Level: Bound},
		"ota-state-failed": &State{V: 1, Rollout: "r-31", Attempt: 3<<24 | 9, State: Failed, Reason: "no space: 212 MB free, wants 388", Release: "parcels-6"},
	}
}

// TestVectors: what this program writes is, byte for byte, what it always wrote.
func TestVectors(t *testing.T) {
	t.Parallel()
	for name, v := range vectors() {
		file := filepath.Join("testdata", "golden", name+".hex")
		got, err := schema.Encode(v)
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
		want, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: the encoding changed: %v\n got %x\nwant %x", name, err, got, want)
		}
		back := reflect.New(reflect.TypeOf(v).Elem()).Interface()
		if err := schema.Decode(want, back); err != nil || !reflect.DeepEqual(back, v) {
			t.Errorf("%s: decoded %+v, %v", name, back, err)
		}
	}
}

// fuzz holds a type to this: what was read is within its limits, and writing and
// reading it again changes nothing.
func fuzz[T any](f *testing.F) {
	for _, v := range vectors() {
		b, err := schema.Encode(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Add([]byte{0xbf, 0x01, 0x01, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, back := new(T), new(T)
		if schema.Decode(b, v) != nil {
			return
		}
		once, err := schema.Encode(v)
		if err != nil {
			t.Fatalf("%x was read and cannot be written: %v", b, err)
		}
		if err := schema.Decode(once, back); err != nil || !reflect.DeepEqual(v, back) {
			t.Fatalf("%+v became %+v, %v", v, back, err)
		}
	})
}

func FuzzAssignment(f *testing.F) { fuzz[Assignment](f) }

func FuzzWant(f *testing.F) { fuzz[Want](f) }

func FuzzDown(f *testing.F) { fuzz[Down](f) }

func FuzzState(f *testing.F) { fuzz[State](f) }

// TestPieceFits: the largest piece with the longest path fits into one message.
func TestPieceFits(t *testing.T) {
	t.Parallel()
	d := &Down{V: 1, Piece: &Piece{Object: make([]byte, HashSize), Index: 1<<18 - 1, Data: make([]byte, schema.MaxChunk), Path: make([]byte, MaxPath)}}
	if b, err := schema.Encode(d); err != nil || len(b) > schema.MaxPayload {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// TestLimits: what is over a limit is neither written nor read.
func TestLimits(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", schema.MaxName+1)
	for name, v := range map[string]any{
		"no rollout":                &Assignment{V: 1, Component: "agent", Release: "1", Attempt: 1, Act: 1},
		"no attempt":                &Assignment{V: 1, Rollout: "r-1", Component: "agent", Release: "1", Act: 1},
		"another act":               &Assignment{V: 1, Rollout: "r-1", Component: "agent", Release: "1", Attempt: 1, Act: 9},
		"a long release":            &Assignment{V: 1, Rollout: "r-1", Component: "agent", Release: long, Attempt: 1, Act: 1},
		"a long release before":     &Assignment{V: 1, Rollout: "r-1", Component: "agent", Release: "1", Attempt: 1, Act: 3, Before: long},
		"a long envelope":           &Assignment{V: 1, Rollout: "r-1", Component: "agent", Release: "1", Attempt: 1, Act: 1, Envelope: bytes.Repeat([]byte{1}, MaxEnvelope+1)},
		"a directive without proof": &Assignment{V: 1, Rollout: "r-1", Component: "agent", Release: "1", Attempt: 1, Act: 1, Directive: &Proven{Statement: []byte("x")}},
		"a want of nothing":         &Want{V: 1},
		"a short nonce":             &Want{V: 1, Nonce: []byte{1}},
		"a want of no object":       &Want{V: 1, Nonce: make([]byte, 16), Credit: 1},
		"a long bitmap":             &Want{V: 1, Object: make([]byte, 32), Size: 1, Missing: make([]byte, MaxMissing+1)},
		"much credit":               &Want{V: 1, Object: make([]byte, 32), Size: 1, Credit: MaxCredit + 1},
		"a word of nothing":         &Down{V: 1},
		"two words":                 &Down{V: 1, Hold: &Hold{Object: make([]byte, 32)}, Piece: &Piece{Object: make([]byte, 32), Data: []byte{1}}},
		"a long piece":              &Down{V: 1, Piece: &Piece{Object: make([]byte, 32), Data: make([]byte, schema.MaxChunk+1)}},
		"half a path":               &Down{V: 1, Piece: &Piece{Object: make([]byte, 32), Data: []byte{1}, Path: make([]byte, 33)}},
		"a newer version":           &Assignment{V: 2, Rollout: "r-1", Component: "agent", Release: "1", Attempt: 1, Act: 1},
		"another word":              &State{V: 1, Rollout: "r-1", Attempt: 1, State: "happy"},
		"progress":                  &State{V: 1, Rollout: "r-1", Attempt: 1, State: Trial, Progress: 101},
		"a long reason":             &State{V: 1, Rollout: "r-1", Attempt: 1, State: Failed, Reason: strings.Repeat("x", schema.MaxText+1)},
		"half a hash":               &State{V: 1, Rollout: "r-1", Attempt: 1, State: Trial, Runs: []byte{1}},
		"another level":             &State{V: 1, Rollout: "r-1", Attempt: 1, State: Trial, Level: 4},
		"a state of no attempt":     &State{V: 1, Rollout: "r-1", State: Trial},
		"a state of no rollout":     &State{V: 1, Attempt: 1, State: Trial},
		"a running long name":       &State{V: 1, Rollout: "r-1", Attempt: 1, State: Trial, Release: long},
	} {
		if _, err := schema.Encode(v); err == nil {
			t.Errorf("%s was written", name)
		}
	}
	if !schema.Can(map[string]string{schema.FactCan: "twin updates"}, schema.CanUpdate) || schema.Can(map[string]string{schema.FactCan: "no-updates"}, schema.CanUpdate) || schema.Can(nil, schema.CanUpdate) {
		t.Error("Can is wrong")
	}
	for _, s := range []string{"f/v1/default/b1/ota/d", "f/v1/default/b1/ota/s", "f/v1/default/b1/ota/want", "f/v1/default/b1/ota/c"} {
		if got, err := schema.ParseTopic(s); err != nil || got.String() != s {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	if _, err := schema.ParseTopic("f/v1/default/b1/ota/x"); err == nil {
		t.Error("ota/x is a topic")
	}
}
