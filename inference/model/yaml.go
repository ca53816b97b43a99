// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxDepth bounds the nesting of model.yaml, which needs 3; the parser recurses.
const maxDepth = 16

// parse reads strict YAML into m. Errors name the line.
func parse(b []byte, m *Manifest) error {
	if err := shallow(b); err != nil {
		return err
	}
	file, err := parser.ParseBytes(b, 0)
	if err != nil {
		return plain(err)
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return errors.New("wants one YAML document that is not empty")
	}
	body := file.Docs[0].Body
	if t := body.Type(); t != ast.MappingType && t != ast.MappingValueType {
		return fmt.Errorf("line %d: it does not begin with keys and values", line(body))
	}
	if err := known(body, reflect.TypeOf(*m), ""); err != nil {
		return err
	}
	if err := yaml.NodeToValue(body, m, yaml.Strict()); err != nil {
		return plain(err)
	}
	return nil
}

// shallow refuses nesting that would cost the parser much stack: brackets, deep
// indents and rows of dashes.
func shallow(b []byte) error {
	line, depth, indent, start := 1, 0, 0, true
	for _, c := range b {
		switch {
		case c == '\n':
			line, indent, start = line+1, 0, true
		case start && (c == ' ' || c == '-' || c == '?' || c == '\t'):
			indent++
		case c == '[' || c == '{':
			depth, start = depth+1, false
		case c == ']' || c == '}':
			depth, start = max(0, depth-1), false
		default:
			start = false
		}
		if depth > maxDepth || indent > 4*maxDepth {
			return fmt.Errorf("line %d: nested more than %d deep", line, maxDepth)
		}
	}
	return nil
}

// known walks the document beside the type it goes into, and refuses keys that the
// type does not have, and YAML's ways of saying a thing in another place.
func known(n ast.Node, t reflect.Type, path string) error {
	switch n := n.(type) {
	case *ast.MappingNode:
		for _, v := range n.Values {
			if err := knownPair(v, t, path); err != nil {
				return err
			}
		}
	case *ast.MappingValueNode:
		return knownPair(n, t, path)
	case *ast.SequenceNode:
		if t.Kind() != reflect.Slice {
			return fmt.Errorf("line %d: %s is a list; wants %s", line(n), path, kind(t))
		}
		for _, v := range n.Values {
			if err := known(v, t.Elem(), path); err != nil {
				return err
			}
		}
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.MergeKeyNode:
		return fmt.Errorf("line %d: anchors, aliases and tags are not read here; write the value out", line(n))
	}
	return nil
}

func knownPair(v *ast.MappingValueNode, t reflect.Type, path string) error {
	key := v.Key.GetToken().Value
	if t.Kind() != reflect.Struct {
		return fmt.Errorf("line %d: %s has a key %q; wants %s", line(v.Key), path, key, kind(t))
	}
	if path != "" {
		path += "."
	}
	nearest, best := "", math.MaxInt
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("yaml")
		if name == key {
			return known(v.Value, f.Type, path+key)
		}
		if d := distance(key, name); d < best {
			nearest, best = name, d
		}
	}
	return fmt.Errorf("line %d: %s%s is no key known here; the nearest is %s%s", line(v.Key), path, key, path, nearest)
}

func line(n ast.Node) int {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}

func kind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct:
		return "keys and values"
	case reflect.Slice:
		return "a list"
	case reflect.String:
		return "a text"
	}
	return "a number"
}

// plain is the first line of a YAML error, "line 3: ...", without the excerpt.
func plain(err error) error {
	text, _, _ := strings.Cut(yaml.FormatError(err, false, false), "\n")
	const longest = 200 // bytes; it may quote the file
	text = text[:min(len(text), longest)]
	var l, c int
	if n, _ := fmt.Sscanf(text, "[%d:%d]", &l, &c); n == 2 {
		_, rest, _ := strings.Cut(text, "] ")
		return fmt.Errorf("line %d: %s", l, rest)
	}
	return errors.New(text)
}

// distance is how many letters to put in, take out or change to get from a to b.
func distance(a, b string) int {
	const longest = 64 // a key of more letters is no slip of the pen
	if len(a) > longest || len(b) > longest {
		return longest
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range a {
		corner := row[0]
		row[0] = i + 1
		for j := range b {
			cost := corner
			if a[i] != b[j] {
				cost++
			}
			corner = row[j+1]
			row[j+1] = min(cost, row[j]+1, corner+1)
		}
	}
	return row[len(b)]
}
