// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package static holds the page's own files, built in: templates, style, script.
package static

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

//go:embed assets templates
var files embed.FS

// file is one asset as it is served.
type file struct {
	kind string
	body []byte
}

// Assets are the files that a browser loads. The name in a URL carries a hash of the
// content, so a browser may keep it for ever and never has an old one.
type Assets struct {
	byURL map[string]file
	urls  map[string]string // plain name to URL
}

// LoadAssets reads the built-in files.
func LoadAssets() (Assets, error) {
	kinds := map[string]string{".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
	a := Assets{byURL: map[string]file{}, urls: map[string]string{}}
	list, err := files.ReadDir("assets")
	if err != nil {
		return a, fmt.Errorf("read embedded assets: %w", err)
	}
	for _, e := range list {
		b, err := files.ReadFile("assets/" + e.Name())
		if err != nil {
			return a, fmt.Errorf("read embedded asset %s: %w", e.Name(), err)
		}
		ext := path.Ext(e.Name())
		sum := sha256.Sum256(b)
		name := strings.TrimSuffix(e.Name(), ext) + "." + hex.EncodeToString(sum[:8]) + ext
		a.byURL[name] = file{kinds[ext], b}
		a.urls[e.Name()] = "/assets/" + name
	}
	return a, nil
}

// ServeHTTP serves the file that the path value "name" names.
func (a Assets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, ok := a.byURL[r.PathValue("name")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", f.kind)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(f.body)
}

// LoadPages parses each page with the layout and the shared pieces. The function
// "asset" gives the URL of a file; funcs are the page's own.
func LoadPages(a Assets, funcs template.FuncMap, names ...string) (map[string]*template.Template, error) {
	out := map[string]*template.Template{}
	for _, name := range names {
		t := template.New(name).Funcs(funcs).Funcs(template.FuncMap{"asset": func(n string) string { return a.urls[n] }})
		t, err := t.ParseFS(files, "templates/layout.html", "templates/pieces.html", "templates/trust.html", "templates/"+name+".html")
		if err != nil {
			return nil, fmt.Errorf("parse page %s: %w", name, err)
		}
		out[name] = t
	}
	return out, nil
}

// Parse parses the templates of one page, from its own files (nil: the built-in ones),
// with the layout and the shared pieces.
func Parse(a Assets, funcs template.FuncMap, from fs.FS, names ...string) (*template.Template, error) {
	t := template.New("page").Funcs(funcs).Funcs(template.FuncMap{"asset": func(n string) string { return a.urls[n] }})
	t, err := t.ParseFS(files, "templates/layout.html", "templates/pieces.html", "templates/trust.html")
	if err != nil {
		return nil, fmt.Errorf("parse the layout: %w", err)
	}
	if from == nil {
		from = files
	}
	if t, err = t.ParseFS(from, names...); err != nil {
		return nil, fmt.Errorf("parse %s: %w", strings.Join(names, ", "), err)
	}
	return t, nil
}
