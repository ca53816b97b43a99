// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package state is what there is to know of a rollout: its boards, its waves, where it
// stands, the table of ways from one state to another, and the words for all of that.
// What happens to it is for package rollout.
package state
