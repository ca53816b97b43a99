// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"time"

	"fulmar/fleet/access"
	"fulmar/internal/jointoken"
	"fulmar/schema/rest"
)

// joinTokens makes, lists and ends join tokens, for the API and the page alike.
type joinTokens struct{ s *Server }

// JoinTokens gives those with which boards can still enrol.
func (j joinTokens) JoinTokens(ctx context.Context, tenant string) ([]rest.JoinToken, error) {
	return j.s.reg.JoinTokens(ctx, tenant)
}

// MakeJoinToken makes one. Its text is told this once, and stands on no command line of
// the server.
func (j joinTokens) MakeJoinToken(ctx context.Context, by access.Caller, spec rest.JoinTokenSpec) (made rest.MadeJoinToken, err error) {
	if err := by.May(rest.BoardsAdmit); err != nil {
		return made, err
	}
	address, err := Address(j.s.cfg.Data)
	if err != nil {
		return made, err
	}
	secret, t, err := j.s.reg.NewJoinTokenBy(ctx, by.Who, by.Tenant, spec.Board, spec.Boards, time.Duration(spec.Seconds)*time.Second)
	if err != nil {
		return made, err
	}
	return rest.MadeJoinToken{JoinToken: t, Token: jointoken.Token{Secret: secret, CAHash: j.s.ca.Hash(), Address: address}.String()}, nil
}

// RevokeJoinToken ends one.
func (j joinTokens) RevokeJoinToken(ctx context.Context, by access.Caller, id string) error {
	if err := by.May(rest.BoardsAdmit); err != nil {
		return err
	}
	return j.s.reg.RevokeJoinToken(ctx, by.Tenant, id, by.Who)
}
