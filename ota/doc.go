// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package ota brings updates into force on a board: one at a time, from the order, which has
// been proven before it comes here, to a last word that is told.
//
// It is pure of hardware, network and keys: an [Installer] for each kind of component, a
// [Fetcher] of objects and a [Gate] of health are given to it. What it decides is on the
// disk before it has an effect, each effect can be done twice, and each state has a
// deadline: whatever is cut wherever, the next start goes on, and an update always ends.
package ota
