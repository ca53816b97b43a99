// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/registry"
	"fulmar/fleet/rollout/state"
	"fulmar/schema/rest"
)

// TestRolloutHooks: a receiver hears of a rollout on real boards, in order, with the page
// to look at; and of one that is dropped.
func TestRolloutHooks(t *testing.T) {
	t.Parallel()
	c := released(t)
	type message struct {
		Type, Subject, Tenant string
		Data                  rest.RolloutEvent
	}
	heard := make(chan message, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m message
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil || r.Header.Get("webhook-signature") == "" {
			t.Errorf("%v, headers %v", err, r.Header)
		}
		heard <- m
	}))
	defer receiver.Close()
	admin := caller("adm", rest.UsersWrite, rest.AlertsWrite)
	if _, err := c.alerts.PutHook(t.Context(), admin, rest.Webhook{Name: "chat", URL: receiver.URL, Kind: rest.HookWebhook, Events: []string{"rollout.*"}, Internal: true}); err != nil {
		t.Fatal(err)
	}
	next := func(id, word, say string) rest.RolloutEvent {
		t.Helper()
		select {
		case m := <-heard:
			d := m.Data
			if m.Type != "rollout."+word || m.Subject != "rollout/"+id || m.Tenant != registry.DefaultTenant || d.Rollout != id || !strings.Contains(d.Say, say) || d.Release != "1.9" ||
				d.URL != "https://"+c.HTTPSAddr()+"/rollouts/"+id {
				t.Fatalf("heard %+v, wants %s of %s: %s", m, word, id, say)
			}
			return d
		case <-time.After(time.Minute): // real sockets, real seconds
			t.Fatalf("nothing was heard; wants %s of %s", word, id)
		}
		return rest.RolloutEvent{}
	}

	c.join(t, "b00", "updates")
	ann, bob := caller("ann", rest.RolloutsWrite, rest.RolloutsApprove, rest.BoardsRead), caller("bob", rest.RolloutsWrite, rest.RolloutsApprove, rest.BoardsRead)
	s := spec()
	s.Approval, s.Waves = true, []rest.WaveSpec{{Percent: 100, SoakS: 1}}
	r, err := c.rolls.Create(t.Context(), ann, s)
	for end := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(end); time.Sleep(50 * time.Millisecond) { // the look is of a second ago
		r, err = c.rolls.Create(t.Context(), ann, s)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.rolls.Act(t.Context(), ann, r.ID, -1, rest.RolloutAction{Do: rest.RolloutStart}); err != nil {
		t.Fatal(err)
	}
	if d := next(r.ID, "approval", ""); d.Who != "ann" || d.From != "planned" || d.State != "approval" || d.Version <= r.Version {
		t.Errorf("%+v", d)
	}
	if _, err := c.rolls.Act(t.Context(), bob, r.ID, -1, rest.RolloutAction{Do: rest.RolloutApprove}); err != nil {
		t.Fatal(err)
	}
	next(r.ID, "started", "")
	next(r.ID, "wave", "")
	c.until(t, r.ID, state.Done, state.Halted, state.Held)
	next(r.ID, "done", "")

	if r, err = c.rolls.Create(t.Context(), ann, s); err != nil {
		t.Fatal(err)
	}
	if _, err := c.rolls.Act(t.Context(), ann, r.ID, -1, rest.RolloutAction{Do: rest.RolloutAbort}); err != nil {
		t.Fatal(err)
	}
	next(r.ID, "aborted", "")
	if len(heard) > 0 {
		t.Errorf("heard beyond that: %+v", <-heard)
	}
}
