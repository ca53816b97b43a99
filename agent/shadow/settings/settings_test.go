// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"fulmar/agent/config"
	"fulmar/twin"
)

func val(t *testing.T, v any) twin.Value {
	t.Helper()
	b, err := twin.ValueOf(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func base(t *testing.T) config.Config {
	t.Helper()
	c, err := config.Parse([]byte(`
models: [{name: m.fps, path: "builtin:parcels"}, {name: n, path: "/n"}]
cameras: [{name: cam0, kind: scene, fps: 5, model: m.fps}, {name: x.fps, kind: scene, fps: 5, model: n}]
sample: {groups: [{name: fast, period: 1s, sensors: [cpu]}, {name: late, period: 10s, deadline: 5s, sensors: ["*"]}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	return *c
}

// TestCheck: what each key takes, and the reason in words where it does not.
func TestCheck(t *testing.T) {
	t.Parallel()
	c := base(t)
	for _, k := range []struct {
		key  string
		v    any
		want string // "": taken
	}{
		{"log.level", "debug", ""},
		{"log.level", "loud", `wants one of debug, info, warn, error; is "loud"`},
		{"log.level", 3, "is 3"},
		{"log.format", "json", "is no key that this board can be set to"},
		{"sample.fast.period", "10ms", ""},
		{"sample.fast.period", "9ms", "wants a time from 10ms to 24h"},
		{"sample.fast.period", "25h", "is 25h0m0s"},
		{"sample.fast.period", "soon", `"soon" is no time`},
		{"sample.fast.period", 1, "is 1, no text"},
		{"sample.late.period", "4s", "shorter than the deadline of the group, 5s"},
		{"sample.late.period", "5s", ""},
		{"sample.none.period", "5s", `no group of sensors "none", it has fast, late`},
		{"camera.cam0.fps", 0.001, ""},
		{"camera.cam0.fps", 240, ""},
		{"camera.cam0.fps", 240.1, "wants a number from 0.001 to 240; is 240.1"},
		{"camera.cam0.fps", 0, "is 0"},
		{"camera.cam0.fps", -1, "is -1"},
		{"camera.cam0.fps", math.NaN(), "is NaN"},
		{"camera.cam0.fps", "5", "no number"},
		{"camera.x.fps.fps", 5, ""},
		{"camera.x.fps.event_every", "0s", ""},
		{"camera.cam0.snapshot_every", "-1s", "is -1s"},
		{"camera..fps", 5, `no camera ""`},
		{"camera.cam0.path", "/etc", "is no key"},
		{"model.m.fps.variant", "int8", ""},
		{"model.n.variant", strings.Repeat("x", 65), "has 65 bytes"},
		{"model.n.engine", "tensorrt", ""},
		{"model.n.engine", "", "wants one of auto, onnxruntime, tensorrt"},
		{"model.n.paused", true, ""},
		{"model.n.paused", "true", `wants true or false; is "true"`},
		{"model.n.paused", nil, ""},
		{"app.whatever", []any{1, "x"}, ""},
		{"rule.x", map[string]any{}, "is no key"},
	} {
		if k.v == nil {
			continue
		}
		err := Check(&c, k.key, val(t, k.v))
		if got := ""; err != nil {
			if got = err.Error(); k.want == "" || !strings.Contains(got, k.want) {
				t.Errorf("%s = %v: %q, wants %q", k.key, k.v, got, k.want)
			}
		} else if k.want != "" {
			t.Errorf("%s = %v is taken, wants %q", k.key, k.v, k.want)
		}
	}
	if err := Check(&c, "log.level", twin.Value{0x5f}); err == nil {
		t.Error("what is no CBOR was taken")
	}
	if !reflect.DeepEqual(c, base(t)) {
		t.Error("a check wrote to the config")
	}
}

// TestOverlay: each key changes what it names and nothing else; one that does not fit
// leaves the others.
func TestOverlay(t *testing.T) {
	t.Parallel()
	c := base(t)
	got, left, err := Overlay(&c, map[string]twin.Value{
		"log.level": val(t, "warn"), "sample.late.period": val(t, "1m"), "camera.cam0.fps": val(t, 2), "camera.x.fps.event_every": val(t, "3s"),
		"model.n.paused": val(t, true), "model.m.fps.engine": val(t, "onnxruntime"), "app.x": val(t, 1), "rule.y": val(t, 1),
		"camera.gone.fps": val(t, 2), "sample.fast.period": val(t, "1ns"),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := base(t)
	want.Log.Level, want.Sample.Groups[1].Period = "warn", time.Minute
	want.Cameras[0].FPS, want.Cameras[1].EventEvery = 2, 3*time.Second
	want.Models[1].Paused, want.Models[0].Engine = true, "onnxruntime"
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwants %+v", got, want)
	}
	if len(left) != 2 || left["camera.gone.fps"] == nil || left["sample.fast.period"] == nil {
		t.Errorf("left out: %v", left)
	}
	if !reflect.DeepEqual(c, base(t)) {
		t.Error("the base was written to")
	}
	if s := got.Setup(); len(s.Cameras) != 1 || s.Cameras[0].Name != "cam0" || len(s.Models) != 2 {
		t.Errorf("with n paused the worker gets %+v", s)
	}
	if got, left, err := Overlay(&c, map[string]twin.Value{"sample.late.period": val(t, "4s"), "log.level": val(t, "warn")}); err != nil ||
		len(left) != 1 || got.Sample.Groups[1].Period != 10*time.Second || got.Log.Level != "warn" {
		t.Errorf("a period under its deadline: %v, left out %v, %v", got.Sample.Groups, left, err)
	}
	c.Data = "nowhere"
	if got, _, err := Overlay(&c, map[string]twin.Value{"log.level": val(t, "warn")}); err == nil || got.Log.Level != "info" {
		t.Errorf("over a bad base: %v", err)
	}
}

// TestValues: what is told to be in force may be set, and changes nothing then.
func TestValues(t *testing.T) {
	t.Parallel()
	c := base(t)
	values := Values(&c)
	if len(values) != 1+2+2*3+2*3 {
		t.Errorf("%d values: %v", len(values), values)
	}
	for key, v := range values {
		if !Configures(key) {
			t.Errorf("%s is told and cannot be set", key)
		}
		if err := Check(&c, key, v); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	if string(values["sample.late.period"]) != string(val(t, "10s")) || short(time.Minute) != "1m" || short(90*time.Minute) != "1h30m" || short(24*time.Hour) != "24h" {
		t.Errorf("a period is told as %x", values["sample.late.period"])
	}
}

// TestDocs holds the table of docs/twin.md equal to the one here.
func TestDocs(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../../docs/twin.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range Table() {
		if line := "| `" + s.Key + "` | " + s.Does + " | " + s.Takes + " |\n"; !strings.Contains(string(b), line) {
			t.Errorf("docs/twin.md lacks\n%s", line)
		}
	}
	if n := strings.Count(string(b), "\n| `camera.") + strings.Count(string(b), "\n| `model.") + strings.Count(string(b), "\n| `sample."); n != len(Table())-1 {
		t.Errorf("docs/twin.md has %d rows of cameras, models and groups", n)
	}
}
