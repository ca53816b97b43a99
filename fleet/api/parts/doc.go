// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package parts are the routes of the API over the parts of the fleet that are kept
// apart: what people say of boards, rollouts, alerts, webhooks, users, tokens and the
// audit log. Each part comes as a small interface that is declared here; the routes
// translate, and decide nothing that a part decides.
//
// A caller who is limited to some boards sees the rollouts that touch no other board.
// The parts keep plans, acts and new tokens of such a caller within the limit.
package parts
