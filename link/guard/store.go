// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import "github.com/eclipse/paho.mqtt.golang/packets"

// NoStore is the client's store turned off: what is to be sent again is known to
// who sends it. The client's own keeps every message and sends it in any order.
type NoStore struct{}

// Open does nothing.
func (NoStore) Open() {}

// Put keeps nothing.
func (NoStore) Put(string, packets.ControlPacket) {}

// Get has nothing.
func (NoStore) Get(string) packets.ControlPacket { return nil }

// All has nothing.
func (NoStore) All() []string { return nil }

// Del does nothing.
func (NoStore) Del(string) {}

// Close does nothing.
func (NoStore) Close() {}

// Reset does nothing.
func (NoStore) Reset() {}
