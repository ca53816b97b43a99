// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"database/sql"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"fulmar/fleet/audit"
	"fulmar/fleet/registry/accounts/secret"
)

// maxSteps bounds log-ins between password and code; the oldest goes.
const maxSteps = 256

// steps are log-ins between password and code, in memory: a restart asks for the
// password again.
type steps struct {
	mu sync.Mutex
	by map[string]*step // by hash of its secret
}

type step struct {
	user string
	at   time.Time
}

func (s *steps) add(user string, now time.Time) string {
	fresh := secret.Long()
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest := ""
	for k, v := range s.by {
		if now.Sub(v.at) > stepLife {
			delete(s.by, k)
		} else if oldest == "" || v.at.Before(s.by[oldest].at) {
			oldest = k
		}
	}
	if len(s.by) >= maxSteps {
		delete(s.by, oldest)
	}
	s.by[string(secret.Hash(fresh))] = &step{user, now}
	return fresh
}

func (s *steps) get(text string, now time.Time) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.by[string(secret.Hash(text))]
	if v == nil || now.Sub(v.at) > stepLife {
		return "", false
	}
	return v.user, true
}

func (s *steps) drop(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.by, string(secret.Hash(text)))
}

// Bounds of one sum of refused log-ins.
const (
	maxNames = 20
	maxAddrs = 100
)

// refused sums up refused log-ins of each tenant until they are written: strangers can
// make as many as they like, and the log is bounded.
type refused struct {
	mu sync.Mutex
	by map[string]*sum
}

// sum never holds what was typed as a name that nobody has: it may be a password.
type sum struct {
	since time.Time
	all   int
	users map[string]int
	addrs map[netip.Addr]bool
}

func (r *refused) add(tenant, user string, from netip.Addr, now time.Time) {
	if tenant == "" {
		tenant = DefaultTenant
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.by[tenant]
	if s == nil {
		s = &sum{since: now, users: map[string]int{}, addrs: map[netip.Addr]bool{}}
		r.by[tenant] = s
	}
	s.all++
	if user != "" && (s.users[user] > 0 || len(s.users) < maxNames) {
		s.users[user]++
	}
	if len(s.addrs) < maxAddrs {
		s.addrs[from.Unmap()] = true
	}
}

func (r *refused) take() map[string]*sum {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.by
	r.by = map[string]*sum{}
	return all
}

func (a *Accounts) writeRefused(ctx context.Context) error {
	all := a.refused.take()
	if len(all) == 0 {
		return nil
	}
	return a.within(ctx, func(tx *sql.Tx) error {
		for tenant, s := range all {
			if err := audit.Append(ctx, tx, audit.Entry{Who: "fleet", Tenant: tenant, What: "log-in-refused", Why: s.String()}); err != nil {
				return err
			}
		}
		return nil
	})
}

// String is the sum as a sentence.
func (s *sum) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d since %s from ", s.all, s.since.UTC().Format(time.RFC3339))
	if len(s.addrs) == 1 {
		for addr := range s.addrs {
			b.WriteString(addr.String())
		}
	} else {
		fmt.Fprintf(&b, "%d addresses", len(s.addrs))
	}
	known := 0
	for _, name := range sorted(s.users) {
		fmt.Fprintf(&b, ", %d of %s", s.users[name], name)
		known += s.users[name]
	}
	if n := s.all - known; n > 0 {
		fmt.Fprintf(&b, ", %d of nobody here or too fast", n)
	}
	return b.String()
}
