// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"fulmar/fleet/web"
	"fulmar/schema/rest"
)

// maxReply bounds what the API may answer: an overview of 20,000 boards.
const maxReply = 256 << 20

// API asks the fleet with a token of its own, trusting its authority alone.
type API struct {
	base   string
	token  string
	client *http.Client
}

// API makes a client with a token that may only read; it outlives a long soak.
func (s *Site) API() (*API, error) { return s.apiFor("read") }

// Admin makes a client that may change things.
func (s *Site) Admin() (*API, error) { return s.apiFor("admin") }

func (s *Site) apiFor(scope string) (*API, error) {
	token, err := s.fleetCommand("api-token", "--scope", scope, "--for", "24h")
	if err != nil {
		return nil, err
	}
	pem, err := s.authority()
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("the authority is not PEM")
	}
	return &API{base: "https://" + s.HTTPS, token: token, client: &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool}},
	}}, nil
}

// Get reads a JSON answer of the API.
func (a *API) Get(ctx context.Context, path string, into any) error {
	return a.do(ctx, http.MethodGet, path, into)
}

// Send asks with a JSON body; an answer is read into into unless that is nil.
func (a *API) Send(ctx context.Context, method, path string, body, into any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return a.send(ctx, method, path, http.Header{"If-Match": {"*"}, "Content-Type": {"application/json"}}, bytes.NewReader(b), into)
}

// SetMeta writes what people say of a board, whatever was said before.
func (a *API) SetMeta(ctx context.Context, board string, m rest.Meta) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return a.send(ctx, http.MethodPut, "/api/v1/boards/"+board+"/meta", http.Header{"If-Match": {"*"}, "Content-Type": {"application/json"}}, bytes.NewReader(b), nil)
}

// Post sends JSON and reads a JSON answer.
func (a *API) Post(ctx context.Context, path string, body, into any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return a.send(ctx, http.MethodPost, path, http.Header{"Content-Type": {"application/json"}}, bytes.NewReader(b), into)
}

func (a *API) do(ctx context.Context, method, path string, into any) error {
	return a.send(ctx, method, path, http.Header{}, http.NoBody, into)
}

func (a *API) send(ctx context.Context, method, path string, head http.Header, body io.Reader, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, body)
	if err != nil {
		return err
	}
	req.Header = head
	req.Header.Set("Authorization", "Bearer "+a.token)
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err == nil && len(b) > maxReply {
		err = fmt.Errorf("%s %s: the answer is longer than %d bytes", method, path, maxReply)
	}
	if err != nil {
		return err
	}
	switch {
	case resp.StatusCode/100 == 2 && into == nil:
		return nil
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("%s %s: %s: %.300s", method, path, resp.Status, b)
	}
	return json.Unmarshal(b, into)
}

// Stream reads lines of a stream of the API until it or the context ends.
func (a *API) Stream(ctx context.Context, path string, line func(string)) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	resp, err := (&http.Client{Transport: a.client.Transport}).Do(req) // without the client's time limit
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, resp.Status)
	}
	in := bufio.NewScanner(resp.Body)
	in.Buffer(nil, maxReply)
	for in.Scan() {
		line(in.Text())
	}
	return in.Err()
}

// Request is a board that asks to join, as the API lists it.
type Request struct {
	ID          int64  `json:"id"`
	Board       string `json:"board"`
	Trust       string `json:"trust"`
	Fingerprint string `json:"fingerprint"`
	TPM         *struct {
		Kind string `json:"kind"`
	} `json:"tpm"`
	Why      string `json:"why"`
	Say      string `json:"say"`
	Decision string `json:"decision"`
}

// Requests lists the boards that ask to join.
func (a *API) Requests(ctx context.Context) ([]Request, error) {
	var reply struct {
		Requests []Request `json:"requests"`
	}
	return reply.Requests, a.Get(ctx, "/api/v1/requests", &reply)
}

// Approve lets the board of a request in.
func (a *API) Approve(ctx context.Context, id int64) error {
	return a.do(ctx, http.MethodPost, fmt.Sprintf("/api/v1/requests/%d/approve", id), nil)
}

// Overview reads the fleet's overview.
func (a *API) Overview(ctx context.Context) (*web.Overview, error) {
	o := new(web.Overview)
	return o, a.Get(ctx, "/api/v1/overview", o)
}

// Board reads one board out of the overview.
func (a *API) Board(ctx context.Context, name string) (*web.Board, error) {
	o, err := a.Overview(ctx)
	if err != nil {
		return nil, err
	}
	for i := range o.Boards {
		if o.Boards[i].Name == name {
			return &o.Boards[i], nil
		}
	}
	return nil, fmt.Errorf("the fleet knows no board %s", name)
}
