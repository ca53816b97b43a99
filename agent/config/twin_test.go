// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strings"
	"testing"

	"fulmar/twin"
)

// TestTwinPolicies: the first glob that fits decides, else the fleet; what is no policy or
// no glob is an error with its place.
func TestTwinPolicies(t *testing.T) {
	t.Parallel()
	c, err := Parse([]byte("twin: {policies: [{key: app.set*, policy: hold}, {key: 'app.*', policy: edge}, {key: 'limit.*.max', policy: min}]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]twin.Policy{
		"app.setpoint": twin.PolicyHold, "app.x.y": twin.PolicyEdge, "limit.valve.max": twin.PolicyMin, "limit.valve.min": twin.PolicyFleet, "log.level": twin.PolicyFleet,
	} {
		if got := c.Twin.Policy(key); got != want {
			t.Errorf("%s: %v, wants %v", key, got, want)
		}
	}
	for text, want := range map[string]string{
		"twin: {policies: [{key: app.x, policy: newest}]}\n":                          `twin.policies[0].policy: policy "newest" is none of`,
		"twin: {policies: [{key: 'app.[', policy: hold}]}\n":                          `twin.policies[0].key: "app.["`,
		"twin: {policies: [{policy: hold}]}\n":                                        `twin.policies[0].key: ""`,
		"twin: {policies: [{key: 'app/*', policy: hold}]}\n":                          `twin.policies[0].key: "app/*"`,
		"twin: {policies: [" + strings.Repeat("{key: a, policy: hold},", 65) + "]}\n": "twin.policies: 65 of them, at most 64",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, wants %s", text, err, want)
		}
	}
}
