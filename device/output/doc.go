// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package output drives what a board moves: valves, relays, lamps, drives. A [Bank] holds
// the board's outputs and is the only way to them. It keeps each within its range and its
// speed, refuses a set while an interlock holds, and brings all of them to their safe
// values in a safety shutdown, which stays in force until a person releases it.
//
// # What is not known is not safe
//
// An interlock whose reading is missing, old or not a number refuses. A file of the
// shutdown that cannot be read is a shutdown. An output with a speed whose place nobody
// knows takes no value but its safe one.
//
// # One that hangs harms no other
//
// Each word with a device has its own goroutine and a bound. A driver that does not come
// back keeps its own output busy, and nothing else; while a shutdown is latched it is
// driven to its safe value when it comes back. An output that hangs costs one goroutine.
//
// # Order
//
// Safe states are begun in the order of the config: each once the one before it is there,
// or has had its share of a second (see safeorder.go). So a pump stops before its valve
// closes, as long as the pump answers.
//
// # At rest
//
// A bank has one goroutine, and looks every 30 s where its outputs stand.
package output
