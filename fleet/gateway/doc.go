// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package gateway speaks MQTT with boards.
//
// [Gateway] is a broker of our own: mochi, in memory, with no storage, behind
// mutual TLS 1.3. A board is who its certificate says; it writes to its own topics
// and hears only what is for it. Its PUBLISH is answered with PUBACK only after
// ingest has committed it, so a PUBACK means stored. When ingest fails the
// connection is closed without an answer and the board sends again.
//
// Package foreign is the other way round: a client of somebody else's broker, whose
// PUBACK means nothing to us; there the fleet answers with [schema.Ack] messages.
//
// Boards that all come at once are let in at a pace, a board that sends without end is
// read from more slowly, and SetRate bounds what all of them send; see admission.go.
//
// The answer to a hello may ask the board for an attestation (see fleet/proof); what
// it sends on schema.ChanAttest is handed on. Boards of a foreign broker are not asked:
// they are known by name only, and the registry holds no key of theirs.
//
// What mochi does by itself and must not: it answers PUBACK although a hook
// returned an error (for MQTT 3.1.1), takes sessions over in a way that can block or
// take the new one's subscriptions away, never times out a client
// that connects and says nothing, and remembers sessions. Each is dealt with in
// hook.go and listener.go.
package gateway
