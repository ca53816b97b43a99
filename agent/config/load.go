// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/token"

	"fulmar/internal/atomicfile"
)

// maxConfigBytes bounds the config file: a folder mistaken for a file or a log
// in its place must not fill memory.
const maxConfigBytes = 1 << 20

// DefaultsYAML is every key with its default and what it means. A test holds it
// equal to [Default].
//
//go:embed defaults.yaml
var DefaultsYAML string

// Load reads a config file. Unknown keys, wrong types and values out of range
// are errors with the line; an unknown key names the nearest known one.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfigBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	c, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("config %s: %w", path, err)
	}
	return c, nil
}

// Parse reads a config from its YAML form, over [Default].
func Parse(b []byte) (*Config, error) {
	if len(b) > maxConfigBytes {
		return nil, fmt.Errorf("is over %d bytes", maxConfigBytes)
	}
	c := Default()
	if err := decode(b, &c); err != nil {
		return nil, err
	}
	return &c, c.Validate()
}

func decode(b []byte, c *Config) (err error) {
	defer func() {
		if p := recover(); p != nil { // the parser is not ours: broken input must not end the agent
			err = fmt.Errorf("is not YAML: %v", p)
		}
	}()
	err = yaml.NewDecoder(bytes.NewReader(b), yaml.Strict()).Decode(c)
	if err == nil || errors.Is(err, io.EOF) {
		return nil
	}
	var unknown *yaml.UnknownFieldError
	if errors.As(err, &unknown) {
		key := unknown.Token.Value
		msg := fmt.Sprintf("%sunknown key %q", place(unknown.Token), key)
		if near := nearest(key, keys(reflect.TypeFor[Config]())); near != "" {
			msg += fmt.Sprintf("; did you mean %q?", near)
		}
		return errors.New(msg + " (all keys: fulmard config --defaults)")
	}
	var located interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if errors.As(err, &located) {
		return fmt.Errorf("%s%s", place(located.GetToken()), located.GetMessage())
	}
	return err
}

func place(t *token.Token) string {
	if t == nil || t.Position == nil {
		return ""
	}
	return fmt.Sprintf("line %d: ", t.Position.Line)
}

// keys lists every yaml key of a config type, nested ones too.
func keys(t reflect.Type) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	var out []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name != "" && name != "-" {
			out = append(out, name)
		}
		out = append(out, keys(f.Type)...)
	}
	return out
}

// nearest gives the known key with the smallest edit distance, "" when none is
// within a third of the key's length (at least 2): a wild guess helps nobody.
func nearest(key string, known []string) string {
	best, limit := "", max(2, len(key)/3)+1
	for _, k := range known {
		if d := distance(key, k); d < limit {
			best, limit = k, d
		}
	}
	return best
}

// distance is the Levenshtein distance of two short keys.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			prev, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, prev+cost)
		}
	}
	return row[len(b)]
}

// LoadOrLastGood reads the config; where it is broken it falls back to the copy
// of the last good one in the data folder (see [KeepLastGood]), so that a typing
// error on a board far away never takes it off the air. broken is what is wrong
// with the file when the copy was used.
func LoadOrLastGood(path string) (c *Config, broken, err error) {
	c, broken = Load(path)
	if broken == nil {
		return c, nil, nil
	}
	b, _ := os.ReadFile(path)
	last := Config{Data: dataOf(b)}
	if c, err = Load(last.LastGoodPath()); err != nil {
		return nil, nil, broken
	}
	return c, broken, nil
}

// dataOf finds the data folder in a file that need not be YAML otherwise.
func dataOf(b []byte) string {
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "data:"); ok {
			v, _, _ = strings.Cut(v, " #")
			return strings.Trim(strings.TrimSpace(v), `"'`)
		}
	}
	return Default().Data
}

// KeepLastGood keeps a copy of a config file that was loaded and applied.
func KeepLastGood(path string, c *Config) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("keep last good config: %w", err)
	}
	if old, err := os.ReadFile(c.LastGoodPath()); err == nil && bytes.Equal(old, b) {
		return nil
	}
	return atomicfile.WriteFile(c.LastGoodPath(), b, 0o600)
}
