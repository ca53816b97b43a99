// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package house

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The size ratchets of DESIGN 2. They are bounds, not goals.
const (
	maxFileLines    = 500
	maxFuncLines    = 70
	maxPackageLines = 1500
	minExportedDocs = 0.95
)

const licence = "// Copyright (c) The Fulmar Authors\n// SPDX-License-Identifier: Apache-2.0\n"

type source struct {
	path string
	text []byte
	file *ast.File
}

func sources(t *testing.T, p pkg) []source {
	t.Helper()
	var out []source
	for _, n := range append(append([]string{}, p.GoFiles...), p.CgoFiles...) {
		path := filepath.Join(p.Dir, n)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, b, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, source{path, b, f})
	}
	return out
}

func TestLicenceLines(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, "./...") {
		for _, n := range append(append(append(append([]string{}, p.GoFiles...), p.CgoFiles...), p.TestGoFiles...), p.XTestGoFiles...) {
			b, err := os.ReadFile(filepath.Join(p.Dir, n))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(b, []byte(licence)) && !bytes.Contains(b[:min(len(b), 400)], []byte(licence)) {
				t.Errorf("%s/%s does not begin with the licence lines", p.ImportPath, n)
			}
		}
	}
}

func TestPackageDocs(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, "./...") {
		if p.Doc == "" && len(p.GoFiles)+len(p.CgoFiles) > 0 {
			t.Errorf("%s has no package doc", p.ImportPath)
		}
		if strings.Contains(p.Doc, "SPDX") {
			t.Errorf("%s: the licence lines are swallowed as its doc; leave a blank line after them", p.ImportPath)
		}
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, "./...") {
		total := 0
		for _, s := range sources(t, p) {
			lines := bytes.Count(s.text, []byte("\n"))
			if total += lines; lines > maxFileLines {
				t.Errorf("%s: %d lines, at most %d", s.path, lines, maxFileLines)
			}
			for _, d := range s.file.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok || fn.Body == nil {
					continue
				}
				n := 1 + bytes.Count(s.text[fn.Pos()-s.file.FileStart:fn.End()-s.file.FileStart], []byte("\n"))
				if n > maxFuncLines {
					t.Errorf("%s: func %s has %d lines, at most %d", s.path, fn.Name.Name, n, maxFuncLines)
				}
			}
		}
		if total > maxPackageLines {
			t.Errorf("%s: %d lines, at most %d", p.ImportPath, total, maxPackageLines)
		}
	}
}

func TestNoInit(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, "./...") {
		for _, s := range sources(t, p) {
			for _, d := range s.file.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == "init" && fn.Recv == nil {
					t.Errorf("%s: init(); wiring belongs in agent, fleet and cmd", s.path)
				}
			}
		}
	}
}

func TestExportedDocs(t *testing.T) {
	t.Parallel()
	all, with := 0, 0
	var bare []string
	for _, p := range list(t, "./...") {
		for _, s := range sources(t, p) {
			for name, doc := range exported(s.file) {
				if all++; doc {
					with++
				} else {
					bare = append(bare, s.path+": "+name)
				}
			}
		}
	}
	if float64(with) < minExportedDocs*float64(all) {
		t.Errorf("%d of %d exported names have a doc, wants %.0f %%:\n%s", with, all, 100*minExportedDocs, strings.Join(bare, "\n"))
	}
}

func exported(f *ast.File) map[string]bool {
	out := map[string]bool{}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && (d.Recv == nil || receiverExported(d.Recv)) {
				out[d.Name.Name+d.Name.String()] = d.Doc != nil
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					if s.Name.IsExported() {
						out[s.Name.Name] = d.Doc != nil || s.Doc != nil || s.Comment != nil
					}
				case *ast.ValueSpec:
					for _, n := range s.Names {
						if n.IsExported() {
							out[n.Name] = d.Doc != nil || s.Doc != nil || s.Comment != nil
						}
					}
				}
			}
		}
	}
	return out
}

func receiverExported(r *ast.FieldList) bool {
	e := r.List[0].Type
	if s, ok := e.(*ast.StarExpr); ok {
		e = s.X
	}
	if i, ok := e.(*ast.IndexExpr); ok {
		e = i.X
	}
	id, ok := e.(*ast.Ident)
	return ok && id.IsExported()
}
