// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package beside sends what goes beside the records of a connection: words of the twin
// and results of commands. They are few, each has a caller that waits for its PUBACK,
// and they take no room of the records' window.
//
// A [Post] belongs to one connection. [Blame] remembers, over connections, a message at
// which the broker hangs up, so that no such message keeps the records from flowing.
package beside
