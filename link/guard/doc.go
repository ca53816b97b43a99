// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package guard stands between a broker and the MQTT client, which trusts what it
// reads: five hostile bytes would make it allocate 256 MB, a SUBACK of more answers
// than questions would end the process, and a SUBACK, UNSUBACK or PUBCOMP with the
// number of a PUBLISH would be taken for its acknowledgement.
//
// [Conn] follows the framing of what comes in, refuses what is too long or was not
// asked for, remembers which numbers wait for an answer, and measures how long each
// PUBACK took. It knows at most as many numbers as the client has in flight. What is
// refused ends the connection with an error that says why.
//
// A Conn may be written by several goroutines, as a net.Conn; it has one reader.
package guard
