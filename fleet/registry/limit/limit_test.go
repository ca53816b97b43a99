// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"net/netip"
	"testing"
	"time"
)

func TestLimit(t *testing.T) {
	t.Parallel()
	const burst, refill = 5, 10 * time.Second
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	l := New[netip.Addr](burst, refill)
	at := func(s string) netip.Addr { return Source(netip.MustParseAddr(s)) }
	for range burst {
		if !l.Take(at("192.0.2.1"), now) || !l.Take(at("2001:db8::1"), now) {
			t.Fatal("refused too early")
		}
	}
	if l.Take(at("::ffff:192.0.2.1"), now) || l.Take(at("2001:db8::2"), now) || !l.Take(at("192.0.2.2"), now) {
		t.Fatal("the limit is for each address, IPv6 by /64")
	}
	now = now.Add(refill)
	if !l.Take(at("192.0.2.1"), now) || l.Take(at("192.0.2.1"), now) {
		t.Fatal("one try comes back each refill")
	}
	l.Return(at("192.0.2.1"))
	if !l.Take(at("192.0.2.1"), now) || l.Take(at("192.0.2.1"), now) {
		t.Fatal("what was given back is one try")
	}
	l.Return(at("192.0.2.9")) // never seen: nothing to give back
	for i := range 2 * maxKeys {
		l.Take(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), now)
	}
	if len(l.by) > maxKeys || l.used.Len() != len(l.by) {
		t.Fatalf("%d addresses remembered", len(l.by))
	}
}
