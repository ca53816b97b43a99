// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"fulmar/internal/atomicfile"
)

// DefaultsYAML is every key with its default and what it means. A test holds it
// equal to [Default].
//
//go:embed defaults.yaml
var DefaultsYAML string

// Load reads the config file at path and then its drop-ins ([DropInDir]), each over
// what stood before, key by key; a list replaces the whole list, and a key without a
// value changes nothing. Unknown keys, wrong types and values out of range are errors
// with the file and its line; an unknown key names the nearest known one.
func Load(path string) (*Config, error) {
	c, _, err := load(path)
	return c, err
}

func load(path string) (*Config, origins, error) { return loadWith(path, UpdateDir(path)) }

// With reads the config at path with the drop-ins of a folder as what came over the air, ""
// for none: so an update is checked before it is in force.
func With(path, update string) (*Config, error) {
	c, _, err := loadWith(path, update)
	return c, err
}

func loadWith(path, update string) (*Config, origins, error) {
	sources, err := readAll(path, update)
	if err != nil {
		return nil, nil, err
	}
	c, from, err := parse(sources)
	if err != nil {
		return nil, nil, fmt.Errorf("config %s: %w", path, err)
	}
	return c, from, nil
}

// Parse reads a config from its YAML form, over [Default].
func Parse(b []byte) (*Config, error) {
	if len(b) > maxConfigBytes {
		return nil, fmt.Errorf("is over %d bytes", maxConfigBytes)
	}
	c, _, err := parse([]source{{text: b}})
	return c, err
}

// parse reads sources over [Default], in their order.
func parse(sources []source) (*Config, origins, error) {
	c, from := Default(), origins{}
	for i, s := range sources {
		root, err := tree(s.text)
		if err == nil && s.air {
			err = mayUpdate(root)
		}
		if err == nil && root != nil {
			err = decode(root, &c)
		}
		if err != nil {
			if i > 0 { // the first is named by whoever reads it
				err = fmt.Errorf("%s: %w", s.path, err)
			}
			return nil, nil, err
		}
		from.note("", root, s.path)
	}
	return &c, from, from.blame(c.Validate(), sources)
}

// mayUpdate refuses keys that say which board this is and where it keeps what: of those
// each board has its own, and an update is for many.
func mayUpdate(root *ast.MappingNode) error {
	if root == nil {
		return nil
	}
	for _, v := range root.Values {
		if key := v.Key.String(); slices.Contains([]string{"board", "data", "key", "tpm", "<<"}, key) {
			return fmt.Errorf("%s%s: is of the board itself and cannot come over the air; set it in the config file", place(v.Key.GetToken()), key)
		}
	}
	return nil
}

// tree parses one file into its map; nil where it holds only comments.
func tree(b []byte) (root *ast.MappingNode, err error) {
	defer notYAML(&err)
	f, err := parser.ParseBytes(b, 0)
	if err != nil {
		return nil, said(err)
	}
	for _, d := range f.Docs {
		switch body := d.Body.(type) {
		case nil, *ast.DirectiveNode, *ast.NullNode, *ast.CommentGroupNode:
		case *ast.MappingNode:
			if root != nil {
				return nil, fmt.Errorf("%sa second document begins; one file is one document", place(body.GetToken()))
			}
			root = body
		default:
			return nil, fmt.Errorf("%sis no map of keys (all keys: fulmard config --defaults)", place(body.GetToken()))
		}
	}
	return root, nil
}

// decode reads a map over c.
func decode(root *ast.MappingNode, c *Config) (err error) {
	defer notYAML(&err)
	return said(yaml.NodeToValue(root, c, yaml.Strict()))
}

// notYAML makes an error of a panic: the parser is not ours, and broken input must not
// end the agent.
func notYAML(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("is not YAML: %v", p)
	}
}

// note takes down the keys that a file gives. Aliases and merges are not followed: what
// they bring counts as the key that names them.
func (o origins) note(prefix string, root *ast.MappingNode, path string) {
	if root == nil {
		return
	}
	for _, v := range root.Values {
		key := prefix + v.Key.String()
		switch child := v.Value.(type) {
		case *ast.MappingNode:
			o.note(key+".", child, path)
		case *ast.NullNode:
		default:
			o[key] = path
		}
	}
}

// said puts the parser's errors into our words.
func said(err error) error {
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

// LoadOrLastGood reads the config; where it or one of its drop-ins is broken it falls
// back to the copy of the last good one in the data folder (see [KeepLastGood]), so that
// a typing error on a board far away never takes it off the air. broken is what is wrong
// with the files when the copy was used.
func LoadOrLastGood(path string) (c *Config, broken, err error) {
	c, broken = Load(path)
	if broken == nil {
		return c, nil, nil
	}
	last := Config{Data: dataOf(path)}
	b, err := readFile(last.LastGoodPath(), maxConfigBytes)
	if err != nil {
		return nil, nil, broken
	}
	if c, err = Parse(b); err != nil {
		return nil, nil, broken
	}
	return c, broken, nil
}

// KeepLastGood keeps a copy of a config that was loaded from path and applied: the file
// as it is, or where there are drop-ins the keys of all of them put together.
func KeepLastGood(path string, c *Config) error {
	sources, err := readAll(path, UpdateDir(path))
	if err != nil {
		return fmt.Errorf("keep last good config: %w", err)
	}
	b := sources[0].text
	if len(sources) > 1 {
		if b, err = together(sources); err != nil {
			return fmt.Errorf("keep last good config: %w", err)
		}
	}
	// The files may have changed since they were loaded, and what was put together must
	// read as what it was made of: a copy that is not c is none.
	if got, err := Parse(b); err != nil || !reflect.DeepEqual(got, c) {
		return errors.Join(fmt.Errorf("keep last good config: %s has changed since it was loaded", path), err)
	}
	if old, err := os.ReadFile(c.LastGoodPath()); err == nil && bytes.Equal(old, b) {
		return nil
	}
	return atomicfile.WriteFile(c.LastGoodPath(), b, 0o600)
}
