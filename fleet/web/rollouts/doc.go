// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package rollouts is the part of the page that changes what boards run: the list of
// rollouts, one of them with the reasons for all that happened, and the form that plans
// one and plays it through before anything is made.
//
// The sentences why a rollout stands where it stands are the rollout's own, stored
// once and the same everywhere; this package adds pictures, countdowns and buttons.
package rollouts
