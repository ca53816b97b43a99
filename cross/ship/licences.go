// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
)

const (
	// The longest text so far are the notices of ONNX Runtime with 340 KB; a file over
	// the limit is not a licence and would swell each package.
	maxText = 1 << 20
	// All texts are 0.6 MB now. They are in each package, where 4 MB would be felt.
	maxTexts = 4 << 20
)

// source is where the licence texts of some code lie.
type source struct {
	title string            // module and version
	root  string            // folder of the module
	dirs  map[string]bool   // folders of the packages that are linked
	texts map[string]string // by file name, as it is under root
}

// licences writes the texts that must go along with the programs: of the modules that
// are linked into them, of Go itself, and of ONNX Runtime from the folder onnx. Which
// modules those are, the programs themselves say; which folders of the modules are
// linked, the go command says, since a module may carry code of others with a licence
// beside it. A module without a licence is an error.
func licences(out io.Writer, onnx string, programs []string) error {
	sources := map[string]*source{}
	for _, p := range programs {
		if err := collect(sources, p); err != nil {
			return fmt.Errorf("licences of %s: %w", p, err)
		}
	}
	goroot, err := goTool(nil, "env", "GOROOT")
	if err != nil {
		return err
	}
	root := strings.TrimSpace(string(goroot))
	version, err := goTool(nil, "env", "GOVERSION")
	if err != nil {
		return err
	}
	sources["std"] = &source{title: "The Go standard library and run time " + strings.TrimSpace(string(version)), root: root, dirs: map[string]bool{root: true}}
	sources["onnx"] = &source{title: "ONNX Runtime (libonnxruntime.so.1), beside the worker", root: onnx, dirs: map[string]bool{onnx: true}}
	for _, s := range sources {
		if err := s.read(); err != nil {
			return err
		}
	}
	return write(out, sources)
}

// collect adds what one program links.
func collect(sources map[string]*source, program string) error {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return fmt.Errorf("read what it was built of: %w", err)
	}
	linked := map[string]*debug.Module{}
	for _, m := range info.Deps {
		if m.Replace != nil {
			return fmt.Errorf("%s is replaced by %s; say here whose licence counts", m.Path, m.Replace.Path)
		}
		linked[m.Path] = m
	}
	packages, err := goTool(info, "list", "-deps", "-json=Dir,Module", info.Path)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for d := json.NewDecoder(bytes.NewReader(packages)); ; {
		var p struct {
			Dir    string
			Module *struct{ Path, Version, Dir string }
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("read what the go command lists: %w", err)
		}
		if p.Module == nil || linked[p.Module.Path] == nil {
			continue // Go itself, our own module, or not linked in the end
		}
		if v := linked[p.Module.Path].Version; v != p.Module.Version {
			return fmt.Errorf("it was built with %s %s, and go.mod says %s now; build it anew", p.Module.Path, v, p.Module.Version)
		}
		key := p.Module.Path + " " + p.Module.Version
		if sources[key] == nil {
			sources[key] = &source{title: key, root: p.Module.Dir, dirs: map[string]bool{}}
		}
		sources[key].dirs[p.Dir] = true
		seen[p.Module.Path] = true
	}
	for path := range linked {
		if !seen[path] {
			return fmt.Errorf("it links %s, which the go command does not list for it; build it anew", path)
		}
	}
	return nil
}

// goTool runs the go command for the same target as the program was built for.
func goTool(info *debug.BuildInfo, args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	cmd.Env = os.Environ()
	if info != nil {
		for _, s := range info.Settings {
			if s.Key == "GOARCH" || s.Key == "GOOS" || s.Key == "CGO_ENABLED" {
				cmd.Env = append(cmd.Env, s.Key+"="+s.Value)
			}
		}
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w: %s", args[0], err, bytes.TrimSpace(errs.Bytes()))
	}
	return out, nil
}

// isLicence tells the names under which licences and what must go with them lie.
func isLicence(name string) bool {
	if ext := strings.ToLower(filepath.Ext(name)); ext == ".go" || ext == ".html" || ext == ".json" {
		return false
	}
	return regexp.MustCompile(`(?i)^(un)?licen[cs]e|licen[cs]e(\.(md|txt))?$|^(copying|copyright|notice|patents)|third.?party.?notices`).MatchString(name)
}

// read finds the texts in the folders of the linked packages and in all folders above
// them, up to the module's.
func (s *source) read() error {
	s.texts = map[string]string{}
	looked := map[string]bool{}
	for dir := range s.dirs {
		for at := dir; !looked[at]; at = filepath.Dir(at) {
			looked[at] = true
			if err := s.readDir(at); err != nil {
				return fmt.Errorf("%s: %w", s.title, err)
			}
			if at == s.root || at == filepath.Dir(at) {
				break
			}
		}
	}
	// A text in a sub-folder speaks for that folder alone, so the root must have one.
	for name := range s.texts {
		if !strings.Contains(name, "/") && !regexp.MustCompile(`(?i)^(notice|patents)`).MatchString(name) {
			return nil
		}
	}
	return fmt.Errorf("%s has no licence in its folder: find out what it is under before it is shipped", s.title)
}

func (s *source) readDir(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if !isLicence(f.Name()) || !f.Type().IsRegular() {
			continue
		}
		path := filepath.Join(dir, f.Name())
		info, err := f.Info()
		if err != nil {
			return err
		}
		if info.Size() > maxText {
			return fmt.Errorf("%s has %d bytes, which no licence has (at most %d)", path, info.Size(), maxText)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(s.root, path)
		if err != nil {
			return err
		}
		s.texts[name] = strings.TrimRight(strings.ReplaceAll(string(text), "\r\n", "\n"), " \t\n") + "\n"
	}
	return nil
}

// write puts each text once, under all that it is the text of, in order of their names.
func write(out io.Writer, sources map[string]*source) error {
	owners := map[string][]string{}
	for _, s := range sources {
		for name, text := range s.texts {
			owners[text] = append(owners[text], s.title+", "+name)
		}
	}
	var titles []string
	for _, s := range sources {
		titles = append(titles, s.title)
	}
	slices.Sort(titles)
	var b strings.Builder
	b.WriteString("The programs of fulmar are under the Apache License, Version 2.0. They contain, or come\nwith, the following work of others, whose licences and notices are below.\n\n")
	for _, t := range titles {
		b.WriteString("  " + t + "\n")
	}
	for _, names := range owners {
		slices.Sort(names)
	}
	texts := slices.SortedFunc(maps.Keys(owners), func(x, y string) int { return strings.Compare(owners[x][0], owners[y][0]) })
	for _, text := range texts {
		b.WriteString("\n" + strings.Repeat("=", 80) + "\n" + strings.Join(owners[text], "\n") + "\n" + strings.Repeat("-", 80) + "\n\n" + text)
	}
	if b.Len() > maxTexts {
		return fmt.Errorf("the licence texts have %d bytes together, at most %d are to be in a package", b.Len(), maxTexts)
	}
	_, err := io.WriteString(out, b.String())
	return err
}
