// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package plan turns what a person wants of a rollout into waves that name their
// boards, and plays the plan through before it starts. It is arithmetic alone: the
// boards and the time are given to it.
package plan
