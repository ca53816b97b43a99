// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package form

import (
	"embed"
	"errors"
	"io/fs"

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
