// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package route is what the routes of the API's parts have in common.
package route

import (
	"net/http"

	"fulmar/fleet/api/door"
	"fulmar/schema/rest"
)

// Group makes routes of one tag.
type Group struct {
	Tag  string
	Read rest.Right // of what looks
	Edit rest.Right // of what changes
}

// Route makes one: what GET does looks.
func (g Group) Route(id, method, path, summary string) door.Route {
	r := door.Route{ID: id, Method: method, Path: path, Tag: g.Tag, Summary: summary, Right: g.Edit}
	if method == http.MethodGet {
		r.Right = g.Read
	}
	return r
}

// Whole keeps callers who are limited to some boards out of a route.
func Whole(r door.Route) door.Route {
	r.Whole = true
	return r
}

// Secret says that a route's answer is told once.
func Secret(r door.Route) door.Route {
	r.Secret = true
	return r
}

// Makes says that a route makes a new thing.
func Makes(r door.Route) door.Route {
	r.Makes = true
	return r
}

// ListOut is a collection that is answered whole: its part bounds it.
type ListOut[T any] struct{ Body rest.List[T] }

// ListOf answers a list; none is an empty one.
func ListOf[T any](items []T, err error) (*ListOut[T], error) {
	if items == nil {
		items = []T{}
	}
	return &ListOut[T]{rest.List[T]{Items: items}}, err
}

// Nothing is an input without anything in it.
type Nothing struct{}

// IDIn names a thing to change.
type IDIn struct {
	ID  string `path:"id" maxLength:"64" doc:"Its id"`
	Dry bool   `query:"dry_run" doc:"Check all and change nothing"`
}
