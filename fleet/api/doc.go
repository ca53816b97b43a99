// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package api is the fleet's HTTP interface for programs: /api/v1, a stream of changes,
// and the enrolment of boards.
//
// Every route of /api/v1 stands behind package door, which decides who gets in and puts
// errors into the words of one table; package look reads, package parts translates for
// the parts of the fleet that are kept apart, and package idem keeps what was answered
// to an Idempotency-Key. The description (OpenAPI 3.1) is made of the routes' types; a
// test holds docs/openapi.json, the rights of each role and all traffic to it.
//
// [Handler] holds no state but the stream's subscribers, which end with their requests,
// and the long changes under way.
package api
