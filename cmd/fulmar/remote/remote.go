// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package remote is a fleet as a desk asks it: where it is, by what it is known, what
// the token may do, and the words of its API. It is all that the commands about a fleet
// have in common.
package remote

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"fulmar/cmd/fulmar/fault"
	"fulmar/internal/cli"
	"fulmar/schema/rest"
)

const (
	// requestTimeout bounds one request; the removal of a board's data takes longest.
	requestTimeout = 11 * time.Minute
	dialTimeout    = 10 * time.Second
	maxAnswer      = 64 << 20 // bytes; 50,000 boards
	maxTokenFile   = 4 << 10
	// pageSize is how many rows a page of a list has: the most that the API gives.
	pageSize = 1000
	// maxPages bounds what a list is read to: a million rows, or a server that never ends.
	maxPages = 1000
)

// Client asks a fleet's API.
type Client struct {
	base, token string
	http        *http.Client
}

// Page is the address of a page of the fleet, for a person to open.
func (c *Client) Page(path string) string { return c.base + path }

// Request is one question or change.
type Request struct {
	Method  string // "" is GET
	Path    string // from /api/v1/ on
	Query   url.Values
	Body    any       // sent as JSON; nil for none
	Stream  io.Reader // in place of Body: Length bytes as they are
	Length  int64
	IfMatch string // what was seen before: a change of something that changed meanwhile is refused
	Accept  string // "" is JSON
}

// Problem is the API's word for an error.
type Problem struct{ rest.Problem }

// Error implements error: what happened, to what and because of what.
func (p *Problem) Error() string {
	text := lower(p.Title)
	if p.Detail != "" {
		text += ": " + lower(p.Detail)
	}
	for _, f := range p.Errors {
		text += fmt.Sprintf("\n  %s  %s", f.Pointer, f.Detail)
	}
	if row, ok := fault.Find(fault.Code(p.Code)); p.Do != "" && (!ok || row.Do != p.Do) {
		text += "\n  do: " + p.Do
	}
	return text
}

func lower(s string) string {
	if len(s) < 2 || s[1] >= 'A' && s[1] <= 'Z' {
		return s
	}
	return string(s[0]|0x20) + s[1:]
}

// noAnswer says why a request got none. A server that is not the one that is meant is
// told apart: it listens, and got nothing.
func noAnswer(err error) error {
	code := fault.Unreachable
	if stranger(err) {
		code = fault.Stranger
	}
	return fault.New(code, "no answer from the fleet: %w", err)
}

// build makes the HTTP request of r.
func (c *Client) build(ctx context.Context, r *Request) (*http.Request, error) {
	var body io.Reader = http.NoBody
	if r.Body != nil {
		b, err := json.Marshal(r.Body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	if r.Stream != nil {
		body = r.Stream
	}
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	path := r.Path
	if len(r.Query) > 0 {
		path += "?" + r.Query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", cli.ErrUsage, err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	switch {
	case r.Stream != nil:
		req.ContentLength = r.Length
		req.Header.Set("Content-Type", "application/octet-stream")
	case r.Body != nil:
		req.Header.Set("Content-Type", "application/json")
	}
	if method == http.MethodPost { // one that is sent twice is done once
		req.Header.Set("Idempotency-Key", rand.Text())
	}
	if r.IfMatch != "" {
		req.Header.Set("If-Match", r.IfMatch)
	}
	if r.Accept != "" {
		req.Header.Set("Accept", r.Accept)
	}
	return req, nil
}

// Do sends a request and reads the answer into v: nothing where v is nil, the bytes as
// they come where it is a *[]byte, else JSON. It gives the answer's ETag.
func (c *Client) Do(ctx context.Context, r Request, v any) (etag string, err error) {
	req, err := c.build(ctx, &r)
	if err != nil {
		return "", err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return "", noAnswer(err)
	}
	defer res.Body.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil || len(b) > maxAnswer {
		return "", fault.New(fault.Unreachable, "no answer from the fleet: it was cut off or is over %d bytes", maxAnswer)
	}
	if res.StatusCode/100 != 2 {
		return "", refusal(res, b)
	}
	etag = res.Header.Get("ETag")
	switch into := v.(type) {
	case nil:
		return etag, nil
	case *[]byte:
		*into = b
		return etag, nil
	}
	if err := json.Unmarshal(b, v); err != nil {
		return "", fault.New(fault.Unreachable, "no answer from the fleet: what it sent is not JSON: %w", err)
	}
	return etag, nil
}

// refusal makes an error of an answer that is none of success.
func refusal(res *http.Response, b []byte) error {
	p := new(Problem)
	if json.Unmarshal(b, &p.Problem) != nil || p.Title == "" {
		p.Title = "The server answered " + res.Status + " and no reason: is it a fleet?"
	}
	p.Status = res.StatusCode
	code := fault.Code(p.Code)
	if _, known := fault.Find(code); !known { // an older or newer fleet, or none
		code = generic(res.StatusCode)
	}
	if s, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil {
		p.Do = fmt.Sprintf("try again in %d seconds", s)
	}
	return fault.Mark(code, p)
}

// generic is the code of an answer that brings none of its own.
func generic(status int) fault.Code {
	switch fault.ExitOf(status) {
	case fault.ExitDenied:
		return fault.Denied
	case fault.ExitNone:
		return fault.NotThere
	case fault.ExitConflict:
		return fault.Conflict
	}
	return fault.Refused
}

// Get reads an answer into v.
func (c *Client) Get(ctx context.Context, path string, query url.Values, v any) error {
	_, err := c.Do(ctx, Request{Path: path, Query: query}, v)
	return err
}

// Post asks for a change and reads its answer into v.
func (c *Client) Post(ctx context.Context, path string, body, v any) error {
	_, err := c.Do(ctx, Request{Method: http.MethodPost, Path: path, Body: body}, v)
	return Unsure(err)
}

// Unsure says of a change that got no answer that it may have been made.
func Unsure(err error) error {
	if fault.Is(err, fault.Unreachable) {
		return fmt.Errorf("%w; it may have been done or not: look before you do it again", err)
	}
	return err
}

// Whole reads a list that has no pages.
func Whole[T any](ctx context.Context, c *Client, path string, query url.Values) ([]T, error) {
	var page rest.List[T]
	err := c.Get(ctx, path, query, &page)
	return page.Items, err
}

// All reads a list page by page to its end, or to limit rows where that is not 0.
func All[T any](ctx context.Context, c *Client, path string, query url.Values, limit int) ([]T, error) {
	q := url.Values{}
	for k, v := range query {
		q[k] = v
	}
	var out []T
	for range maxPages {
		n := pageSize
		if limit > 0 {
			n = min(n, limit-len(out))
		}
		q.Set("page_size", strconv.Itoa(n))
		var page rest.List[T]
		if err := c.Get(ctx, path, q, &page); err != nil {
			return out, err
		}
		out = append(out, page.Items...)
		if page.Next == "" || limit > 0 && len(out) >= limit {
			return out, nil
		}
		q.Set("page_token", page.Next)
	}
	return out, fault.New(fault.Refused, "the list has more than %d pages; ask for less with -q", maxPages)
}

// StatusOf gives the status of HTTP of an error of the API, 0 for any other.
func StatusOf(err error) int {
	if p := new(Problem); errors.As(err, &p) {
		return p.Status
	}
	return 0
}

func newClient(address, token string, f *Flags) (*Client, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return nil, fmt.Errorf("%w: --fleet %q is not HOST:PORT", cli.ErrUsage, address)
	}
	cfg, err := f.trust(host)
	if err != nil {
		return nil, err
	}
	return &Client{base: "https://" + address, token: token, http: &http.Client{
		Timeout:       requestTimeout,
		Transport:     &http.Transport{TLSClientConfig: cfg, DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext, TLSHandshakeTimeout: dialTimeout, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token goes nowhere else
	}}, nil
}
