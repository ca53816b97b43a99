// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"fulmar/agent/chip"
	"fulmar/internal/credential"
	"fulmar/internal/jointoken"
	"fulmar/schema"
	"fulmar/tpm"
)

// How often a board asks.
const (
	enrolRetryMin = time.Second
	enrolRetryMax = 2 * time.Minute
	// approvalMin and approvalMax bound how long the fleet may let a board wait before
	// it asks again for a person's approval.
	approvalMin   = time.Second
	approvalMax   = 10 * time.Minute
	renewRetry    = time.Hour // a renewal has a third of the certificate's life
	maxTokenBytes = 4096
)

// Enroller gets a board its identity and keeps it. Its methods belong to one goroutine.
type Enroller struct {
	Dir       string            // of keys and certificate, made with mode 0700
	Fleet     string            // host:port of the fleet's HTTPS
	TokenFile string            // join token
	Pin       []byte            // SHA-256 of the fleet's CA certificate, for a board without a token; nil: none
	Board     string            // wished name; the fleet refuses ""
	Facts     map[string]string // what the board is, for the page
	Mode      string            // key.mode of the config
	Required  bool              // no identity without a TPM
	Chip      *chip.Chip        // the board's TPM; not asked with Mode software
	Clock     Clock             // nil: the system's, taken for kept
	Log       *slog.Logger
	// Say is told where the board stands; nil: nobody is.
	Say func(Status)
	// Replaced is told when keys of another TPM were set aside, with the reason.
	Replaced func(why error)
	// KeySet is given the envelope of the fleet's key set, as it comes with a
	// certificate from the fleet that the board knows; nil: nobody is.
	KeySet func(envelope []byte)

	broken chan struct{} // the TPM does not know the board's key any more
	last   string        // trouble that was logged
	spent  string        // secret of a token that the fleet refused
	warned bool          // of a key in a file
}

// Enrol returns the board's identity: the stored one, or a new one from the fleet. It
// goes on trying until the context ends, and says why it is not there yet.
func (e *Enroller) Enrol(ctx context.Context) (*Identity, error) {
	if e.broken == nil {
		e.broken = make(chan struct{}, 1)
	}
	key, err := e.openKey(ctx)
	if err != nil {
		return nil, err
	}
	id, err := loadIdentity(e.Dir, key, e.Clock)
	if err == nil {
		e.enrolled(id)
		return id, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		e.Log.Error("stored identity cannot be used, enrolling anew", "err", err)
	}
	for wait := enrolRetryMin; ; wait = min(2*wait, enrolRetryMax) {
		id, err := e.enrolOnce(ctx, key)
		if err == nil {
			return id, nil
		}
		next, finger := wait, fingerprint(key)
		var w *waiting
		var r *refusal
		if errors.As(err, &w) {
			next, finger = min(max(w.after, approvalMin), approvalMax), w.fingerprint
		} else if errors.As(err, &r) {
			next = min(max(wait, r.after), approvalMax)
		}
		s := Status{State: stateOf(err), Mode: key.Mode(), Fingerprint: finger, Err: err}
		if r != nil {
			s.Refusal = r.code
		}
		e.tell(s)
		e.warn("not enrolled yet", err, next)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(next):
		}
		if errors.Is(err, tpm.ErrForeign) { // the TPM was cleared meanwhile
			if key, err = e.openKey(ctx); err != nil {
				return nil, err
			}
		}
	}
}

func (e *Enroller) enrolled(id *Identity) {
	e.last = ""
	e.tell(Status{State: StateEnrolled, Mode: id.key.Mode(), Fingerprint: fingerprint(id.key)})
}

// enrolOnce asks once: with a token, or by what the TPM proves, or for approval.
func (e *Enroller) enrolOnce(ctx context.Context, key Key) (*Identity, error) {
	c, err := e.contact()
	if err != nil {
		return nil, err
	}
	client := newClient(pinned(c.pins, e.Fleet))
	defer client.CloseIdleConnections()
	reply, err := e.ask(ctx, client, c, key)
	if err != nil {
		var r *refusal
		if errors.As(err, &r) && r.code == "token" && c.secret != "" {
			e.spent = c.secret // it will not get better
		}
		return nil, err
	}
	id, err := newIdentity(reply, key, e.Clock)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(hashes(id.cas), func(h [sha256.Size]byte) bool { return slices.Contains(c.pins, h) }) {
		return nil, errors.New("enrolment reply: authority is not the one the token or the pin names")
	}
	if e.Board != "" && id.Board != e.Board {
		return nil, fmt.Errorf("enrolment reply: names this board %s, it is %s", id.Board, e.Board)
	}
	e.learn(reply)
	if err := id.save(e.Dir, reply); err != nil {
		return nil, fmt.Errorf("keep identity: %w", err)
	}
	if key.Mode() == schema.KeyTPM { // a copy of it must not pass for this board any more
		if err := os.Remove(filepath.Join(e.Dir, softFile)); err == nil {
			e.Log.Info("the board's former key in a file is deleted")
		}
	}
	e.Log.Info("enrolled", "board", id.Board, "tenant", id.Tenant, "key", key.Mode(), "trust", id.Trust, "certificate_until", id.leaf.NotAfter.Format(time.DateOnly))
	e.enrolled(id)
	return id, nil
}

// contact is how the fleet is asked: with which secret, and who it has to be.
type contact struct {
	secret string              // of a join token; "": none
	pins   [][sha256.Size]byte // SHA-256 of the fleet's CA certificate, or of the two it has
}

// contact takes the token, if there is one. Without it the board knows its fleet by the
// config's pin, or by an earlier enrolment. A pin beside a token that the fleet refused
// lets the board ask a person instead.
func (e *Enroller) contact() (contact, error) {
	token, err := readToken(e.TokenFile)
	if err == nil && (token.Secret != e.spent || e.Pin == nil) {
		return contact{token.Secret, [][sha256.Size]byte{token.CAHash}}, nil
	}
	if e.Pin != nil {
		return contact{pins: [][sha256.Size]byte{[sha256.Size]byte(e.Pin)}}, nil
	}
	if known := knownCAs(e.Dir); known != nil {
		return contact{pins: known}, nil
	}
	return contact{}, err
}

func readToken(path string) (jointoken.Token, error) {
	if path == "" {
		return jointoken.Token{}, errors.New("this board is not enrolled and knows no fleet: make a join token with fulmar-fleet token and type fulmar enrol on the board (or write into fleet.pin what fulmar-fleet pin prints)")
	}
	b, err := credential.ReadFile(path)
	if err != nil {
		return jointoken.Token{}, fmt.Errorf("read join token: %w", err)
	}
	if len(b) > maxTokenBytes {
		return jointoken.Token{}, fmt.Errorf("read join token: %s is over %d bytes, so it holds something else", path, maxTokenBytes)
	}
	return jointoken.Parse(string(b))
}

// Renew asks for the next certificate over mutual TLS with the present one, which may
// have expired.
func (e *Enroller) Renew(ctx context.Context, id *Identity) (*Identity, error) {
	cfg := id.TLS(e.Fleet)
	server := seen(cfg)
	client := newClient(cfg)
	defer client.CloseIdleConnections()
	req, _, err := e.request(id.key)
	if err != nil {
		return nil, err
	}
	a, err := post(ctx, client, e.Fleet, schema.RenewPath, req)
	if err != nil {
		return nil, err
	}
	if a.reply == nil {
		return nil, errors.New("the fleet wants proof or approval for a renewal")
	}
	return e.renewed(id, a.reply, server())
}

// reprove gets the next certificate by what the TPM proves, where the present one is
// not taken any more.
func (e *Enroller) reprove(ctx context.Context, id *Identity) (*Identity, error) {
	pins := hashes(id.cas)
	cfg := pinned(pins, e.Fleet)
	server := seen(cfg)
	client := newClient(cfg)
	defer client.CloseIdleConnections()
	reply, err := e.ask(ctx, client, contact{pins: pins}, id.key)
	if err != nil {
		return nil, err
	}
	return e.renewed(id, reply, server())
}

// renewed takes a renewal that came from a server with the given certificate. It may
// name other authorities than before: one that was trusted so far vouches for them. But
// that server must stay one that the board talks to.
func (e *Enroller) renewed(id *Identity, r *schema.EnrolReply, server *x509.Certificate) (*Identity, error) {
	next, err := newIdentity(r, id.key, e.Clock)
	if err != nil {
		return nil, err
	}
	if next.Board != id.Board || next.Tenant != id.Tenant {
		return nil, errors.New("renewal names another board; keeping the present certificate")
	}
	host, _, _ := net.SplitHostPort(e.Fleet)
	if err := verify(server, next.cas, host, server.NotBefore.Add(time.Minute)); err != nil {
		return nil, fmt.Errorf("renewal names only authorities that the fleet's own server is not under; keeping the present certificate: %w", err)
	}
	if !slices.EqualFunc(next.cas, id.cas, (*x509.Certificate).Equal) {
		e.Log.Info("the fleet's authorities have changed", "now", len(next.cas), "hash", fmt.Sprintf("%x", sha256.Sum256(next.cas[0].Raw)))
	}
	e.learn(r)
	return next, next.save(e.Dir, r)
}

// learn hands on the key set of a reply that was found good. It is not kept with the
// identity: whoever it is given to keeps it.
func (e *Enroller) learn(r *schema.EnrolReply) {
	if e.KeySet != nil && len(r.KeySet) > 0 {
		e.KeySet(r.KeySet)
	}
	r.KeySet = nil
}

// Keep renews the certificate at two thirds of its life, and enrols anew where the TPM
// turns out not to know the board's key any more, until the context ends. It reads the
// present identity with get and gives the next one to set.
func (e *Enroller) Keep(ctx context.Context, get func() *Identity, set func(*Identity)) error {
	var got time.Time // when the present certificate came, in this run
	for {
		id := get()
		// Bounded, so that a clock set by decades is noticed within a day.
		wait := min(id.renewIn(got), 24*time.Hour)
		if wait <= 0 {
			next, err := e.Renew(ctx, id)
			var r *refusal
			if errors.As(err, &r) && id.key.Mode() == schema.KeyTPM {
				next, err = e.reprove(ctx, id)
			}
			if err == nil {
				got = time.Now()
				set(next)
				e.Log.Info("certificate renewed", "until", next.leaf.NotAfter.Format(time.DateOnly))
				continue
			}
			e.Log.Warn("certificate not renewed, trying again in an hour", "until", id.leaf.NotAfter.Format(time.DateOnly), "err", err)
			wait = renewRetry
		}
		select {
		case <-ctx.Done():
			return nil
		case <-e.broken:
			next, err := e.Enrol(ctx)
			if err != nil {
				return err
			}
			if next.Board != id.Board || next.Tenant != id.Tenant {
				return fmt.Errorf("enrolled as %s of %s, was %s of %s: starting anew", next.Board, next.Tenant, id.Board, id.Tenant)
			}
			set(next)
			got = time.Now()
		case <-time.After(wait):
		}
	}
}
