// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"fulmar/schema"
)

const year = 365 * 24 * time.Hour

// at is a clock that is off by d.
func at(d time.Duration, kept bool) Clock {
	return func() (time.Time, bool) { return time.Now().Add(d), kept }
}

// A clock in 1970, or 30 years ahead, keeps no board from its first certificate, nor
// from the next one. One that is kept (NTP) is believed: a server whose certificate is
// over by it is refused.
func TestWrongClocks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		clock Clock
		fails bool
	}{
		"1970":            {at(-time.Since(time.Unix(20, 0)), false), false},
		"30 years ahead":  {at(30*year, false), false},
		"right":           {at(0, true), false},
		"1970, kept":      {at(-time.Since(time.Unix(20, 0)), true), false},
		"30 ahead, kept":  {at(30*year, true), true},
		"one month ahead": {at(year/12, false), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAuthority(t)
			e := a.enroller(t, sha256.Sum256(a.cert.Raw))
			e.Clock = c.clock
			id, err := e.Enrol(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			next, err := e.Renew(t.Context(), id)
			switch {
			case !c.fails && (err != nil || next.leaf.Equal(id.leaf)):
				t.Errorf("renewal: %v", err)
			case c.fails && (err == nil || !strings.Contains(err.Error(), "expired")):
				t.Errorf("a server whose certificate is over by a kept clock: %v", err)
			}
		})
	}
}

// A certificate that is over, by the right clock or by a wrong one, is renewed at once
// and then not again.
func TestKeepRenewsOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		clock Clock
		life  [2]time.Duration
	}{
		"over for a month":              {at(0, true), [2]time.Duration{-3 * year / 12, -year / 12}},
		"over by a clock 30 years off":  {at(30*year, false), [2]time.Duration{}},
		"not begun by a clock in 1970":  {at(-time.Since(time.Unix(20, 0)), false), [2]time.Duration{}},
		"in its last third":             {at(0, true), [2]time.Duration{-70 * time.Minute, 20 * time.Minute}},
		"over by a clock a year behind": {at(-year, false), [2]time.Duration{-3 * year / 12, -year / 12}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAuthority(t)
			a.life = c.life
			e := a.enroller(t, sha256.Sum256(a.cert.Raw))
			e.Clock = c.clock
			id := must(e.Enrol(t.Context()))
			a.life = [2]time.Duration{}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := e.Keep(ctx, func() *Identity { return id }, func(i *Identity) { id = i }); err != nil {
				t.Fatal(err)
			}
			if n := a.renewals.Load(); n != 1 {
				t.Errorf("%d renewals in a second, wants 1", n)
			}
		})
	}
}

// When a certificate is due, by the clock where it can be right, else by the time that
// has passed since it came.
func TestRenewIn(t *testing.T) {
	t.Parallel()
	now := time.Now()
	id := &Identity{leaf: &x509.Certificate{NotBefore: now.Add(-time.Hour), NotAfter: now.Add(89 * time.Hour)}}
	for _, c := range []struct {
		what  string
		clock Clock
		got   time.Time
		want  time.Duration
	}{
		{"within its life", at(0, true), time.Time{}, 59 * time.Hour},
		{"within, of this run", at(0, true), now, 59 * time.Hour},
		{"in its last third", at(70*time.Hour, true), now, -11 * time.Hour},
		{"1970, of an earlier run", at(-50*year, false), time.Time{}, 0},
		{"1970, just come", at(-50*year, false), now, 60 * time.Hour},
		{"30 years ahead, came a day ago", at(30*year, false), now.Add(-24 * time.Hour), 36 * time.Hour},
		{"over, of an earlier run", at(100*time.Hour, true), time.Time{}, 0},
	} {
		id.clock = c.clock
		if got := id.renewIn(c.got); (got - c.want).Abs() > time.Second {
			t.Errorf("%s: in %v, wants %v", c.what, got, c.want)
		}
	}
}

// What a server's certificate is judged by; the floor is the board's own enrolment.
func TestJudgedAt(t *testing.T) {
	t.Parallel()
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	leaf := &x509.Certificate{NotBefore: day(10), NotAfter: day(20)}
	for _, c := range []struct {
		what       string
		now, floor int
		kept       bool
		want       int
	}{
		{"kept, within", 15, 12, true, 15},
		{"kept, before the floor", 1, 12, true, 12},
		{"kept, over", 25, 12, true, 25},
		{"not kept, within", 15, 12, false, 15},
		{"not kept, over", 25, 12, false, 12},
		{"not kept, over, newer than the floor", 25, 5, false, 10},
		{"not kept, before", 1, 5, false, 10},
		{"not kept, over before the floor", 15, 25, false, 25},
	} {
		if got := judgedAt(leaf, day(c.now), c.kept, day(c.floor)); !got.Equal(day(c.want)) {
			t.Errorf("%s: %v, wants %v", c.what, got, day(c.want))
		}
	}
}

// With the broker a second connection resumes the session, so that the board's key
// signs once; with anybody else it does not.
func TestResumption(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	address := a.server.Listener.Addr().String()
	a.tamper = func(r *schema.EnrolReply) { r.Broker = address }
	id := must(a.enroller(t, sha256.Sum256(a.cert.Raw)).Enrol(t.Context()))
	dial := func(cfg *tls.Config) bool {
		c, err := tls.Dial("tcp", address, cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		_, _ = c.Read(make([]byte, 1)) // the tickets come before it
		return c.ConnectionState().DidResume
	}
	if dial(id.TLS(address)) {
		t.Error("the first connection resumed something")
	}
	if !dial(id.TLS(address)) {
		t.Error("the second connection did not resume the first")
	}
	if cfg := id.TLS("127.0.0.1:1"); cfg.ClientSessionCache != nil {
		t.Error("tickets of the broker are shown to others")
	}
}
