// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package budget holds fulmard to what it may take of a board. Each bound has the
// measured value, machine and date beside it.
package budget
