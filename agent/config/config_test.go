// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestDefaultsPage holds the commented page equal to Default, key by key.
func TestDefaultsPage(t *testing.T) {
	t.Parallel()
	var got Config
	if err := decodeText(DefaultsYAML, &got); err != nil {
		t.Fatal(err)
	}
	want := Default()
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range g.NumField() {
		a, b := g.Field(i), w.Field(i)
		if a.Kind() == reflect.Slice && a.Len() == 0 && b.Len() == 0 {
			continue
		}
		if !reflect.DeepEqual(normal(a.Interface()), normal(b.Interface())) {
			t.Errorf("%s: page says %+v, Default %+v", g.Type().Field(i).Name, a.Interface(), b.Interface())
		}
	}
	for _, k := range keys(reflect.TypeFor[Config]()) {
		if !strings.Contains(DefaultsYAML, k+":") {
			t.Errorf("key %s is not on the page", k)
		}
	}
}

// normal makes empty and nil slices equal, one level down.
func normal(v any) any {
	r := reflect.New(reflect.TypeOf(v)).Elem()
	r.Set(reflect.ValueOf(v))
	if r.Kind() == reflect.Struct {
		for i := range r.NumField() {
			if f := r.Field(i); f.Kind() == reflect.Slice && f.Len() == 0 {
				f.SetZero()
			}
		}
	}
	return r.Interface()
}

const good = "board: dock-1\nfleet: {address: 'fleet:8443'}\n"

func TestErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, yaml, want string }{
		{"unknown key", good + "spol:\n  alarm_mib: 3\n", `line 3: unknown key "spol"; did you mean "spool"?`},
		{"unknown nested key", good + "link:\n  keepalive: 30s\n", `line 4: unknown key "keepalive"; did you mean "keep_alive"?`},
		{"no near key", good + "zzzzzz: 1\n", `unknown key "zzzzzz" (all keys`},
		{"wrong type", good + "spool: {alarm_mib: lots}\n", "line 3: "},
		{"not yaml", good + "link: [\n", "line"},
		{"no fleet", "fleet: {token_file: /t}\n", "fleet.address: is empty beside fleet.token_file"},
		{"relative data", good + "data: here\n", "data: \"here\" is not an absolute path"},
		{"bad name", "board: Dock 1\nfleet: {address: 'f:1'}\n", "board"},
		{"bad address", "fleet: {address: nowhere}\n", "fleet.address: \"nowhere\" is not host:port"},
		{"camera without model", good + "cameras: [{name: c, kind: scene, fps: 5, model: m}]\n", `cameras[0].model: "m" is not among the models`},
		{"two cameras", good + "models: [{name: m, path: /m}]\ncameras: [{name: c, kind: scene, fps: 5, model: m}, {name: c, kind: scene, fps: 5, model: m}]\n", `"c" is there twice`},
		{"no person", good + "local: {operators: ['% plant']}\n", "local.operators: \"% plant\" is no user"},
		{"a key of local", good + "local: {operator: [anna]}\n", "operators"},
		{"open tcp status", good + "status: {listen: '127.0.0.1:9100'}\n", "status.token_file: is empty"},
		{"child without program", good + "infer: {mode: child}\n", "infer.program: is empty"},
		{"engine", good + "models: [{name: m, path: /m, engine: cuda}]\n", `models[0].engine: "cuda", wants`},
		{"relative cache", good + "infer: {engine_cache: here}\n", `infer.engine_cache: "here" is not an absolute path`},
		{"dla", good + "infer: {dla: yes please}\n", "infer.dla: "},
		{"batch", good + "infer: {max_batch: 65}\n", "infer.max_batch: 65, wants 1 to 64"},
		{"small cache", good + "infer: {engine_cache_mib: 1}\n", "infer.engine_cache_mib: 1, wants 64 to"},
		{"quota", good + "spool: {event_mib: 0}\n", "spool.event_mib: 0, wants 1 to"},
		{"key mode", good + "key: {mode: hsm}\n", `key.mode: "hsm", wants auto, tpm, software`},
		{"tpm path", good + "tpm: {path: tpmrm0}\n", `tpm.path: "tpmrm0" is neither`},
		{"tpm required", good + "key: {mode: software}\ntpm: {required: true}\n", "tpm.required: is true while key.mode is software"},
		{"pin", "fleet: {address: 'f:1', pin: abcd}\n", "fleet.pin: is not 64 hex digits"},
		{"encrypt", good + "spool: {encrypt: hsm}\n", `spool.encrypt: "hsm", wants auto, tpm, file, off`},
		{"ttl", good + "spool: {ttl: {event: 30s}}\n", "spool.ttl.event: 30s, wants 0s"},
		{"ttl of alarms", good + "spool: {ttl: {alarm: 1h}}\n", `unknown key "alarm"`},
		{"rule", good + "rules: [{name: hot, when: 'thermal.cpu_celsius >', do: [{command: restart}]}]\n", "rule hot: when: at column 22: something is missing at the end"},
		{"rule's word", good + "rules: [{name: hot, wen: 'x.a > 1'}]\n", `unknown key "wen"; did you mean "when"?`},
		{"shed", good + "shed: [{when: 'x.a > 1', do: {app.x: 1}}]\n", "shed[0]: do: app.x is no key"},
		{"autonomy", good + "autonomy: {allow: [{name: a, commands: []}]}\n", "autonomy.allow[0].commands: 0"},
		{"fps", good + "models: [{name: m, path: /m}]\ncameras: [{name: c, kind: scene, fps: 0, model: m}]\n", "cameras[0].fps: 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse([]byte(c.yaml))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, wants %q in it", err, c.want)
			}
		})
	}
	if _, err := Parse([]byte(good)); err != nil {
		t.Errorf("good config: %v", err)
	}
}

func TestLastGood(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, data := filepath.Join(dir, "fulmard.yaml"), filepath.Join(dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(extra string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(good+"data: "+data+"\n"+extra), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("broken key: [\n")
	if _, _, err := LoadOrLastGood(path); err == nil {
		t.Fatal("a broken config without a last good one was taken")
	}
	write("link: {keep_alive: 30s}\n")
	c, broken, err := LoadOrLastGood(path)
	if err != nil || broken != nil {
		t.Fatal(err, broken)
	}
	if err := KeepLastGood(path, c); err != nil {
		t.Fatal(err)
	}
	write("link: {keep_alive: 1s}\n")
	got, broken, err := LoadOrLastGood(path)
	if err != nil || broken == nil {
		t.Fatalf("err %v, broken %v; wants the last good config and what is wrong", err, broken)
	}
	if got.Link.KeepAlive != c.Link.KeepAlive {
		t.Errorf("keep_alive %v, wants the last good %v", got.Link.KeepAlive, c.Link.KeepAlive)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(DefaultsYAML))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err == nil && c.Validate() != nil {
			t.Error("Parse gave a config that Validate refuses")
		}
	})
}
