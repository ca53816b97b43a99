// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package updates tries updates with the real programs: fulmard brings itself from one
// version to the next and goes back from versions that are broken in several ways, models
// change while cameras are looked at, and a real fleet is told of each step. A loop stands
// for systemd.
package updates
