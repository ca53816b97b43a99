// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package link carries records from a board's spool to its fleet over MQTT 3.1.1,
// QoS 1, and frees each record only when its acknowledgement came.
//
// The MQTT client's tokens lie both ways: a failed one may have been delivered,
// and after the client's own reconnect they succeed without any PUBACK. So the
// client's store, resume, retry and reconnect are all off; there is one client
// per connection, called a generation, and what is not acknowledged within its
// generation is published again in the next. The fleet turns repeats away.
//
// # Acknowledgement
//
// Whose word frees a record is told by the fleet in hello/ack, or fixed by the
// config: its own gateway's PUBACK ([schema.AckPuback]: stored), the fleet's Ack
// message through a foreign broker ([schema.AckFleet]), or just a broker's PUBACK
// ([schema.AckBroker]).
//
// # Goroutines
//
// A [Session] lives in [Session.Run]; only [Session.Status] may be called from
// elsewhere, and [Session.Send], [Session.Hear] and [Session.Leave]. Per generation it has a publisher, which also reads what comes in, and
// an acker, which waits for the oldest message in flight; there is no goroutine for
// a message. At most [Config.Window] messages and [Config.WindowBytes] bytes are in
// flight; nothing else is queued here, the spool is the queue. A publisher stuck in
// the client when a connection is lost is given up and ends by itself after ten seconds.
//
// # Order and pace
//
// Alarms go first; then what was made since the connection began and what waited for
// it share the line 7 : 3 (internal/lanes). How much may be on the line follows the
// time to PUBACK, below the window and the fleet's own bound (internal/pace).
//
// # Beside the records
//
// What comes on [Config.Filters] goes to the board at once; what it answers goes by
// [Session.Send]. Neither waits for the records or takes their room (internal/beside),
// and a message at which the broker hangs up is held back for a while. The topics of objects
// are heard while somebody asks for it, within one connection ([Session.Hear]).
//
// # What cannot be sent
//
// A record that can be in no message, and a snapshot whose picture is gone, are
// handed to the spool ([Refuser]) for the loss ledger. They end no connection and
// hold nothing up. A record that the broker hangs up on is found (internal/suspect)
// and handed over, too, unless nothing else of its class gets through.
package link
