// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
)

// Show gives the config that is in force with the files at path as YAML: every key, and
// behind each that a file gives the name of the file. Secrets lie in files of their own,
// so there is nothing to hide. It reads as the same config.
func Show(path string) ([]byte, error) {
	c, from, err := load(path)
	if err != nil {
		return nil, err
	}
	comments := yaml.CommentMap{}
	for key, file := range from {
		comments["$."+key] = []*yaml.Comment{yaml.LineComment(" " + name(path, file))}
	}
	b, err := yaml.MarshalWithOptions(c, yaml.WithComment(comments))
	if err != nil {
		return nil, fmt.Errorf("show config: %w", err)
	}
	return b, nil
}

// name is a file as a person knows it who knows the path of the config: fulmard.yaml,
// fulmard.d/10-enrolment.yaml.
func name(path, file string) string {
	if rel, err := filepath.Rel(filepath.Dir(path), file); err == nil && !strings.HasPrefix(rel, "..") {
		return rel
	}
	return file
}

// ShowJSON is [Show] for programs: the config and the files it is from.
func ShowJSON(path string) ([]byte, error) {
	c, from, err := load(path)
	if err != nil {
		return nil, err
	}
	files, err := Files(path)
	if err != nil {
		return nil, err
	}
	b, err := yaml.MarshalWithOptions(struct {
		Files  []string `yaml:"files"`
		From   origins  `yaml:"from"`
		Config *Config  `yaml:"config"`
	}{files, from, c}, yaml.JSON())
	if err != nil {
		return nil, fmt.Errorf("show config: %w", err)
	}
	return b, nil
}

// together is the keys of all sources in one YAML document, without what has its
// default because nobody gave it.
func together(sources []source) ([]byte, error) {
	var all yaml.MapSlice
	for _, s := range sources {
		var one yaml.MapSlice
		if root, err := tree(s.text); err != nil || root == nil {
			if err != nil {
				return nil, err
			}
			continue
		}
		if err := yaml.UnmarshalWithOptions(s.text, &one, yaml.UseOrderedMap()); err != nil {
			return nil, said(err)
		}
		all = over(all, one)
	}
	b, err := yaml.Marshal(all)
	if err != nil {
		return nil, err
	}
	return append([]byte("# Put together from "+strings.Join(names(sources), ", ")+".\n"), b...), nil
}

// over gives the keys of a with those of b over them.
func over(a, b yaml.MapSlice) yaml.MapSlice {
	for _, item := range b {
		i := 0
		for i < len(a) && a[i].Key != item.Key {
			i++
		}
		sub, isMap := item.Value.(yaml.MapSlice)
		switch {
		case item.Value == nil:
		case i == len(a):
			a = append(a, item)
		case isMap:
			if old, was := a[i].Value.(yaml.MapSlice); was {
				sub = over(old, sub)
			}
			a[i].Value = sub
		default:
			a[i].Value = item.Value
		}
	}
	return a
}
