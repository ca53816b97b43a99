// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package rollout is the logic of a rollout: what happened and what time it is goes in,
// what is to be done comes out. It does no I/O and reads no clock, so that whole
// rollouts are tried in milliseconds. A rollout moves from state to state along
// [state.Table] and no other way; fleet/rollout/book keeps it, fleet/rollout/runner drives it.
//
// Every state that is not the end has a deadline, and every end a sentence.
package rollout
