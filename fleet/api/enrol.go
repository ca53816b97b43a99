// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"fulmar/fleet/api/door"
	"fulmar/fleet/enrol"
	"fulmar/schema"
)

const (
	// maxEnrolBody bounds a request: a CSR, facts, and four certificates of 4 KiB in base64.
	maxEnrolBody = 64 << 10
	// maxEnrolling bounds enrolments under way, each of which checks signatures, and
	// maxWaiting those that wait for their turn: a site whose boards all start at once.
	maxEnrolling = 16
	maxWaiting   = 512
	enrolTimeout = 10 * time.Second
	// maxReplyKeys bounds the key set in a reply, of which boards read 64 KiB.
	maxReplyKeys = 16 << 10
)

// Desk enrols boards. Its refusals are *enrol.Refusal.
type Desk interface {
	Claim(ctx context.Context, from netip.Addr, req *schema.EnrolRequest) (*enrol.Answer, error)
	Prove(ctx context.Context, from netip.Addr, p *schema.ProveRequest) (*enrol.Answer, error)
	Renew(ctx context.Context, from netip.Addr, cert *x509.Certificate, req *schema.EnrolRequest) (*enrol.Answer, error)
}

// Enrolment serves schema.EnrolPath, ProvePath and RenewPath.
type Enrolment struct {
	desk    Desk
	ca      []byte // PEM, what boards trust
	keySet  []byte // envelope: whose commands they take
	broker  string // host:port told to boards; an empty host: the one they came by
	log     *slog.Logger
	waiting chan struct{}
	slots   chan struct{}
}

// NewEnrolment makes the interface with which boards get their certificates; authority
// is the PEM of what boards trust, keySet the envelope that says whose commands they take
// (nil: none). A set over 16 KiB is left to the gateway: boards read small replies.
func NewEnrolment(desk Desk, authority, keySet []byte, broker string, log *slog.Logger) *Enrolment {
	if len(keySet) > maxReplyKeys {
		keySet = nil
	}
	return &Enrolment{desk: desk, ca: authority, keySet: keySet, broker: broker, log: log, waiting: make(chan struct{}, maxWaiting), slots: make(chan struct{}, maxEnrolling)}
}

// turn waits for a place among those under way; false when there are too many.
func (e *Enrolment) turn(ctx context.Context) (done func(), ok bool) {
	select {
	case e.waiting <- struct{}{}:
		defer func() { <-e.waiting }()
	default:
		return nil, false
	}
	select {
	case e.slots <- struct{}{}:
		return func() { <-e.slots }, true
	case <-ctx.Done():
		return nil, false
	}
}

// ServeHTTP implements [http.Handler].
func (e *Enrolment) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		Problem(w, http.StatusMethodNotAllowed, "method", "Send a POST")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEnrolBody))
	if err != nil {
		Problem(w, http.StatusRequestEntityTooLarge, "bad-request", "The request is over 64 KiB or was cut off")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), enrolTimeout)
	defer cancel()
	done, ok := e.turn(ctx)
	if !ok {
		w.Header().Set("Retry-After", "5")
		Problem(w, http.StatusServiceUnavailable, "busy", "Many boards are enrolling; try again in some seconds")
		return
	}
	a, err := e.ask(ctx, r, body)
	done()
	if err == nil {
		err = e.answer(w, r, a)
	}
	if err != nil {
		e.refuse(w, r, err)
	}
}

// ask hands a request to the desk. What is no JSON goes to it as an empty request, so
// that it is counted with the others.
func (e *Enrolment) ask(ctx context.Context, r *http.Request, body []byte) (*enrol.Answer, error) {
	from := Remote(r)
	if r.URL.Path == schema.ProvePath {
		p := new(schema.ProveRequest)
		if json.Unmarshal(body, p) != nil {
			p = new(schema.ProveRequest)
		}
		return e.desk.Prove(ctx, from, p)
	}
	req := new(schema.EnrolRequest)
	if json.Unmarshal(body, req) != nil {
		req = new(schema.EnrolRequest)
	}
	if r.URL.Path == schema.EnrolPath {
		return e.desk.Claim(ctx, from, req)
	}
	var cert *x509.Certificate
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		cert = r.TLS.PeerCertificates[0]
	}
	return e.desk.Renew(ctx, from, cert, req)
}

// Remote gives the address a request comes from.
func Remote(r *http.Request) netip.Addr { return door.Remote(r) }

func (e *Enrolment) answer(w http.ResponseWriter, r *http.Request, a *enrol.Answer) error {
	if a.Wait != nil {
		return replyWith(w, http.StatusAccepted, a.Wait)
	}
	return reply(w, schema.EnrolReply{
		Tenant: a.Tenant, Board: a.Board, Certificate: string(a.Leaf.PEM), CA: string(e.ca), Broker: e.brokerFor(r), Trust: a.Trust, KeySet: e.keySet,
	})
}

// status gives the HTTP status of a refusal.
func status(c enrol.Code) int {
	switch c {
	case enrol.CodeRequest, enrol.CodeCSR, enrol.CodeName:
		return http.StatusBadRequest
	case enrol.CodeNameTaken, enrol.CodeElsewhere:
		return http.StatusConflict
	case enrol.CodeFull:
		return http.StatusInsufficientStorage
	case enrol.CodeTooMany:
		return http.StatusTooManyRequests
	}
	return http.StatusForbidden
}

func (e *Enrolment) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var no *enrol.Refusal
	if errors.As(err, &no) {
		if no.Code == enrol.CodeTooMany {
			w.Header().Set("Retry-After", "10")
		}
		Problem(w, status(no.Code), string(no.Code), no.Say)
		return
	}
	if r.Context().Err() == nil { // else the board has gone
		e.log.Error("enrolment failed", "path", r.URL.Path, "error", err.Error())
	}
	Problem(w, http.StatusInternalServerError, "internal", "The fleet could not answer; see its log")
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
