// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"fmt"
	"time"

	"fulmar/fleet/registry/accounts"
	"fulmar/schema/rest"
)

// Scope is a word for the rights that most tokens want.
type Scope string

// The scopes.
const (
	ScopeRead  Scope = "read"  // boards and the audit log
	ScopeAdmin Scope = "admin" // all
)

// Rights gives what a token of the scope may do.
func (s Scope) Rights() (rest.Rights, error) {
	switch s {
	case ScopeRead:
		return rest.RightsOf(rest.BoardsRead, rest.AuditRead)
	case ScopeAdmin:
		return rest.Admin.Rights(), nil
	}
	return 0, fmt.Errorf("scope %.32q: wants read or admin", string(s))
}

// NewAPIToken makes a token for programs on the server's console. It is shown once and
// kept as a hash.
func (r *Registry) NewAPIToken(ctx context.Context, tenant string, scope Scope, life time.Duration) (string, error) {
	rights, err := scope.Rights()
	if err != nil {
		return "", err
	}
	by := accounts.OnConsole("")
	by.Tenant = tenant
	secret, _, err := r.who.MakeTokenFor(ctx, by, rest.TokenSpec{Rights: rights}, life)
	return secret, err
}
