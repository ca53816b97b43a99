// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"fulmar/fleet/ca"
	"fulmar/fleet/registry"
	"fulmar/schema"
)

const (
	maxEnrolBody = 32 << 10 // CSR and facts, as JSON
	maxFacts     = 32
	// maxEnrolling bounds enrolments under way: each checks a signature.
	maxEnrolling = 16
	enrolTimeout = 10 * time.Second
)

// Enrolment serves schema.EnrolPath and schema.RenewPath.
type Enrolment struct {
	ca     *ca.Authority
	reg    *registry.Registry
	broker string // host:port told to boards; an empty host: the one they came by
	log    *slog.Logger
	slots  chan struct{}
}

// NewEnrolment makes the interface with which boards get their certificates.
func NewEnrolment(a *ca.Authority, reg *registry.Registry, broker string, log *slog.Logger) *Enrolment {
	return &Enrolment{ca: a, reg: reg, broker: broker, log: log, slots: make(chan struct{}, maxEnrolling)}
}

// ServeHTTP implements [http.Handler].
func (e *Enrolment) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		Problem(w, http.StatusMethodNotAllowed, "method", "Send a POST")
		return
	}
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	default:
		w.Header().Set("Retry-After", "5")
		Problem(w, http.StatusServiceUnavailable, "busy", "Many boards are enrolling; try again in some seconds")
		return
	}
	req, err := readEnrol(w, r)
	if err != nil {
		Problem(w, http.StatusBadRequest, "bad-request", err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), enrolTimeout)
	defer cancel()
	var tenant string
	var leaf *ca.Leaf
	switch r.URL.Path {
	case schema.EnrolPath:
		tenant, leaf, err = e.enrol(ctx, req)
	case schema.RenewPath:
		tenant, leaf, err = e.renew(ctx, r, req)
	default:
		Problem(w, http.StatusNotFound, "not-found", "There is nothing here")
		return
	}
	if err != nil {
		e.refuse(w, r, req.Board, err)
		return
	}
	e.log.Info("certificate issued", "tenant", tenant, "board", req.Board, "serial", leaf.Serial, "path", r.URL.Path)
	err = reply(w, schema.EnrolReply{
		Tenant: tenant, Board: req.Board, Certificate: string(leaf.PEM), CA: string(e.ca.PEM()), Broker: e.brokerFor(r),
	})
	if err != nil {
		e.log.Error("enrolment not answered", "board", req.Board, "error", err.Error())
	}
}

// readEnrol reads and checks the request; its errors do not repeat it.
func readEnrol(w http.ResponseWriter, r *http.Request) (*schema.EnrolRequest, error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEnrolBody))
	if err != nil {
		return nil, errInput("the request is too long or was cut off")
	}
	req := new(schema.EnrolRequest)
	if json.Unmarshal(b, req) != nil {
		return nil, errInput("the request is not JSON of the form board, csr, mode, token, facts")
	}
	if schema.CheckBoard(req.Board) != nil {
		return nil, errInput("the board's name wants 1 to 64 of a-z 0-9 - _ . and begins with a letter or digit")
	}
	if req.Mode != "software" {
		return nil, errInput("the key's mode wants to be software")
	}
	if len(req.Facts) > maxFacts {
		return nil, errInput("at most 32 facts are taken")
	}
	for k, v := range req.Facts {
		if len(k) > schema.MaxName || len(v) > 4*schema.MaxName {
			return nil, errInput("a fact is too long")
		}
	}
	return req, nil
}

func (e *Enrolment) enrol(ctx context.Context, req *schema.EnrolRequest) (string, *ca.Leaf, error) {
	csr, err := ca.ParseRequest([]byte(req.CSR))
	if err != nil {
		return "", nil, err
	}
	return e.reg.Enrol(ctx, registry.Enrolment{
		Secret: req.Token, Board: req.Board, KeyMode: req.Mode, Facts: req.Facts, KeyHash: ca.KeyHash(csr),
	}, func(tenant string) (*ca.Leaf, error) {
		return e.ca.Issue([]byte(req.CSR), tenant, req.Board, schema.TrustSoftware)
	})
}

func (e *Enrolment) renew(ctx context.Context, r *http.Request, req *schema.EnrolRequest) (string, *ca.Leaf, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return "", nil, registry.ErrUnknown
	}
	id, err := e.ca.Verify(r.TLS.PeerCertificates[0])
	if err != nil || id.Board != req.Board {
		return "", nil, errors.Join(registry.ErrUnknown, err)
	}
	csr, err := ca.ParseRequest([]byte(req.CSR))
	if err != nil {
		return "", nil, err
	}
	leaf, _, err := e.reg.Renew(ctx, id, ca.KeyHash(csr), func(trust string) (*ca.Leaf, error) { return e.ca.Issue([]byte(req.CSR), id.Tenant, id.Board, trust) })
	return id.Tenant, leaf, err
}

func (e *Enrolment) refuse(w http.ResponseWriter, r *http.Request, board string, err error) {
	switch {
	case errors.Is(err, registry.ErrUnknown):
		Problem(w, http.StatusForbidden, "token", "The join token or certificate is unknown, used up or expired; ask the fleet for a new token")
	case errors.Is(err, registry.ErrNameTaken):
		Problem(w, http.StatusConflict, "name-taken", "A board of this name is enrolled; choose another name, or ask for a token for this board")
	case errors.Is(err, registry.ErrElsewhere):
		Problem(w, http.StatusForbidden, "elsewhere", "The board's key is that of a board with another name; forget that one first, or give this one a key of its own")
	case errors.Is(err, registry.ErrRevoked):
		Problem(w, http.StatusForbidden, "revoked", "This board was revoked; only a person can let it in again")
	case errors.Is(err, ca.ErrBadRequest):
		Problem(w, http.StatusBadRequest, "csr", "The certificate request is not acceptable: wants PEM PKCS #10 with an ECDSA P-256, P-384 or Ed25519 key")
	case errors.Is(err, registry.ErrTooMany):
		Problem(w, http.StatusInsufficientStorage, "full", "The fleet takes no more boards")
	default:
		e.log.Error("enrolment failed", "board", board, "error", err.Error())
		Problem(w, http.StatusInternalServerError, "internal", "The fleet could not answer; see its log")
		return
	}
	e.log.Warn("enrolment refused", "board", board, "remote", r.RemoteAddr, "error", err.Error())
}

// brokerFor tells a board where MQTT is: at the name it already reached us by,
// which the server's certificate therefore holds.
func (e *Enrolment) brokerFor(r *http.Request) string {
	host, port, err := net.SplitHostPort(e.broker)
	if err != nil || host != "" {
		return e.broker
	}
	name := r.Host
	if h, _, err := net.SplitHostPort(r.Host); err == nil {
		name = h
	}
	return net.JoinHostPort(name, port)
}
