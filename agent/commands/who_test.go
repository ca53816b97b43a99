// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"testing"

	"fulmar/command"
)

// TestWho: outputs hear of the person behind the fleet as one, and of a program as none: a
// person may release a safety shutdown from the fleet's page.
func TestWho(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]command.Call{
		"user/ann":  {Command: command.Command{Actor: command.ActorFleet, By: "user/ann"}},
		"token ci":  {Command: command.Command{Actor: command.ActorFleet, By: "token ci"}},
		"fleet":     {Command: command.Command{Actor: command.ActorFleet}},
		"local/eve": {Command: command.Command{Actor: "local/eve"}},
		"rule/hot":  {Command: command.Command{Actor: "rule/hot"}},
	} {
		if got := who(&c); got != want {
			t.Errorf("%s by %q is %q, wants %q", c.Actor, c.By, got, want)
		}
	}
}
