// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package rest holds the words of /api/v1: what the server's API, its page and the
// command line say to each other in JSON. Names carry their units (temp_c, power_w,
// bytes); times are RFC 3339 in UTC; what is absent is left out, never null.
//
// Fields are only ever added. A reader skips what it does not know.
package rest
