// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"fulmar/cmd/fulmar/here"
	"fulmar/internal/jointoken"
)

// ticket is by what the board gets in and whom it gives that to.
type ticket struct {
	token   jointoken.Token // no secret: a person has to let the board in
	pin     [sha256.Size]byte
	address string // host:port
}

// ticket takes token, pin and address from where they are given.
func (r *run) ticket(ctx context.Context) (*ticket, error) {
	t := &ticket{address: r.o.Fleet}
	if r.o.Pin != "" {
		b, err := hex.DecodeString(r.o.Pin)
		if err != nil || len(b) != sha256.Size {
			return nil, fmt.Errorf("%w: --pin is 64 hex digits, as fulmar-fleet pin prints them", ErrUsage)
		}
		t.pin = [sha256.Size]byte(b)
	}
	text, err := r.tokenText(ctx)
	if err != nil {
		return nil, err
	}
	if text != "" {
		if t.token, err = jointoken.Parse(text); err != nil {
			return nil, &Failure{
				What: "this is no join token; nothing was changed", Because: strings.TrimPrefix(err.Error(), "join token: "),
				Do: "on the server: fulmar-fleet token; then fulmar enrol again, and paste all of it",
			}
		}
		if r.o.Pin != "" && t.pin != t.token.CAHash {
			return nil, fmt.Errorf("%w: --pin and the token name different fleets", ErrUsage)
		}
		t.pin = t.token.CAHash
	}
	if t.address == "" {
		t.address = t.token.Address
	}
	if t.address == "" {
		t.address = r.shown.Config.Fleet.Address
	}
	if t.address == "" {
		return nil, fmt.Errorf("%w: the token does not say where its fleet is: --fleet HOST:PORT", ErrUsage)
	}
	if err := jointoken.CheckAddress(t.address); err != nil {
		return nil, fmt.Errorf("%w: the fleet's address %q %w", ErrUsage, t.address, err)
	}
	return t, nil
}

// tokenText is the token as it was given; "" where the pin has to do.
func (r *run) tokenText(ctx context.Context) (string, error) {
	switch {
	case r.o.Token == "-":
		return readLine(r.o.Stdin)
	case r.o.Token != "":
		r.note("The token stands in this shell's history and in the list of processes now. Next time let fulmar enrol ask for it, or give it on standard input: fulmar enrol -")
		return r.o.Token, nil
	case r.o.Pin != "":
		return "", nil
	}
	f, ok := r.o.Stdin.(*os.File)
	if !ok || !here.IsTerminal(f) {
		return "", fmt.Errorf("%w: no token, and no terminal to ask for it: fulmar enrol - reads it from standard input", ErrUsage)
	}
	var text string
	err := r.pause(func() (err error) {
		text, err = here.AskHidden(ctx, f, r.talk, "Join token, as fulmar-fleet token printed it (it is not shown): ", int64(jointoken.Max)+64)
		if err != nil {
			err = fmt.Errorf("ask for the token: %w", err)
		}
		return err
	})
	if err == nil && text == "" {
		err = fmt.Errorf("%w: no token was typed; fulmar-fleet token on the server makes one. Without one: --fleet and --pin, and a person lets the board in", ErrUsage)
	}
	return text, err
}

// readLine reads the first line, which is bounded.
func readLine(in io.Reader) (string, error) {
	b := bufio.NewReader(io.LimitReader(in, int64(jointoken.Max)+64))
	s, err := b.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the token from standard input: %w", err)
	}
	if s = strings.TrimSpace(s); s == "" {
		return "", fmt.Errorf("%w: standard input holds no token", ErrUsage)
	}
	return s, nil
}
