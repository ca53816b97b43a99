// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"net"
	"testing"
)

// TestGatewayStays: boards were told where the gateway is; a site that starts again is
// there, unless another program is.
func TestGatewayStays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var was string
	for i := range 3 {
		s, err := New(dir, "", "")
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && s.MQTT != was {
			t.Errorf("start %d: the gateway is at %s, was at %s", i, s.MQTT, was)
		}
		was = s.MQTT
	}
	l, err := net.Listen("tcp", was)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := New(dir, "", "")
	if err != nil || s.MQTT == was {
		t.Errorf("the gateway is at %s, which is taken: %v", s.MQTT, err)
	}
}
