// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package lanes orders what a connection sends: alarms, then what is live and what
// waited 7 : 3 by bytes, each of them divided between events, metrics and pictures
// 4 : 2 : 1. Who has nothing to send leaves its part to the others.
package lanes
