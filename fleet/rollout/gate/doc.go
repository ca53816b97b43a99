// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package gate says what the boards of a wave show about a release. There are three
// answers, never two: bad for sure, good enough for this wave, not enough boards to
// tell. It is arithmetic alone: no clock, no store (ADR 0042).
package gate
