// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"errors"
	"fmt"
	"strings"
)

// TopicRoot is the first two levels of every topic: product and wire version.
const TopicRoot = "f/v1"

// Channel is what follows the board in a topic: what the message is about.
type Channel string

// The channels of DESIGN 10 that are in use. Those ending in '/' take one more level.
const (
	ChanPresence Channel = "st"        // up, also last will: Presence
	ChanHello    Channel = "hello"     // up: Hello
	ChanHelloAck Channel = "hello/ack" // down: HelloAck
	ChanStream   Channel = "t/"        // up, t/{stream}: Message of ClassMetric
	ChanEvent    Channel = "e/"        // up, e/{class}: Message of the other classes
	ChanAck      Channel = "ack"       // down: Ack (mode fleet)
	ChanBlob     Channel = "blob/"     // up, blob/{name}: Chunk
	ChanAttest   Channel = "at"        // up: Attestation
	ChanAssign   Channel = "ota/d"     // down: Assignment
	ChanOTAState Channel = "ota/s"     // up: OTAState
	ChanWant     Channel = "ota/want"  // up: ota.Want
	ChanPiece    Channel = "ota/c"     // down: ota.Down
	ChanTwinUp   Channel = "tw/r"      // up: twin/wire.Up
	ChanTwinDown Channel = "tw/d"      // down: twin/wire.Down
	ChanCommand  Channel = "c/"        // down, c/{id}: envelope of a command.Command
	ChanResult   Channel = "c/+/r"     // up, c/{id}/r: command.Report; the tail stands in the middle
	ChanKeys     Channel = "keys"      // down: envelope of a trust.KeySet
)

// resultEnd is what follows the id in the topic of a command's results.
const resultEnd = "/r"

// Topic is a parsed topic: f/v1/{tenant}/{board}/{channel}{tail}.
type Topic struct {
	Tenant, Board string
	Channel       Channel
	Tail          string // stream, class, blob or command; "" for channels without one
}

// String joins the topic.
func (t Topic) String() string {
	if t.Channel == ChanResult {
		return BoardPrefix(t.Tenant, t.Board) + string(ChanCommand) + t.Tail + resultEnd
	}
	return TopicRoot + "/" + t.Tenant + "/" + t.Board + "/" + string(t.Channel) + t.Tail
}

// ObjectTopic is where many boards hear one pass over an object (ota.Down); tree is the root
// of its tree, in hex. No board's channel is called so.
func ObjectTopic(tenant, tree string) string {
	return TopicRoot + "/" + tenant + "/o/" + tree
}

// BoardPrefix is what every topic of the board begins with, '/' included.
func BoardPrefix(tenant, board string) string {
	return TopicRoot + "/" + tenant + "/" + board + "/"
}

// MessageTopic gives the topic on which records of the class travel.
func MessageTopic(tenant, board string, c Class) Topic {
	if c == ClassMetric {
		return Topic{tenant, board, ChanStream, "host"}
	}
	return Topic{tenant, board, ChanEvent, c.String()}
}

// ParseTopic takes a topic apart and checks each level.
func ParseTopic(s string) (Topic, error) {
	if len(s) > 256 {
		return Topic{}, fmt.Errorf("topic of %d bytes, at most 256", len(s))
	}
	rest, ok := strings.CutPrefix(s, TopicRoot+"/")
	p := strings.SplitN(rest, "/", 3)
	if !ok {
		return Topic{}, fmt.Errorf("topic %q does not begin with %s/", clip(s), TopicRoot)
	} else if len(p) != 3 {
		return Topic{}, fmt.Errorf("topic %q has no tenant, board and channel", clip(s))
	}
	if err := errors.Join(checkLevel("tenant", p[0]), checkLevel("board", p[1])); err != nil {
		return Topic{}, err
	}
	t := Topic{Tenant: p[0], Board: p[1]}
	for _, c := range []Channel{ChanPresence, ChanHello, ChanHelloAck, ChanAck, ChanAttest, ChanAssign, ChanOTAState, ChanWant, ChanPiece, ChanTwinUp, ChanTwinDown, ChanKeys} {
		if p[2] == string(c) {
			t.Channel = c
			return t, nil
		}
	}
	if id, ok := strings.CutPrefix(p[2], string(ChanCommand)); ok {
		t.Channel = ChanCommand
		if t.Tail, ok = strings.CutSuffix(id, resultEnd); ok {
			t.Channel = ChanResult
		}
		return t, checkLevel("id of a command", t.Tail)
	}
	for _, c := range []Channel{ChanStream, ChanEvent, ChanBlob} {
		if tail, ok := strings.CutPrefix(p[2], string(c)); ok {
			t.Channel, t.Tail = c, tail
			return t, checkLevel("topic level", tail)
		}
	}
	return Topic{}, fmt.Errorf("topic %q: unknown channel %q", clip(s), clip(p[2]))
}
