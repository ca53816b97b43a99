// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"fulmar/agent/config"
	"fulmar/device/schedule"
	"fulmar/inference/worker"
	"fulmar/schema"
	"fulmar/twin"
)

// Free is what keys begin with that configure nothing by themselves: rules and commands of
// the board's owner read them.
const Free = "app."

// maxEvery bounds a time between events or pictures: beyond a week a camera is off.
const maxEvery = 7 * 24 * time.Hour

// The least and the most frames a second that a key may ask for: what the worker takes.
const (
	minFPS = 0.001
	maxFPS = 240
)

// Setting is one kind of key.
type Setting struct {
	// Key is its form: "camera.<name>.fps".
	Key string
	// Takes says in words what it may be set to, Does what that changes.
	Takes, Does string

	group group
	put   func(t *target, v any) error
	get   func(t *target) any
}

// group is what the second level of a key names.
type group uint8

const (
	single group = iota // no second level
	sampleGroup
	camera
	model
)

// target is what one key changes: one of the pointers is set, by its group.
type target struct {
	cfg    *config.Config
	sample *schedule.Group
	camera *config.Camera
	model  *config.Model
}

// Table gives all kinds of keys that change the config, in order.
func Table() []Setting {
	duration := func(least, most time.Duration, field func(*target) *time.Duration) (takes string, put func(*target, any) error, get func(*target) any) {
		takes = fmt.Sprintf("a time from %v to %v, as text: \"500ms\", \"10s\", \"5m\"", short(least), short(most))
		return takes, func(t *target, v any) error {
			d, err := toDuration(v, least, most)
			if err == nil {
				*field(t) = d
			}
			return err
		}, func(t *target) any { return short(*field(t)) }
	}
	var out []Setting
	add := func(key string, g group, does, takes string, put func(*target, any) error, get func(*target) any) {
		out = append(out, Setting{key, takes, does, g, put, get})
	}
	levels := []string{"debug", "info", "warn", "error"}
	add("log.level", single, "how much fulmard logs", "one of "+strings.Join(levels, ", "), func(t *target, v any) error {
		return toWord(v, levels, &t.cfg.Log.Level)
	}, func(t *target) any { return t.cfg.Log.Level })
	takes, put, get := duration(schedule.MinPeriod, schedule.MaxPeriod, func(t *target) *time.Duration { return &t.sample.Period })
	add("sample.<group>.period", sampleGroup, "time between two readings of the sensors of a group", takes, put, get)
	add("camera.<name>.fps", camera, "pictures a second that are taken and looked at", fmt.Sprintf("a number from %v to %v", minFPS, maxFPS), func(t *target, v any) error {
		return toNumber(v, minFPS, maxFPS, &t.camera.FPS)
	}, func(t *target) any { return t.camera.FPS })
	takes, put, get = duration(0, maxEvery, func(t *target) *time.Duration { return &t.camera.EventEvery })
	add("camera.<name>.event_every", camera, "shortest time between two events of a camera", takes, put, get)
	takes, put, get = duration(0, maxEvery, func(t *target) *time.Duration { return &t.camera.SnapshotEvery })
	add("camera.<name>.snapshot_every", camera, "shortest time between two kept pictures of a camera; 0s keeps none", takes, put, get)
	add("model.<name>.variant", model, "variant of a model's package; \"\" lets the package choose", fmt.Sprintf("text of at most %d bytes", schema.MaxName), func(t *target, v any) error {
		return toText(v, &t.model.Variant)
	}, func(t *target) any { return t.model.Variant })
	engines := []string{worker.EngineAuto, worker.EngineONNX, worker.EngineTensorRT}
	add("model.<name>.engine", model, "what may run a model", "one of "+strings.Join(engines, ", "), func(t *target, v any) error {
		return toWord(v, engines, &t.model.Engine)
	}, func(t *target) any { return t.model.Engine })
	add("model.<name>.paused", model, "a paused model looks at no picture: its cameras stand still", "true or false", func(t *target, v any) error {
		return toBool(v, &t.model.Paused)
	}, func(t *target) any { return t.model.Paused })
	return out
}

// find gives what a key changes in a config, which it may change.
func find(c *config.Config, key string) (*Setting, *target, error) {
	for _, s := range Table() {
		before, after, named := strings.Cut(s.Key, "<")
		if !named {
			if key == s.Key {
				return &s, &target{cfg: c}, nil
			}
			continue
		}
		_, end, _ := strings.Cut(after, ">")
		name, ok := strings.CutPrefix(key, before)
		if !ok {
			continue
		}
		if name, ok = strings.CutSuffix(name, end); !ok {
			continue
		}
		t, err := pick(c, s.group, name)
		return &s, t, err
	}
	var forms []string
	for _, s := range Table() {
		forms = append(forms, s.Key)
	}
	return nil, nil, fmt.Errorf("is no key that this board can be set to; those that change its config are %s, and %s* are free", strings.Join(forms, ", "), Free)
}

// pick finds the group, camera or model of a name.
func pick(c *config.Config, g group, name string) (*target, error) {
	var there []string
	switch g {
	case sampleGroup:
		for i := range c.Sample.Groups {
			if there = append(there, c.Sample.Groups[i].Name); there[i] == name {
				return &target{cfg: c, sample: &c.Sample.Groups[i]}, nil
			}
		}
		return nil, missing("group of sensors", name, there)
	case camera:
		for i := range c.Cameras {
			if there = append(there, c.Cameras[i].Name); there[i] == name {
				return &target{cfg: c, camera: &c.Cameras[i]}, nil
			}
		}
		return nil, missing("camera", name, there)
	case model:
		for i := range c.Models {
			if there = append(there, c.Models[i].Name); there[i] == name {
				return &target{cfg: c, model: &c.Models[i]}, nil
			}
		}
		return nil, missing("model", name, there)
	}
	return &target{cfg: c}, nil
}

// maxNamed is how many names a reason lists.
const maxNamed = 8

func missing(what, name string, there []string) error {
	if len(there) == 0 {
		return fmt.Errorf("the config of this board has no %s", what)
	}
	if len(there) > maxNamed {
		there = append(slices.Clone(there[:maxNamed]), "...")
	}
	return fmt.Errorf("the config of this board has no %s %q, it has %s", what, name, strings.Join(there, ", "))
}

// Check tells why a key cannot be set to a value on a board with this config, in words;
// nil if it can.
func Check(base *config.Config, key string, v twin.Value) error {
	if strings.HasPrefix(key, Free) {
		return nil
	}
	c := clone(base)
	return set(&c, key, v)
}

// set puts one key over a config, and says why if that would make it a bad one.
func set(c *config.Config, key string, v twin.Value) error {
	s, t, err := find(c, key)
	if err != nil {
		return err
	}
	a, err := v.Any()
	if err != nil {
		return err
	}
	if err := s.put(t, a); err != nil {
		return fmt.Errorf("wants %s; %w", s.Takes, err)
	}
	if t.sample != nil && t.sample.Deadline > t.sample.Period {
		return fmt.Errorf("is shorter than the deadline of the group, %v", t.sample.Deadline)
	}
	return nil
}

// Overlay gives the config with what holds of a twin over it, and why keys are left out,
// by key. Keys that configure nothing are passed over. The error is of a config that is
// bad as a whole though each key was fine alone, and is the base's own if nothing is set.
func Overlay(base *config.Config, effective map[string]twin.Value) (config.Config, map[string]error, error) {
	c, left := clone(base), map[string]error{}
	for _, key := range slices.Sorted(maps.Keys(effective)) {
		if !Configures(key) {
			continue
		}
		before := clone(&c)
		if err := set(&c, key, effective[key]); err != nil {
			left[key], c = err, before
		}
	}
	if err := c.Validate(); err != nil {
		return clone(base), left, fmt.Errorf("the config with the twin over it: %w", err)
	}
	return c, left, nil
}

// Configures tells whether a key is one of the kinds in [Table].
func Configures(key string) bool {
	for _, s := range Table() {
		before, after, named := strings.Cut(s.Key, "<")
		_, end, _ := strings.Cut(after, ">")
		if !named && key == s.Key || named && strings.HasPrefix(key, before) && strings.HasSuffix(key, end) && len(key) > len(before)+len(end) {
			return true
		}
	}
	return false
}

// Values gives what each key is in a config, by key.
func Values(c *config.Config) map[string]twin.Value {
	out := map[string]twin.Value{}
	say := func(key string, s *Setting, t *target) {
		if v, err := twin.ValueOf(s.get(t)); err == nil {
			out[key] = v
		}
	}
	for _, s := range Table() {
		name := func(n string) string {
			before, after, _ := strings.Cut(s.Key, "<")
			_, end, _ := strings.Cut(after, ">")
			return before + n + end
		}
		switch s.group {
		case single:
			say(s.Key, &s, &target{cfg: c})
		case sampleGroup:
			for i := range c.Sample.Groups {
				say(name(c.Sample.Groups[i].Name), &s, &target{cfg: c, sample: &c.Sample.Groups[i]})
			}
		case camera:
			for i := range c.Cameras {
				say(name(c.Cameras[i].Name), &s, &target{cfg: c, camera: &c.Cameras[i]})
			}
		case model:
			for i := range c.Models {
				say(name(c.Models[i].Name), &s, &target{cfg: c, model: &c.Models[i]})
			}
		}
	}
	return out
}

// clone copies what keys may change; the rest is shared and not written to.
func clone(c *config.Config) config.Config {
	out := *c
	out.Sample.Groups = slices.Clone(c.Sample.Groups)
	out.Cameras = slices.Clone(c.Cameras)
	out.Models = slices.Clone(c.Models)
	return out
}

// short is a duration as a person writes it: 1m, not 1m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func toDuration(v any, least, most time.Duration) (time.Duration, error) {
	s, ok := v.(string)
	if !ok {
		return 0, fmt.Errorf("is %v, no text", said(v))
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%.40q is no time", s)
	}
	if d < least || d > most {
		return 0, fmt.Errorf("is %v", d)
	}
	return d, nil
}

func toNumber(v any, least, most float64, to *float64) error {
	var n float64
	switch x := v.(type) {
	case uint64:
		n = float64(x)
	case int64:
		n = float64(x)
	case float64:
		n = x
	default:
		return fmt.Errorf("is %v, no number", said(v))
	}
	if !(n >= least && n <= most) { // also not a number
		return fmt.Errorf("is %v", n)
	}
	*to = n
	return nil
}

func toWord(v any, words []string, to *string) error {
	s, ok := v.(string)
	if !ok || !slices.Contains(words, s) {
		return fmt.Errorf("is %v", said(v))
	}
	*to = s
	return nil
}

func toText(v any, to *string) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("is %v, no text", said(v))
	}
	if len(s) > schema.MaxName {
		return fmt.Errorf("has %d bytes", len(s))
	}
	*to = s
	return nil
}

func toBool(v any, to *bool) error {
	b, ok := v.(bool)
	if !ok {
		return errors.New("is " + said(v))
	}
	*to = b
	return nil
}

// said puts a value into a reason, cut.
func said(v any) string {
	if s, ok := v.(string); ok {
		return fmt.Sprintf("%.40q", s)
	}
	return fmt.Sprintf("%.40s", fmt.Sprint(v))
}
