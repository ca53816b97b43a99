// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"

	"fulmar/fleet"
)

func TestTokenAddress(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(given string) (string, string, error) {
		var talk bytes.Buffer
		a, err := tokenAddress(dir, given, &talk)
		return a, talk.String(), err
	}
	if a, talk, err := at(""); a != "" || err != nil || !strings.Contains(talk, "--address") {
		t.Error(a, talk, err)
	}
	if _, _, err := at("fleet.example"); err == nil || !strings.Contains(err.Error(), "HOST:PORT") {
		t.Error(err)
	}
	// A server writes down by what it is reached.
	s, err := fleet.New(fleet.Config{Data: dir, Listen: "127.0.0.1:0", MQTT: "127.0.0.1:0", Hosts: []string{"localhost", "hall4.example"}}, func(string) {}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	_ = s.Run(ctx)
	_, port, _ := net.SplitHostPort(s.HTTPSAddr())
	for given, want := range map[string]string{
		"": "hall4.example:" + port, "fleet.example": "fleet.example:" + port, "fleet.example:1": "fleet.example:1",
		"2001:db8::1": "[2001:db8::1]:" + port, "[2001:db8::1]:2": "[2001:db8::1]:2",
	} {
		if a, talk, err := at(given); a != want || err != nil || !strings.Contains(talk, "boards reach the fleet at "+want) {
			t.Errorf("%q: %s %s %v, wants %s", given, a, talk, err, want)
		}
	}
	if a, talk, err := at("127.0.0.1"); a != "127.0.0.1:"+port || err != nil || !strings.Contains(talk, "only boards on this machine") {
		t.Error(a, talk, err)
	}
	for _, bad := range []string{"https://fleet.example:1", "a b:1", "fleet.example:0", "fleet example"} {
		if a, _, err := at(bad); err == nil {
			t.Errorf("%q gave %s", bad, a)
		}
	}
}
