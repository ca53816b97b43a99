// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"context"

	"fulmar/schema"
)

// maxWaiting bounds the key sets that wait to be looked at: as many as a fleet sends in
// one connection. More are dropped, and come again after the next hello.
const maxWaiting = 16

// Follower takes the key sets that a fleet sends, and tells what becomes of them.
type Follower struct {
	*Authority
	say     func(subject, state string, severity schema.Severity, text string)
	waiting chan []byte
	// Changed is called after another set has come into force; nil: nobody wants to know.
	// Set it before Run.
	Changed func()
}

// NewFollower makes one that tells people by say.
func NewFollower(a *Authority, say func(subject, state string, severity schema.Severity, text string)) *Follower {
	return &Follower{Authority: a, say: say, waiting: make(chan []byte, maxWaiting)}
}

// Offer hands over a set without waiting.
func (f *Follower) Offer(envelope []byte) {
	select {
	case f.waiting <- envelope:
	default:
		f.log.Warn("key set dropped: too many wait")
	}
}

// Run looks at what was offered until the context ends.
func (f *Follower) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case b := <-f.waiting:
			f.Follow(b)
		}
	}
}

// Follow takes a key set from the fleet that the board enrolled with.
func (f *Follower) Follow(envelope []byte) {
	changed, err := f.Learn(envelope)
	if err != nil {
		f.log.Error("key set refused", "err", err)
		f.say("authority", "refused", schema.SeverityAlarm, "the board goes on with the key set that it has: "+err.Error())
		return
	}
	f.say("authority", "ok", schema.SeverityInfo, "the board takes what the keys of its fleet's set sign")
	if changed && f.Changed != nil {
		f.Changed()
	}
}

// Begin tells of a board that takes no commands although it should.
func (f *Follower) Begin() {
	if err := f.Damaged(); err != nil {
		f.say("authority", "damaged", schema.SeverityAlarm, err.Error())
	}
}
