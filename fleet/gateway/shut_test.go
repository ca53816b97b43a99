// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/fleet/ca"
	"fulmar/fleet/ingest"
	"fulmar/fleet/registry"
	"fulmar/schema"
)

// inTime is within how long a revocation has to take effect.
const inTime = 5 * time.Second

// resuming gives options of a board that resumes its TLS sessions, as ours do, and
// whether its newest connection did.
func (h *hall) resuming(id string, cert *tls.Certificate, lost chan error) (*mqtt.ClientOptions, *atomic.Bool) {
	o := h.options(id, cert)
	o.TLSConfig.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	cfg, resumed := o.TLSConfig, new(atomic.Bool)
	o.SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) {
		c, err := tls.Dial("tcp", h.addr, cfg)
		if err == nil {
			resumed.Store(c.ConnectionState().DidResume)
		}
		return c, err
	})
	o.OnConnectionLost = func(_ mqtt.Client, err error) { lost <- err }
	return o, resumed
}

// TestRevokedWhileConnected: a live session ends within five seconds, whoever revoked the
// board, the session of another goes on, and a resumed TLS session opens nothing.
func TestRevokedWhileConnected(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	// As the command line does it: another handle on the same file.
	elsewhere, err := registry.Open(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	stays := h.enrol(t, "b9")
	other := h.connect(t, "b9", &stays)
	for board, reg := range map[string]*registry.Registry{"b1": h.reg, "b2": elsewhere} {
		cert := h.enrol(t, board)
		lost := make(chan error, 4)
		o, resumed := h.resuming(board, &cert, lost)
		for i := range 2 {
			c := mqtt.NewClient(o)
			if err := finish(c.Connect()); err != nil {
				t.Fatal(err)
			}
			if topic, p := payload(t, board, uint64(i+1)); finish(c.Publish(topic, 1, false, p)) != nil {
				t.Fatal("not stored")
			}
			if resumed.Load() != (i == 1) {
				t.Fatalf("connection %d resumed: %v", i, resumed.Load())
			}
			if i == 0 {
				c.Disconnect(50)
			}
		}
		began := time.Now()
		if err := reg.Revoke(context.Background(), "default", board, "admin", "stolen"); err != nil {
			t.Fatal(err)
		}
		select {
		case <-lost:
			t.Logf("ended after %v", time.Since(began))
		case <-time.After(inTime):
			t.Fatalf("the session of %s goes on after it was revoked", board)
		}
		if err := finish(mqtt.NewClient(o).Connect()); err == nil || !resumed.Load() {
			t.Errorf("after it was revoked: %v, resumed %v", err, resumed.Load())
		}
	}
	if n := h.gate.Stats().Shut; n != 2 {
		t.Errorf("%d sessions ended, wants 2", n)
	}
	if topic, p := payload(t, "b9", 1); finish(other.Publish(topic, 1, false, p)) != nil {
		t.Error("the session of another board ended too")
	}
}

// TestEnrolledAnewWhileConnected: the old key's session ends; that of the new one, which
// may be there already, does not.
func TestEnrolledAnewWhileConnected(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	cert := h.enrol(t, "b1")
	lost := make(chan error, 4)
	o, _ := h.resuming("b1", &cert, lost)
	if err := finish(mqtt.NewClient(o).Connect()); err != nil {
		t.Fatal(err)
	}
	secret, err := h.reg.NewJoinToken(t.Context(), "default", "b1", 1, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	key, req := csr(t)
	_, leaf, err := h.reg.Enrol(t.Context(), registry.Enrolment{Secret: secret, Board: "b1", KeyHash: [32]byte{7}},
		func(tenant string) (*ca.Leaf, error) { return h.ca.Issue(req, tenant, "b1", schema.TrustSoftware) })
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-lost:
	case <-time.After(inTime):
		t.Fatal("the session of the old key goes on")
	}
	next := pair(t, leaf, key)
	c := h.connect(t, "b1", &next)
	time.Sleep(2 * shutEvery) // it would have been ended by now
	if topic, p := payload(t, "b1", 1); finish(c.Publish(topic, 1, false, p)) != nil {
		t.Error("the session of the new key ended")
	}
}

// late is a registry in which a board is revoked just after it was admitted, and the
// gateway's look at the sessions is over before the board is among them.
type late struct {
	*registry.Registry
	gate   func() *Gateway
	revoke func()
}

func (l *late) Admit(ctx context.Context, id ca.Identity) (bool, error) {
	ok, err := l.Registry.Admit(ctx, id)
	if l.revoke != nil && ok {
		mark := l.gate().mark.Load()
		l.revoke()
		l.revoke = nil
		for l.gate().mark.Load() == mark {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return ok, err
}

// TestRevokedAtTheDoor: no moment between the look at the certificate and the session is
// left open.
func TestRevokedAtTheDoor(t *testing.T) {
	t.Parallel()
	h := openWith(t, nil, func(r *registry.Registry, g func() *Gateway) Admitter { return &late{Registry: r, gate: g} })
	cert := h.enrol(t, "b1")
	h.gate.admit.(*late).revoke = func() { _ = h.reg.Revoke(context.Background(), "default", "b1", "admin", "") }
	lost := make(chan error, 4)
	o, _ := h.resuming("b1", &cert, lost)
	if err := finish(mqtt.NewClient(o).Connect()); err != nil {
		return // turned away
	}
	select {
	case <-lost:
	case <-time.After(inTime):
		t.Fatal("a board that was revoked while it came in is in")
	}
}

// TestHelloTold: who watches hears the boot of each hello.
func TestHelloTold(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	told := make(chan uint64, 4)
	h.gate.cfg.Hello = func(key ingest.BoardKey, hello *schema.Hello) {
		if key.Board == "b1" {
			told <- hello.Now.Boot
		}
	}
	cert := h.enrol(t, "b1")
	c := h.connect(t, "b1", &cert)
	p, err := schema.Encode(&schema.Hello{V: 1, Board: "b1", Conn: 9, Now: schema.Time{Boot: 7}})
	if err != nil {
		t.Fatal(err)
	}
	if err := finish(c.Publish("f/v1/default/b1/hello", 1, false, p)); err != nil {
		t.Fatal(err)
	}
	if got := <-told; got != 7 {
		t.Errorf("boot %d", got)
	}
}
