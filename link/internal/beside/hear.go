// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package beside

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/link/internal/flights"
	"fulmar/schema"
)

const (
	// MaxObjects bounds the topics of objects that a board hears at a time: an update
	// brings one after another, and one may be on its way beside another component's.
	MaxObjects = 2
	// hearTimeout bounds the wait for a SUBACK or UNSUBACK.
	hearTimeout = 15 * time.Second
)

// Hear is link.Session.Hear.
func (d *Desk) Hear(ctx context.Context, tree string) (lost <-chan struct{}, err error) {
	if b, err := hex.DecodeString(tree); err != nil || len(b) != 32 || strings.ToLower(tree) != tree {
		return nil, fmt.Errorf("hear object %.80q: wants 64 hex digits", tree)
	}
	d.mu.Lock()
	post, client := d.post, d.client
	switch {
	case post == nil:
		d.mu.Unlock()
		return nil, ErrDown
	case d.heard[tree]:
		d.mu.Unlock()
		return post.lost, nil
	case len(d.heard) >= MaxObjects:
		d.mu.Unlock()
		return nil, fmt.Errorf("hear object %s: %d others are heard already, at most %d", tree, len(d.heard), MaxObjects)
	}
	if d.heard == nil {
		d.heard = map[string]bool{}
	}
	d.heard[tree] = true // before the SUBACK: a piece may come right behind it
	d.mu.Unlock()
	if err := d.hear(ctx, client, post, schema.ObjectTopic(d.Tenant, tree)); err != nil {
		d.forget(post, tree)
		return nil, fmt.Errorf("hear object %s: %w", tree, err)
	}
	return post.lost, nil
}

// hear asks for a topic. QoS 0: what is lost is asked for by its place, and nobody keeps it.
func (d *Desk) hear(ctx context.Context, client mqtt.Client, post *Post, topic string) error {
	token := client.Subscribe(topic, 0, nil)
	if err := flights.Await(ctx, token, hearTimeout, post.lost); err != nil {
		return errors.Join(ErrDown, err)
	}
	sub, ok := token.(*mqtt.SubscribeToken)
	if !ok {
		return fmt.Errorf("the client gave a %T", token)
	}
	if qos, ok := sub.Result()[topic]; !ok || qos > 1 {
		return fmt.Errorf("%w: it does not let this board hear of it", ErrNotTaken)
	}
	return nil
}

// Leave is link.Session.Leave.
func (d *Desk) Leave(ctx context.Context, tree string) error {
	d.mu.Lock()
	post, client, heard := d.post, d.client, d.heard[tree]
	d.mu.Unlock()
	if post == nil || !heard {
		return nil
	}
	err := flights.Await(ctx, client.Unsubscribe(schema.ObjectTopic(d.Tenant, tree)), hearTimeout, post.lost)
	d.forget(post, tree)
	if err != nil {
		return fmt.Errorf("leave object %s: %w", tree, err)
	}
	return nil
}

// forget takes an object off those that a connection hears.
func (d *Desk) forget(post *Post, tree string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.post == post {
		delete(d.heard, tree)
	}
}

// object gives the object whose topic it is, where it is heard.
func (d *Desk) object(topic string) (tree string, ok bool) {
	tree, ok = strings.CutPrefix(topic, schema.ObjectTopic(d.Tenant, ""))
	if !ok {
		return "", false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return tree, d.heard[tree]
}
