// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package access says who asks for something and what they may do. Every part of the
// fleet that changes something takes a [Caller]; who has let them in is decided once,
// at the door.
package access

import (
	"errors"

	"fulmar/schema/rest"
)

// ErrNotAllowed: the caller has not the right.
var ErrNotAllowed = errors.New("not allowed")

// Caller is a person or a program that was let in.
type Caller struct {
	Tenant string
	Who    string // "m.kern", "token line-4", "console": as the audit log has it
	// Author is the person behind Who: for a token the one who made it. Nobody approves
	// what they planned themselves, nor by a token of theirs.
	Author string
	Rights rest.Rights
	// Boards limits which boards are seen and changed, as a query; "" is all.
	Boards string
}

// May gives nil where the caller has the right, [ErrNotAllowed] otherwise.
func (c Caller) May(r rest.Right) error {
	if c.Rights.Has(r) {
		return nil
	}
	return ErrNotAllowed
}
