// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package api is the fleet's HTTP interface for programs: JSON under /api/v1, a
// stream of changes, and the enrolment of boards.
//
// Errors are problem+json (RFC 9457) with a fixed title and a stable code; they
// never repeat what the client sent. [Handler] holds no state but the stream's
// subscribers, which end with their requests.
package api
