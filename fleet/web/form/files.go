// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package form

import (
	"embed"
	"errors"
	"io/fs"
	"net/http"

	"fulmar/fleet/access"
	"fulmar/fleet/web"
	"fulmar/fleet/web/trust"
	"fulmar/schema/rest"
)

// files holds the templates that draw a [Field] and what goes with forms: "field",
// "faults", "tone", "sprite".
//
//go:embed pieces.html
var files embed.FS

// With gives own files, and this package's beside them.
func With(own fs.FS) fs.FS { return both{own} }

// both looks into own files first.
type both struct{ own fs.FS }

// Open implements [fs.FS].
func (b both) Open(name string) (fs.File, error) {
	f, err := b.own.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return files.Open(name)
	}
	return f, err
}

// Pieces names the template of this package, for the list of a page's templates.
const Pieces = "pieces.html"

// Assets names the style and the script that forms need.
func Assets() []string { return []string{"manage.css", "manage.js"} }

// Explain puts an error of a part of the fleet into words; false for a fault of the
// server.
type Explain func(error) (rest.Problem, bool)

// Refused writes an error into a form; false for one that has a page of its own. field
// gives the name of the field for a pointer, "" for none.
func (e Explain) Refused(f *Form, err error, field func(pointer string) string) (code int, ok bool) {
	if errors.Is(err, access.ErrNotAllowed) {
		f.Refuse("Nothing was done: you may not do that.", "What a second person has to do, nobody does alone. An admin gives roles.")
		return http.StatusForbidden, true
	}
	if e == nil {
		return 0, false
	}
	pr, ok := e(err)
	if !ok || pr.Status >= 500 || pr.Status == http.StatusNotFound {
		return 0, false
	}
	f.Take(pr, field)
	return pr.Status, true
}

// Gone puts an error of a part into one that the page knows.
func (e Explain) Gone(err error) error {
	if e == nil {
		return err
	}
	pr, ok := e(err)
	switch {
	case !ok || pr.Status >= 500:
		return err
	case pr.Status == http.StatusNotFound:
		return web.ErrNotFound
	}
	return &trust.Problem{Code: pr.Status, What: pr.Title, Do: pr.Do}
}
