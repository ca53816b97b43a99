// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"fmt"
	"os"

	"fulmar/cmd/fulmar/fault"
	"fulmar/command"
	"fulmar/schema"
	"fulmar/schema/onboard"
	"fulmar/trust"
)

// giveSigned gives a command by right of a key: the board's challenge becomes the id of
// what is signed, so it is good for this board, once, and now.
func giveSigned(ctx context.Context, k *call, g *giving, name string, args []byte) error {
	key, err := trust.OpenSigner(g.key, nil)
	if err != nil {
		return err
	}
	defer key.Close() //nolint:errcheck // nothing was written
	var ch onboard.Challenge
	if err := k.ask(ctx, "POST", "/v1/challenge", struct{}{}, &ch); err != nil {
		return err
	}
	envelope, err := sign(key, &ch, name, args, g)
	if err != nil {
		return err
	}
	if !k.quiet() {
		k.say("signed %s for board %s of %s with key %s", name, ch.Board, ch.Tenant, key.ID[:16])
	}
	return k.carry(ctx, g, "/v1/signed", onboard.Signed{Envelope: envelope, Wait: g.wait()})
}

// sign makes the envelope of a command over a challenge.
func sign(key *trust.Signer, ch *onboard.Challenge, name string, args []byte, g *giving) ([]byte, error) {
	id, err := command.ParseID(ch.ID)
	if err != nil {
		return nil, fault.New(fault.BoardSays, "the board's challenge is none: %w", err)
	}
	reason := g.reason
	if len(reason) > schema.MaxFact {
		return nil, fmt.Errorf("a reason of %d bytes, at most %d", len(reason), schema.MaxFact)
	}
	payload, err := schema.Encode(&command.Command{
		V: schema.Version, ID: id, Tenant: ch.Tenant, Board: ch.Board, Name: name, Args: args,
		Actor: command.ActorKey + "/" + key.ID[:16], Seq: 1, // the board numbers it: the challenge keeps it from being played again
		DryRun: g.check, Reason: reason, By: bringer(),
	})
	if err != nil {
		return nil, err
	}
	e, err := trust.NewEnvelope(trust.TypeOperator, payload)
	if err != nil {
		return nil, err
	}
	if err := e.Sign(key); err != nil {
		return nil, err
	}
	return e.Encode()
}

// bringer is the login name, for the log; it proves nothing.
func bringer() string {
	for _, v := range []string{"SUDO_USER", "USER", "LOGNAME"} {
		if s := os.Getenv(v); s != "" {
			return s[:min(len(s), schema.MaxName)]
		}
	}
	return ""
}
