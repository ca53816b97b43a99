// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"errors"

	"fulmar/storage/internal/classconf"
)

// Config sets up one class.
type Config = classconf.Config

// What a caller may want to tell apart; see the same names in storage.
var (
	ErrFull    = errors.New("class is full")
	ErrUnknown = errors.New("unknown range")
	ErrClosed  = errors.New("spool is closed")
)
