// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package pace says when the next message may go, by how long the acknowledgements
// of the last ones took. It is AIMD on bytes in flight: a connection starts small,
// grows by a step for each window acknowledged, and halves when an acknowledgement
// took more than twice the shortest of late and a queueing allowance. Beside that
// stands a rate in bytes a second that the fleet may set.
//
// A [Pace] may be used by several goroutines. It holds no queue and starts nothing.
package pace
