// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

//go:build race

package delta_test

const raceOn = true
