// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"fulmar/link"
	"fulmar/schema"
)

// maxKeySets bounds the key sets that wait to be looked at: as many as a fleet sends in
// one connection. More are dropped, and come again after the next hello.
const maxKeySets = 16

// hears are the channels of the fleet that the board listens to.
func hears() []schema.Channel { return []schema.Channel{schema.ChanKeys} }

// inbox takes a message of the fleet without waiting.
func (a *Agent) inbox(m link.Down) {
	if m.Channel == schema.ChanKeys {
		select {
		case a.keySets <- m.Payload:
		default:
			a.log.Warn("key set dropped: too many wait")
		}
	}
}

// heard takes the fleet's answer to hello.
func (a *Agent) heard(ack schema.HelloAck) { a.authority.Heard(ack.Wall) }

// takeKeySets looks at the key sets that came, until the context ends.
func (a *Agent) takeKeySets(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case b := <-a.keySets:
			a.learnKeys(b)
		}
	}
}

// learnKeys takes a key set from the fleet that the board enrolled with.
func (a *Agent) learnKeys(envelope []byte) {
	if _, err := a.authority.Learn(envelope); err != nil {
		a.log.Error("key set refused", "err", err)
		a.say("authority", "refused", schema.SeverityAlarm, "the board goes on with the key set that it has: "+err.Error())
		return
	}
	a.say("authority", "ok", schema.SeverityInfo, "the board takes what the keys of its fleet's set sign")
}

// sayAuthority tells the fleet of a board that takes no commands although it should.
func (a *Agent) sayAuthority() {
	if err := a.authority.Damaged(); err != nil {
		a.say("authority", "damaged", schema.SeverityAlarm, err.Error())
	}
}
