// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"fulmar/schema"
)

func valve() *Kind {
	return &Kind{Name: "set-valve-position", Args: []Field{
		{Name: "valve", Type: Text, Required: true},
		{Name: "percent", Type: Number, Required: true, Min: 0, Max: 100, Unit: "%"},
		{Name: "mode", Type: Text, Choices: []string{"fast", "slow"}},
		{Name: "for", Type: Duration, Min: 1, Max: 3600},
		{Name: "who", Type: Texts},
		{Name: "now", Type: Bool},
	}}
}

func TestKindParse(t *testing.T) {
	t.Parallel()
	raw, err := FromJSON([]byte(`{"valve":"v1","percent":50,"mode":"slow","for":"90s","who":["a","b"],"now":true}`))
	if err != nil {
		t.Fatal(err)
	}
	a, err := valve().Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := a.Number("percent"); a.Text("valve") != "v1" || n != 50 || !ok || a.Text("mode") != "slow" || a.Duration("for") != 90*time.Second ||
		!reflect.DeepEqual(a.Texts("who"), []string{"a", "b"}) || !a.Bool("now") {
		t.Errorf("%v", a)
	}
	for text, want := range map[string][]string{
		``:                                       {"valve is missing", "percent is missing"},
		`{"valve":"v1","percent":101}`:           {"percent is 101, wants 0 to 100 %"},
		`{"valve":"v1","percent":-0.5}`:          {"percent is -0.5"},
		`{"valve":"v1","percent":"50"}`:          {"percent is 50, wants a number"},
		`{"valve":"","percent":1}`:               {"valve is empty"},
		`{"valve":7,"percent":1}`:                {"valve is 7, wants text"},
		`{"valve":"v","percent":1,"mode":"x"}`:   {`mode is "x", wants fast, slow`},
		`{"valve":"v","percent":1,"for":"x"}`:    {"for is x, wants a duration"},
		`{"valve":"v","percent":1,"for":7200}`:   {"for is 7200, wants 1 to 3600 s"},
		`{"valve":"v","percent":1,"for":1e300}`:  {"wants a duration"},
		`{"valve":"v","percent":1,"who":[1]}`:    {"who is 1, wants text"},
		`{"valve":"v","percent":1,"now":"yes"}`:  {"now is yes, wants true or false"},
		`{"valve":"v","percent":1,"a":1,"b":{}}`: {`"a" is no argument of set-valve-position: it takes valve, percent, mode, for, who, now`, `"b" is no argument`},
	} {
		raw, err := FromJSON([]byte(text))
		if err != nil {
			t.Fatal(text, err)
		}
		_, err = valve().Parse(raw)
		var e *Error
		if !errors.As(err, &e) || e.Code != CodeArgs {
			t.Errorf("%s: %v", text, err)
			continue
		}
		for _, w := range want {
			if !strings.Contains(e.Text, w) {
				t.Errorf("%s: %q does not say %q", text, e.Text, w)
			}
		}
	}
	if _, err := valve().Parse(make([]byte, MaxArgs+1)); err == nil {
		t.Error("oversized arguments were taken")
	}
	if _, err := valve().Parse([]byte{0x83, 1, 2, 3}); err == nil {
		t.Error("a list was taken for arguments")
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	for in, out := range map[string]string{
		``: ``, ` `: ``, `{}`: ``, `{"a":1}`: `{"a":1}`, `{"a":1.5,"b":[1,"x",true],"c":{"d":-3}}`: `{"a":1.5,"b":[1,"x",true],"c":{"d":-3}}`,
		`{"a":1e20}`: `{"a":100000000000000000000}`, `{"a":9007199254740993}`: `{"a":9007199254740993}`,
	} {
		b, err := FromJSON([]byte(in))
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		got, err := ToJSON(b)
		if err != nil || string(got) != out {
			t.Errorf("%s became %s, %v", in, got, err)
		}
	}
	for _, in := range []string{`[1]`, `{"a":null}`, `{"a":1} {}`, `{"a":1e999}`, `{`, `{"a":[[[[[[[[1]]]]]]]]}`, `{"a":"` + strings.Repeat("x", MaxArgs) + `"}`} {
		if _, err := FromJSON([]byte(in)); err == nil {
			t.Errorf("%.40s was taken", in)
		}
	}
	b, err := schema.Encode(map[string]any{"b": []byte{1, 2}, "m": map[uint64]string{3: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ToJSON(b); err != nil || string(got) != `{"b":"AQI=","m":{"3":"x"}}` {
		t.Errorf("%s %v", got, err)
	}
}

func TestWords(t *testing.T) {
	t.Parallel()
	b, err := FromWords([]string{"valve=v1", "percent=50", "who=[\"a\"]", "now=true", "note=two words", "date=2026-11-26", "empty=", "eq=a=b", `q="7"`})
	if err != nil {
		t.Fatal(err)
	}
	got, err := ToJSON(b)
	if want := `{"date":"2026-11-26","empty":"","eq":"a=b","note":"two words","now":true,"percent":50,"q":"7","valve":"v1","who":["a"]}`; err != nil || string(got) != want {
		t.Errorf("%s %v", got, err)
	}
	for _, w := range [][]string{{"valve"}, {"=1"}, {"a=1", "a=2"}} {
		if _, err := FromWords(w); err == nil {
			t.Errorf("%q was taken", w)
		}
	}
}

// FuzzArgs: whatever bytes come as arguments, reading and showing them neither panics nor
// gives what JSON cannot hold.
func FuzzArgs(f *testing.F) {
	b, err := FromJSON([]byte(`{"valve":"v1","percent":50,"for":"1s","who":["a"]}`))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, `{"a":1}`)
	f.Fuzz(func(t *testing.T, b []byte, text string) {
		_, _ = valve().Parse(b)
		_, _ = ToJSON(b)
		if b, err := FromJSON([]byte(text)); err == nil && b != nil {
			if _, err := ToJSON(b); err != nil {
				t.Fatal(text, err)
			}
		}
	})
}
