// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package door is what every request of the API passes, in this order: an id, the
// bounds of its size, the rate of its address, who the caller is, the rate of the
// caller, a place among the requests under way, the right that the route wants, the
// Idempotency-Key, and the form of parameters and body, which huma checks against the
// Go types of the route. The OpenAPI document is made of the same types.
//
// Errors are problem+json (RFC 9457) made of the one table of codes (schema/rest). They
// never repeat what a request held: neither values nor names that the API does not
// know.
//
// The door holds no state but the rates of callers and the places, both bounded.
package door
