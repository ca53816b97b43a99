// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"fulmar/schema"
)

// Clock gives the time, and whether something (NTP, GPS) keeps it. A board has no
// clock battery as a rule, and wakes in 1970, or where somebody set it.
type Clock func() (now time.Time, kept bool)

func (c Clock) read() (time.Time, bool) {
	if c == nil {
		return time.Now(), true
	}
	return c()
}

// pinned trusts exactly the authorities with a SHA-256: the server shows one in its
// chain, it hashes to a pin, and it signed the server's certificate for this name. The
// board's clock is not asked: at first contact it may be anything, and a pin does not
// expire.
func pinned(pins [][sha256.Size]byte, address string) *tls.Config {
	host, _, _ := net.SplitHostPort(address)
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		ServerName:         host,
		InsecureSkipVerify: true, // replaced by VerifyConnection below, which is stricter
		VerifyConnection: func(cs tls.ConnectionState) error {
			leaf := cs.PeerCertificates[0]
			var named []*x509.Certificate
			for _, c := range cs.PeerCertificates[1:] {
				if slices.Contains(pins, sha256.Sum256(c.Raw)) {
					named = append(named, c)
				}
			}
			if named != nil {
				return verify(leaf, named, host, leaf.NotBefore.Add(time.Minute))
			}
			return errors.New("the server is not the fleet that the join token or the pin names (its authority has another fingerprint)")
		},
	}
}

// TLS gives the client side of mutual TLS 1.3 with the server at address. With the
// broker sessions are resumed, so that a reconnect costs no signature of the board's
// key. Only the fleet's authority is trusted; at which time its certificate has to be
// good, see [judgedAt].
func (id *Identity) TLS(address string) *tls.Config {
	host, _, _ := net.SplitHostPort(address)
	c := &tls.Config{
		MinVersion:         tls.VersionTLS13,
		ServerName:         host,
		Certificates:       []tls.Certificate{id.cert},
		InsecureSkipVerify: true, // replaced by VerifyConnection below, which resumed sessions pass too
		VerifyConnection: func(cs tls.ConnectionState) error {
			now, kept := id.clock.read()
			return verify(cs.PeerCertificates[0], id.cas, host, judgedAt(cs.PeerCertificates[0], now, kept, id.leaf.NotBefore))
		},
	}
	if address == id.Broker {
		c.ClientSessionCache = id.sessions
	}
	return c
}

// Web is [Identity.TLS] beside the address; "" and nil where there is no address, or no
// identity yet.
func (id *Identity) Web(address string) (string, *tls.Config) {
	if id == nil || address == "" {
		return "", nil
	}
	return address, id.TLS(address)
}

// seen has a client tell the certificate of the last server that it found good.
func seen(c *tls.Config) func() *x509.Certificate {
	var last atomic.Pointer[x509.Certificate]
	check := c.VerifyConnection
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := check(cs); err != nil {
			return err
		}
		last.Store(cs.PeerCertificates[0])
		return nil
	}
	return last.Load
}

func verify(leaf *x509.Certificate, cas []*x509.Certificate, host string, at time.Time) error {
	roots := x509.NewCertPool()
	for _, ca := range cas {
		roots.AddCert(ca)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: at})
	return err
}

// judgedAt is the time at which a server's certificate has to be good. A clock that
// something keeps is believed, but for what is before floor, a moment that has been
// for sure. One that nobody keeps says nothing: then it is enough that the certificate
// was good at some time since floor. So a board in the wrong decade keeps its fleet,
// and a certificate that was over by the board's own enrolment never passes.
func judgedAt(leaf *x509.Certificate, now time.Time, kept bool, floor time.Time) time.Time {
	if now.Before(floor) {
		now = floor
	}
	if kept || !now.After(leaf.NotAfter) && !now.Before(leaf.NotBefore) {
		return now
	}
	if leaf.NotAfter.Before(floor) {
		return floor
	}
	if leaf.NotBefore.After(floor) {
		return leaf.NotBefore
	}
	return floor
}

// renewIn is how long the certificate is good enough; got is when it came, zero if in
// an earlier run. By a clock that is outside of the certificate's life nothing can be
// said, so then a certificate of an earlier run is renewed at once, and one of this run
// after two thirds of its life by the monotonic clock.
func (id *Identity) renewIn(got time.Time) time.Duration {
	now, _ := id.clock.read()
	life := id.leaf.NotAfter.Sub(id.leaf.NotBefore) * 2 / 3
	switch {
	case !now.Before(id.leaf.NotBefore) && !now.After(id.leaf.NotAfter):
		return id.leaf.NotBefore.Add(life).Sub(now)
	case got.IsZero():
		return 0
	}
	return max(life, renewRetry) - time.Since(got)
}

// hashes are the pins of authorities.
func hashes(cas []*x509.Certificate) (out [][sha256.Size]byte) {
	for _, c := range cas {
		out = append(out, sha256.Sum256(c.Raw))
	}
	return out
}

// knownCAs are the pins of the authorities of an earlier enrolment; nil if there was
// none.
func knownCAs(dir string) [][sha256.Size]byte {
	for _, n := range []string{File, File + aside} {
		b, err := readSmallJSON(filepath.Join(dir, n))
		if err != nil {
			continue
		}
		var r schema.EnrolReply
		if json.Unmarshal(b, &r) != nil {
			continue
		}
		if cas, err := parseCerts(r.CA); err == nil {
			return hashes(cas)
		}
	}
	return nil
}
