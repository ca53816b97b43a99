// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package foreign ingests from somebody else's MQTT broker, as one of its clients.
//
// That broker's PUBACK says nothing of what the fleet has stored, so the fleet answers
// each message with a [schema.Ack], after its commit. Boards there are known by name
// only: the broker let them in. They have no certificate of the fleet's, and are not
// asked for attestations.
package foreign
