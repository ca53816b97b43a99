// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package tuf holds package trust to go-tuf, in tests alone, for the rules that both have:
// thresholds of different keys, a root that is followed by one which enough old and enough
// new keys have signed, and no version that falls. It is here so that go-tuf, with what it
// brings, is no dependency of fulmar.
//
// Where fulmar differs it says so and is tested too: a key set may skip versions (a board that
// was away gets the newest and the ones between), and the set in force, given again,
// is no error.
package tuf
