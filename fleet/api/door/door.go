// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package door

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"fulmar/fleet/access"
	"fulmar/fleet/registry/idem"
	"fulmar/schema/rest"
)

const (
	// MaxBody bounds a body where its route says nothing else, in bytes.
	MaxBody = 64 << 10
	// maxQuery bounds the query of an address, in bytes: 64 series by name.
	maxQuery = 8 << 10
	// Timeout bounds a request where its route says nothing else.
	Timeout = 20 * time.Second
	// maxUnderway bounds requests under way, and maxPatience how long one waits for its
	// place among them.
	maxUnderway = 64
	maxPatience = 2 * time.Second
)

// Keys keeps what requests with an Idempotency-Key were answered: *idem.Table.
type Keys interface {
	Begin(ctx context.Context, k idem.Key) (*idem.Answer, error)
	End(ctx context.Context, k idem.Key, a idem.Answer) error
	Drop(ctx context.Context, k idem.Key) error
}

// Config is what a door needs.
type Config struct {
	// Caller tells who asks. Its error is [ErrNotLoggedIn], access.ErrNotAllowed or a
	// fault.
	Caller func(r *http.Request) (access.Caller, error)
	Keys   Keys    // nil: Idempotency-Key is refused
	Known  []Known // errors of the parts
	// Fault finds in an error of a part which field of the body it is about; nil: none.
	Fault func(err error) (f rest.Fault, ok bool)
	Log   *slog.Logger
}

// Route is one method of one path, and what it asks of its callers.
type Route struct {
	ID      string // of the operation, in lower case with dashes
	Method  string
	Path    string // below /api/v1/, as http.ServeMux has it
	Summary string
	Tag     string
	// Right is what a caller must have; "" lets every caller in.
	Right rest.Right
	// Open lets everybody in, without a token.
	Open bool
	// Whole tells of all boards: a caller who is limited to some is turned away.
	Whole bool
	// Secret is set where the answer holds a secret, which is told once.
	Secret bool
	// Makes is set where the route makes a new thing: 201.
	Makes bool
	// Stream is set where the answer goes on until the caller leaves: it takes no place
	// among those under way and has no end.
	Stream bool
	// Timeout bounds the route; 0 is [Timeout].
	Timeout time.Duration
	// Deprecated says what to use instead; "" is not deprecated.
	Deprecated string
}

// Door is the way in for all routes.
type Door struct {
	cfg     Config
	mux     *http.ServeMux
	api     huma.API
	routes  []Route
	callers *rates
	froms   *rates
	places  chan struct{}
}

// New makes a door that leads nowhere yet: [Handle] and [Door.Raw] add routes, all
// before it serves.
func New(cfg Config) *Door {
	d := &Door{
		cfg: cfg, mux: http.NewServeMux(), callers: newRates(burst, perSecond), froms: newRates(fromBurst, fromPerSecond),
		places: make(chan struct{}, maxUnderway),
	}
	format := huma.Format{
		Marshal:   func(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) },
		Unmarshal: json.Unmarshal,
	}
	d.api = huma.NewAPI(huma.Config{
		OpenAPI:       document(),
		Formats:       map[string]huma.Format{"application/json": format, "json": format},
		DefaultFormat: "application/json", RejectUnknownQueryParameters: true,
		Transformers: []huma.Transformer{d.reword},
	}, (*adapter)(d))
	d.mux.HandleFunc("/", d.nothing)
	return d
}

// adapter mounts what huma registers.
type adapter Door

// ServeHTTP implements [huma.Adapter].
func (a *adapter) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

// Handle implements [huma.Adapter].
func (a *adapter) Handle(op *huma.Operation, next func(huma.Context)) {
	d := (*Door)(a)
	d.mount(op.Metadata["route"].(Route), func(w http.ResponseWriter, r *http.Request) {
		if err := repeated(op, r); err != nil {
			d.Fail(w, r, err)
			return
		}
		next(&exchange{inner: humago.NewContext(op, r, w)})
	})
}

// repeated refuses a parameter that is given twice and is no list.
func repeated(op *huma.Operation, r *http.Request) error {
	q := r.URL.Query()
	for _, p := range op.Parameters {
		if p.In == "query" && len(q[p.Name]) > 1 && p.Schema.Type != huma.TypeArray {
			return Wrong(p.Name, "may be given once")
		}
	}
	return nil
}

// Handle adds a route whose parameters and body are those of I and whose answer is O,
// as huma has them.
func Handle[I, O any](d *Door, route Route, fn func(ctx context.Context, by access.Caller, in *I) (*O, error), more ...func(*huma.Operation)) {
	op := d.operation(route)
	for _, m := range more {
		m(&op)
	}
	huma.Register(d.api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := fn(ctx, callerOf(ctx), in)
		if err == nil {
			return out, nil
		}
		if a, ok := err.(huma.StatusError); ok { // Would and Same, which are no errors
			return nil, a
		}
		return nil, d.problemOf(ctx, err)
	})
	d.finish(route)
}

// Raw adds a route that reads and writes by itself; describe completes its description.
// Its error is answered where nothing was written yet.
func (d *Door) Raw(route Route, describe func(*huma.Operation), fn func(w http.ResponseWriter, r *http.Request, by access.Caller) error) {
	op := d.operation(route)
	describe(&op)
	d.api.OpenAPI().AddOperation(&op)
	d.mount(route, func(w http.ResponseWriter, r *http.Request) {
		if err := fn(w, r, callerOf(r.Context())); err != nil {
			if r.Context().Err() != nil && route.Stream {
				return // the client has gone
			}
			d.Fail(w, r, err)
		}
	})
}

// Routes lists what was added, in the order in which it was.
func (d *Door) Routes() []Route { return slices.Clone(d.routes) }

// ServeHTTP implements [http.Handler].
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := newRequestID()
	w.Header().Set("X-Request-Id", id)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	r = r.WithContext(withRequestID(r.Context(), id))
	from := d.froms.take(customer(Remote(r)), time.Now())
	switch {
	case from < 0:
		d.froms.tell(w.Header(), from)
		w.Header().Set("Retry-After", "1")
		d.Fail(w, r, Fail(rest.CodeTooMany, "this address asks too much"))
	case len(r.URL.RawQuery) > maxQuery:
		d.Fail(w, r, Fail(rest.CodeTooLarge, "the part of the address after ? has over 8 KiB"))
	default:
		d.mux.ServeHTTP(w, r)
	}
}

// nothing answers what no route takes.
func (d *Door) nothing(w http.ResponseWriter, r *http.Request) {
	var allow []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if _, pattern := d.mux.Handler(&http.Request{Method: m, URL: r.URL, Host: r.Host}); pattern != "/" {
			allow = append(allow, m)
		}
	}
	if len(allow) > 0 {
		w.Header().Set("Allow", strings.Join(allow, ", "))
		d.Fail(w, r, Fail(rest.CodeMethod, ""))
		return
	}
	d.Fail(w, r, Fail(rest.CodeNoRoute, ""))
}
