// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"bytes"
	"strings"
	"testing"
)

func FuzzAssignment(f *testing.F) {
	seedWith(f, &Assignment{})
	f.Fuzz(stable[Assignment])
}

func FuzzOTAState(f *testing.F) {
	seedWith(f, &OTAState{})
	f.Fuzz(stable[OTAState])
}

// TestOTALimits: what is over a limit is neither written nor read.
func TestOTALimits(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", MaxName+1)
	for name, a := range map[string]*Assignment{
		"no rollout":   {V: 1, Component: "agent", Release: "1", Attempt: 1, Act: 1},
		"no attempt":   {V: 1, Rollout: "r-1", Component: "agent", Release: "1", Act: 1},
		"an act":       {V: 1, Rollout: "r-1", Component: "agent", Release: "1", Attempt: 1, Act: 9},
		"long release": {V: 1, Rollout: "r-1", Component: "agent", Release: long, Attempt: 1, Act: 1},
		"long before":  {V: 1, Rollout: "r-1", Component: "agent", Release: "1", Attempt: 1, Act: 3, Before: long},
		"envelope":     {V: 1, Rollout: "r-1", Component: "agent", Release: "1", Attempt: 1, Act: 1, Envelope: bytes.Repeat([]byte{1}, MaxEnvelope+1)},
		"newer":        {V: 2, Rollout: "r-1", Component: "agent", Release: "1", Attempt: 1, Act: 1},
	} {
		if _, err := Encode(a); err == nil {
			t.Errorf("assignment with %s was written", name)
		}
	}
	for name, s := range map[string]*OTAState{
		"a word":      {V: 1, Rollout: "r-1", Attempt: 1, State: "happy"},
		"progress":    {V: 1, Rollout: "r-1", Attempt: 1, State: OTATrial, Progress: 101},
		"a reason":    {V: 1, Rollout: "r-1", Attempt: 1, State: OTAFailed, Reason: strings.Repeat("x", MaxText+1)},
		"no attempt":  {V: 1, Rollout: "r-1", State: OTATrial},
		"no rollout":  {V: 1, Attempt: 1, State: OTATrial},
		"the release": {V: 1, Rollout: "r-1", Attempt: 1, State: OTATrial, Release: long},
	} {
		if _, err := Encode(s); err == nil {
			t.Errorf("state with %s was written", name)
		}
	}
	if !Can(map[string]string{FactCan: "twin updates"}, CanUpdate) || Can(map[string]string{FactCan: "no-updates"}, CanUpdate) || Can(nil, CanUpdate) {
		t.Error("Can is wrong")
	}
	for _, s := range []string{"f/v1/default/b1/ota/d", "f/v1/default/b1/ota/s"} {
		if got, err := ParseTopic(s); err != nil || got.String() != s {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	if _, err := ParseTopic("f/v1/default/b1/ota/x"); err == nil {
		t.Error("ota/x is a topic")
	}
}
