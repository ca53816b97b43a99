// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package sim is a fleet of simulated boards that speak to a real server: they enrol
// over HTTPS with a join token, connect by MQTT over mutual TLS with the certificates
// they were given, and send what real boards send: presence, hello, batches of samples,
// reports, events with boxes, small pictures, and gaps for what they could not keep.
//
//	err := sim.Run(ctx, sim.Config{Token: token, Dir: dir, Boards: 50, Sites: 5, Sick: true})
//
// A board keeps what is not acknowledged, in bounded memory, and sends it again after a
// reconnect, as a backlog. It frees a record on the PUBACK alone. So a test can hold
// what boards were told against what the server has: see [Config.Acked].
//
// The MQTT client is small, so that thousands of boards fit into one process: two
// goroutines and some 60 KB each. It is none of link's: link is proved by its own tests.
//
// With [Config.Sick] some boards have a trouble ([Trouble]) and one site loses its
// uplink now and then, so that the page has something to show.
package sim
