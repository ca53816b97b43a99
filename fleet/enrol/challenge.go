// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"container/list"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"

	"fulmar/fleet/registry"
)

const (
	// challengeLife is how long a board may take to answer: a slow chip needs seconds,
	// one that waits for other programs minutes.
	challengeLife = 5 * time.Minute
	// maxChallenges bounds those open, 2 KB each and 20 KB at most. When there are more
	// the oldest goes: a board in earnest answers within seconds, and at the rate that an
	// address is held to that is the time of a thousand claims of fifty addresses.
	maxChallenges = 1024
)

// challenge is a claim that waits for its proof.
type challenge struct {
	id      string
	until   time.Time
	ask     registry.Enrolment // what it asks for, once proven
	csr     []byte             // PEM
	report  []byte             // SHA-256 of the request's DER, 32 bytes
	ak      []byte
	secret  []byte // 32 bytes; only the TPM of the claim can tell it
	nonce   []byte // 32 bytes, of the quote
	element *list.Element
}

// challenges are those that are open.
type challenges struct {
	mu   sync.Mutex
	by   map[string]*challenge
	made list.List // of *challenge, oldest first
}

func random() []byte {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return b
}

// put opens a challenge and gives its name.
func (c *challenges) put(ch *challenge, now time.Time) string {
	ch.id, ch.until = hex.EncodeToString(random()), now.Add(challengeLife)
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.made.Front(); e != nil; e = c.made.Front() {
		if old := e.Value.(*challenge); len(c.by) >= maxChallenges || !now.Before(old.until) {
			c.remove(old)
			continue
		}
		break
	}
	c.by[ch.id] = ch
	ch.element = c.made.PushBack(ch)
	return ch.id
}

// take closes a challenge, whatever comes of it; nil where there is none of that name.
func (c *challenges) take(id string, now time.Time) *challenge {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := c.by[id]
	if ch == nil {
		return nil
	}
	c.remove(ch)
	if !now.Before(ch.until) {
		return nil
	}
	return ch
}

func (c *challenges) remove(ch *challenge) {
	delete(c.by, ch.id)
	c.made.Remove(ch.element)
}
