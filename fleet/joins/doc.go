// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package joins fits the parts of the fleet to each other where one asks for more or
// other words than another has: queries over the shared look, errors of the parts as
// the API and the page tell them. It has no state and decides nothing.
package joins
