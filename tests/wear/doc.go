// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package wear has no code, only a measure: what the spool writes in a day, counted
// where it wears the flash.
package wear
