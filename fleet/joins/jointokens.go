// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package joins

import (
	"context"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/registry"
	"fulmar/internal/jointoken"
	"fulmar/schema/rest"
)

// JoinTokens makes, lists and ends join tokens, for the API and the page alike.
type JoinTokens struct {
	Registry *registry.Registry
	Hash     [32]byte               // of the authority's certificate
	Address  func() (string, error) // of the fleet, as boards reach it
}

// JoinTokens gives those with which boards can still enrol.
func (j JoinTokens) JoinTokens(ctx context.Context, tenant string) ([]rest.JoinToken, error) {
	return j.Registry.JoinTokens(ctx, tenant)
}

// MakeJoinToken makes one. Its text is told this once, and stands on no command line of
// the server.
func (j JoinTokens) MakeJoinToken(ctx context.Context, by access.Caller, spec rest.JoinTokenSpec) (made rest.MadeJoinToken, err error) {
	if err := by.May(rest.BoardsAdmit); err != nil {
		return made, err
	}
	address, err := j.Address()
	if err != nil {
		return made, err
	}
	secret, t, err := j.Registry.NewJoinTokenBy(ctx, by.Who, by.Tenant, spec.Board, spec.Boards, time.Duration(spec.Seconds)*time.Second)
	if err != nil {
		return made, err
	}
	return rest.MadeJoinToken{JoinToken: t, Token: jointoken.Token{Secret: secret, CAHash: j.Hash, Address: address}.String()}, nil
}

// RevokeJoinToken ends one.
func (j JoinTokens) RevokeJoinToken(ctx context.Context, by access.Caller, id string) error {
	if err := by.May(rest.BoardsAdmit); err != nil {
		return err
	}
	return j.Registry.RevokeJoinToken(ctx, by.Tenant, id, by.Who)
}
