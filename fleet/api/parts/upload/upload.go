// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package upload is the routes of releases: a signed manifest, its objects, and the word
// that all of it is there. An object comes as it is, with as many bytes as there are, so
// its route reads the body itself.
package upload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"fulmar/fleet/access"
	"fulmar/fleet/api/door"
	"fulmar/fleet/api/parts/route"
	"fulmar/schema/rest"
)

// stall is how long a client may take for the next bytes of an object.
const stall = time.Minute

// Releases keeps releases.
type Releases interface {
	List(ctx context.Context, by access.Caller) ([]rest.Release, error)
	Get(ctx context.Context, by access.Caller, name string) (*rest.Release, error)
	Begin(ctx context.Context, by access.Caller, envelope []byte) (*rest.Release, error)
	Object(by access.Caller, tree string) (rest.ReleaseObject, error)
	// Put takes an object's bytes from offset on.
	Put(ctx context.Context, by access.Caller, tree string, offset int64, r io.Reader) (rest.ReleaseObject, error)
	Complete(ctx context.Context, by access.Caller, name string) (*rest.Release, error)
	Remove(ctx context.Context, by access.Caller, name string) error
}

// Offset is implemented by an error that tells where an upload goes on.
type Offset interface{ Offset() int64 }

// Mount adds the routes.
func Mount(d *door.Door, x Releases) {
	r := routes{x}
	g := route.Group{Tag: "releases", Read: rest.BoardsRead, Edit: rest.ReleasesWrite}
	add := func(id, method, path, summary string) door.Route {
		return route.Whole(g.Route(id, method, path, summary))
	}
	door.Handle(d, add("list-releases", http.MethodGet, "releases", "Releases, newest first"), r.list)
	door.Handle(d, route.Makes(add("begin-release", http.MethodPost, "releases", "Bring a signed manifest; the answer lists the objects that are missing")), r.begin)
	door.Handle(d, add("get-release", http.MethodGet, "releases/{release}", "A release: components, who signed, who runs it, patches"), r.get)
	door.Handle(d, add("complete-release", http.MethodPost, "releases/{release}/complete", "All objects are here: rollouts may take it"), r.complete)
	door.Handle(d, add("remove-release", http.MethodDelete, "releases/{release}", "Remove a release and the objects that no other one has"), r.remove)
	door.Handle(d, add("get-object", http.MethodGet, "objects/{tree}", "How much of an object is here"), r.object)
	put := add("put-object", http.MethodPut, "objects/{tree}", "Bring an object, from the byte that is missing on")
	put.Stream = true
	d.Raw(put, describe, r.put)
}

type routes struct{ x Releases }

func (r routes) list(ctx context.Context, by access.Caller, _ *route.Nothing) (*route.ListOut[rest.Release], error) {
	return route.ListOf(r.x.List(ctx, by))
}

type out struct{ Body *rest.Release }

type nameIn struct {
	Release string `path:"release" maxLength:"64" doc:"Its name"`
}

func (r routes) get(ctx context.Context, by access.Caller, in *nameIn) (*out, error) {
	v, err := r.x.Get(ctx, by, in.Release)
	return &out{v}, err
}

type beginIn struct{ Body rest.ReleaseSpec }

func (r routes) begin(ctx context.Context, by access.Caller, in *beginIn) (*out, error) {
	v, err := r.x.Begin(ctx, by, in.Body.Envelope)
	return &out{v}, err
}

type changeIn struct {
	Release string `path:"release" maxLength:"64" doc:"Its name"`
	Dry     bool   `query:"dry_run" doc:"Check all and change nothing"`
}

func (r routes) complete(ctx context.Context, by access.Caller, in *changeIn) (*out, error) {
	if in.Dry {
		v, err := r.x.Get(ctx, by, in.Release)
		if err != nil {
			return nil, err
		}
		if n := len(v.Missing); n > 0 {
			return nil, door.Fail(rest.CodeConflict, fmt.Sprintf("%d objects are missing", n))
		}
		return nil, door.Would("Release " + in.Release + " would be complete.")
	}
	v, err := r.x.Complete(ctx, by, in.Release)
	return &out{v}, err
}

func (r routes) remove(ctx context.Context, by access.Caller, in *changeIn) (*struct{}, error) {
	if in.Dry {
		v, err := r.x.Get(ctx, by, in.Release)
		if err != nil {
			return nil, err
		}
		if len(v.InUse) > 0 {
			return nil, door.Fail(rest.CodeConflict, fmt.Sprintf("rollouts %v want it", v.InUse))
		}
		return nil, door.Would("Release " + in.Release + " would be removed.")
	}
	return nil, r.x.Remove(ctx, by, in.Release)
}

type treeIn struct {
	Tree string `path:"tree" maxLength:"64" doc:"Root over its pieces, 64 hex digits"`
}

type objectOut struct{ Body rest.ReleaseObject }

func (r routes) object(_ context.Context, by access.Caller, in *treeIn) (*objectOut, error) {
	v, err := r.x.Object(by, in.Tree)
	return &objectOut{v}, err
}

func describe(op *huma.Operation) {
	op.Parameters = append(op.Parameters,
		&huma.Param{Name: "tree", In: "path", Required: true, Description: "Root over its pieces, 64 hex digits", Schema: &huma.Schema{Type: huma.TypeString}},
		&huma.Param{Name: "offset", In: "query", Description: "Bytes that are here, as the answers tell", Schema: &huma.Schema{Type: huma.TypeInteger}})
	op.RequestBody = &huma.RequestBody{Required: true, Description: "The rest of the object, or a part of it", Content: map[string]*huma.MediaType{
		"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
	}}
	op.Responses["200"] = &huma.Response{Description: "How much is here now", Content: map[string]*huma.MediaType{
		"application/json": {Schema: &huma.Schema{Ref: "#/components/schemas/ReleaseObject"}},
	}}
}

func (r routes) put(w http.ResponseWriter, req *http.Request, by access.Caller) error {
	offset := int64(0)
	if s := req.URL.Query().Get("offset"); s != "" {
		var err error
		if offset, err = strconv.ParseInt(s, 10, 64); err != nil || offset < 0 {
			return door.Wrong("offset", "wants a number of bytes")
		}
	}
	v, err := r.x.Put(req.Context(), by, req.PathValue("tree"), offset, &patient{w: http.NewResponseController(w), r: req.Body})
	var at Offset
	switch {
	case errors.As(err, &at):
		return &door.Error{Code: rest.CodeConflict, Detail: err.Error(), Faults: []rest.Fault{{Pointer: "offset", Detail: strconv.FormatInt(at.Offset(), 10)}}, Cause: err}
	case err != nil:
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a client that has gone is no error of ours
	return nil
}

// patient reads a body that may take long as a whole, not for each piece.
type patient struct {
	w *http.ResponseController
	r io.Reader
}

func (p *patient) Read(b []byte) (int, error) {
	// Where there are no deadlines none is wanted. The answer comes after the last byte was
	// read and the object was checked.
	_ = p.w.SetReadDeadline(time.Now().Add(stall))
	_ = p.w.SetWriteDeadline(time.Now().Add(2 * stall))
	return p.r.Read(b)
}
