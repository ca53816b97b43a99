// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package flights keeps what was published on a connection and is not acknowledged
// yet, within the two bounds of the window, and what an ended connection left
// unknown. It publishes nothing itself.
package flights
