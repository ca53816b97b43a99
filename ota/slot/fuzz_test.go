// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"crypto/sha256"
	"fmt"
	"reflect"
	"testing"
)

func FuzzDecodeState(f *testing.F) {
	for _, st := range []State{
		{},
		{Current: "1.0-0123456789ab", Trial: true, Tries: 2},
		{Current: "1.0-0123456789ab", Previous: "1_0.9~rc1-0123456789ab", Fall: &Fall{From: "2-0123456789ab", Reason: "x"}},
	} {
		b, err := encodeState(st)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		decodeState(b)
		// And what lies behind the checksum, which no fuzzer guesses.
		st, err := decodeState(fmt.Appendf(nil, "%s\n%x\n", b, sha256.Sum256(b)))
		if err != nil {
			return
		}
		b, err = encodeState(st)
		if err != nil || len(b) > maxState {
			return // a reason that is longer than any we write
		}
		again, err := decodeState(b)
		if err != nil || !reflect.DeepEqual(again, st) {
			t.Errorf("%+v became %+v, %v", st, again, err)
		}
		for _, id := range []string{st.Current, st.Previous} {
			if id != "" && !validID(id) {
				t.Errorf("%q", id)
			}
		}
	})
}

func FuzzDecodeSlot(f *testing.F) {
	sum := fmt.Sprintf("%x", sha256.Sum256(nil))
	files := map[string]File{Agent: {sum, 5}, "lib.so.1": {sum, 7}}
	id := makeID("1:1.0-2", files)
	f.Add(id, fmt.Appendf(nil, `{"v":1,"version":"1:1.0-2","origin":"deb","files":{"fulmard":{"sha256":"%s","size":5},"lib.so.1":{"sha256":"%s","size":7}}}`, sum, sum))
	f.Add("", []byte("{}"))
	f.Fuzz(func(t *testing.T, id string, b []byte) {
		sl, err := decodeSlot(id, b)
		if err != nil {
			return
		}
		if !validID(id) || sl.ID != id || len(sl.Files) > maxFiles {
			t.Errorf("%q: %+v", id, sl)
		}
		for name := range sl.Files {
			if name == "" || name[0] == '.' || name == slotFile || len(name) > maxName {
				t.Errorf("a file called %q", name)
			}
		}
	})
}

// TestLaterFields: an older launcher reads what a newer agent wrote.
func TestLaterFields(t *testing.T) {
	t.Parallel()
	line := []byte(`{"v":1,"current":"1.0-0123456789ab","trial":true,"tries":1,"later":{"a":[1]}}`)
	st, err := decodeState(fmt.Appendf(nil, "%s\n%x\n", line, sha256.Sum256(line)))
	if err != nil || st.Current != "1.0-0123456789ab" || st.Tries != 1 {
		t.Errorf("%+v, %v", st, err)
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(nil))
	files := map[string]File{Agent: {sum, 5}}
	if _, err := decodeSlot(makeID("1.0", files), fmt.Appendf(nil, `{"v":1,"later":1,"version":"1.0","origin":"ota","files":{"fulmard":{"sha256":"%s","size":5,"later":true}}}`, sum)); err != nil {
		t.Error(err)
	}
}
