// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package door

import (
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"fulmar/schema/rest"
)

// prefix is where the API is.
const prefix = "/api/v1/"

const about = `The API of a fulmar fleet. docs/api.md of the project shows its use.

Errors are problem+json (RFC 9457); code is a row of the table of codes, which docs/errors.md lists.
A GET with an ETag takes If-None-Match. Changes take dry_run=true, which makes every check and changes
nothing, and Idempotency-Key, which is kept for 24 hours. Lists go on with page_token. Readers skip fields
that they do not know; fields of requests that the API does not know are refused.`

// document is the description before there are routes.
func document() *huma.OpenAPI {
	reg := huma.NewMapRegistry("#/components/schemas/", schemaName)
	reg.RegisterTypeAlias(reflect.TypeFor[rest.Rights](), reflect.TypeFor[[]string]())
	return &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "fulmar fleet", Version: "1", Description: about,
			License: &huma.License{Name: "Apache 2.0", Identifier: "Apache-2.0"},
		},
		Components: &huma.Components{Schemas: reg, SecuritySchemes: map[string]*huma.SecurityScheme{
			"token":   {Type: "http", Scheme: "bearer", Description: "An API token"},
			"session": {Type: "apiKey", In: "cookie", Name: "__Host-fulmar", Description: "A session of the page"},
		}},
	}
}

// schemaName names schemas by type and, outside of schema/rest, package.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	i := strings.LastIndexByte(t.PkgPath(), '/') + 1
	if pkg := t.PkgPath()[i:]; pkg != "" && pkg != "rest" && t.Name() != "" {
		return strings.ToUpper(pkg[:1]) + pkg[1:] + name
	}
	return name
}

// operation describes a route.
func (d *Door) operation(route Route) huma.Operation {
	op := huma.Operation{
		OperationID: route.ID, Method: route.Method, Path: prefix + route.Path, Summary: route.Summary, Tags: []string{route.Tag},
		Metadata: map[string]any{"route": route}, Extensions: map[string]any{}, Deprecated: route.Deprecated != "",
		Description: route.Deprecated, MaxBodyBytes: MaxBody + 1,
		Responses: map[string]*huma.Response{"default": {Description: "What went wrong", Content: map[string]*huma.MediaType{
			"application/problem+json": {Schema: d.SchemaOf(rest.Problem{})},
		}}},
	}
	if route.Makes {
		op.DefaultStatus = http.StatusCreated
	}
	if route.Right != "" {
		op.Extensions["x-right"] = route.Right
	}
	if route.Whole {
		op.Extensions["x-whole-fleet"] = true
	}
	if !route.Open {
		op.Security = []map[string][]string{{"token": {}}, {"session": {}}}
	}
	if route.Method == http.MethodPost || route.Method == http.MethodPut || route.Method == http.MethodDelete {
		op.Parameters = append(op.Parameters, &huma.Param{
			Name: "Idempotency-Key", In: "header", Description: "Makes a repetition harmless, for 24 hours",
			Schema: &huma.Schema{Type: huma.TypeString},
		})
	}
	return op
}

// Optional lets requests leave out fields of v's type that its JSON always has. It has
// to be said before the routes that take one are added.
func (d *Door) Optional(v any, fields ...string) {
	schemas := d.api.OpenAPI().Components.Schemas
	s := schemas.SchemaFromRef(d.SchemaOf(v).Ref)
	s.Required = slices.DeleteFunc(s.Required, func(f string) bool { return slices.Contains(fields, f) })
	s.PrecomputeMessages()
}

// finish completes the description of a route after huma has made it: what has no body
// has no content, and a dry run is answered in its own way.
func (d *Door) finish(route Route) {
	op := *at(d.api.OpenAPI().Paths[prefix+route.Path], route.Method)
	if r := op.Responses["204"]; r != nil {
		r.Content = nil
	}
	if !slices.ContainsFunc(op.Parameters, func(p *huma.Param) bool { return p.Name == "dry_run" }) {
		return
	}
	tried := d.SchemaOf(rest.DryRun{})
	if r := op.Responses["200"]; r != nil {
		c := r.Content["application/json"]
		c.Schema = &huma.Schema{OneOf: []*huma.Schema{c.Schema, tried}}
		return
	}
	op.Responses["200"] = &huma.Response{Description: "The dry run found nothing wrong", Content: map[string]*huma.MediaType{"application/json": {Schema: tried}}}
}

// at gives the place of a method in a path.
func at(p *huma.PathItem, method string) **huma.Operation {
	switch method {
	case http.MethodPost:
		return &p.Post
	case http.MethodPut:
		return &p.Put
	case http.MethodDelete:
		return &p.Delete
	case http.MethodPatch:
		return &p.Patch
	}
	return &p.Get
}

// SchemaOf gives the schema of v's type.
func (d *Door) SchemaOf(v any) *huma.Schema {
	return d.api.OpenAPI().Components.Schemas.Schema(reflect.TypeOf(v), true, "")
}

// Document gives the description of all routes as JSON. Strict is as it is checked
// here: with every object closed to fields that are not described.
func (d *Door) Document(strict bool) ([]byte, error) {
	// huma describes its own errors for routes; ours are described above.
	schemas := d.api.OpenAPI().Components.Schemas.Map()
	delete(schemas, "HumaErrorModel")
	delete(schemas, "V2ErrorModel")
	delete(schemas, "V2ErrorDetail")
	for _, s := range schemas { // an empty map of Go is null in JSON
		for _, name := range s.Required {
			if p := s.Properties[name]; p != nil && p.Type == huma.TypeObject && p.AdditionalProperties != false {
				p.Nullable = true
			}
		}
	}
	b, err := json.Marshal(d.api.OpenAPI())
	if err != nil || strict {
		return b, err
	}
	var doc any
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, err
	}
	open(doc)
	return json.Marshal(doc)
}

// open takes the bolts out of objects: fields are added to them in time.
func open(v any) {
	switch v := v.(type) {
	case map[string]any:
		if v["additionalProperties"] == false {
			delete(v, "additionalProperties")
		}
		for _, inner := range v {
			open(inner)
		}
	case []any:
		for _, inner := range v {
			open(inner)
		}
	}
}

// inner is what an exchange is made of; the interface's own name is one of its methods.
type inner = huma.Context

// exchange is a request on its way through huma.
type exchange struct {
	inner
	status int // what reword found it should be; 0 nothing
}

// Unwrap gives what is below.
func (x *exchange) Unwrap() huma.Context { return x.inner }

// SetStatus implements [huma.Context].
func (x *exchange) SetStatus(code int) {
	if x.status != 0 {
		code = x.status
	}
	x.inner.SetStatus(code)
}

// maxFaults bounds the faults that an answer lists.
const maxFaults = 20

// reword puts what huma found wrong into the words of the table, without what it
// repeats of the request.
func (d *Door) reword(ctx huma.Context, _ string, v any) (any, error) {
	switch v := v.(type) {
	case Would:
		return rest.DryRun{Would: string(v)}, nil
	case *huma.ErrorModel:
		x, ok := ctx.(*exchange)
		if !ok {
			return v, nil
		}
		p := d.problemOf(ctx.Context(), formError(x.Operation(), v))
		x.status = p.Status
		return p, nil
	}
	return v, nil
}

// formError is the error of a request that has not the form of its route.
func formError(op *huma.Operation, m *huma.ErrorModel) *Error {
	switch m.Status {
	case http.StatusUnsupportedMediaType:
		return Fail(rest.CodeMediaType, "")
	case http.StatusRequestEntityTooLarge:
		return Fail(rest.CodeTooLarge, "")
	case http.StatusInternalServerError:
		return &Error{Code: rest.CodeInternal, Cause: m}
	}
	e := &Error{Code: rest.CodeParameter}
	if len(m.Errors) == 0 { // only a body can be missing
		return WrongField("", "the body is missing")
	}
	for _, f := range m.Errors[:min(len(m.Errors), maxFaults)] {
		where, field, _ := strings.Cut(f.Location, ".")
		switch {
		case where == "path":
			return Fail(rest.CodeNotFound, "")
		case where == "body" || strings.HasPrefix(where, "body["):
			e.Code = rest.CodeBody
			e.Faults = append(e.Faults, bodyFault(f))
		case slices.ContainsFunc(op.Parameters, func(p *huma.Param) bool { return p.Name == field }):
			e.Faults = append(e.Faults, rest.Fault{Pointer: field, Detail: f.Message})
		case f.Message == "unknown query parameter":
			e.Faults = append(e.Faults, rest.Fault{Pointer: "query", Detail: "one of the parameters is unknown; there are " + parameters(op)})
		default:
			e.Faults = append(e.Faults, rest.Fault{Pointer: where, Detail: f.Message})
		}
	}
	return e
}

// parameters lists the names of a route's query parameters.
func parameters(op *huma.Operation) string {
	var names []string
	for _, p := range op.Parameters {
		if p.In == "query" {
			names = append(names, p.Name)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// bodyFault points into the body. Names that the API does not know are not repeated.
func bodyFault(f *huma.ErrorDetail) rest.Fault {
	path := strings.FieldsFunc(f.Location, func(r rune) bool { return r == '.' || r == '[' || r == ']' })
	if f.Location == "body" && f.Value != nil {
		if _, text := f.Value.(string); text && !strings.HasPrefix(f.Message, "expected") && !strings.HasPrefix(f.Message, "required") {
			return rest.Fault{Pointer: "", Detail: "is not JSON of the form of the route"}
		}
	}
	if f.Message == "unexpected property" {
		path = path[:len(path)-1]
		return rest.Fault{Pointer: pointer(path), Detail: "has a field that is unknown"}
	}
	return rest.Fault{Pointer: pointer(path), Detail: f.Message}
}

// pointer makes a JSON pointer of a path that begins with body.
func pointer(path []string) string {
	out := ""
	for _, p := range path[min(1, len(path)):] {
		if len(p) > 64 || strings.ContainsFunc(p, func(r rune) bool {
			return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
		}) {
			p = "*"
		}
		out += "/" + p
	}
	return out
}
