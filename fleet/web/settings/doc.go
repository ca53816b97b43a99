// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package settings is the part of the page where people keep what the fleet is run
// with: their own account, users and roles, API tokens, alert rules, webhooks, and the
// tokens with which boards join.
//
// A secret is in exactly one answer, that to the form which made it, and never in an
// address.
package settings
