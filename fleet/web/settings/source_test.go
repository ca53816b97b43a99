// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"fulmar/fleet/access"
	"fulmar/schema/rest"
)

// What the parts answer with.
var (
	errTaken  = errors.New("taken")
	errStale  = errors.New("stale")
	errBroken = errors.New("disk on fire: /var/lib/secret")
)

func problem(err error) (rest.Problem, bool) {
	switch {
	case errors.Is(err, errTaken):
		return rest.Problem{Status: 409, Title: "It cannot be done", Errors: []rest.Fault{{Pointer: "/name", Detail: "the name is taken"}}}, true
	case errors.Is(err, errStale):
		return rest.Problem{Status: 412, Title: "Somebody changed it meanwhile", Do: "look at it again"}, true
	}
	return rest.Problem{}, false
}

// oneTime and others are the secrets of the tests: each is in one answer.
const (
	oneTime    = "apple-thunder-4711-kettle"
	tokenWord  = "fk1_5ecre7t0ken"
	hookSecret = "whsec_c2VjcmV0"
	joinWord   = "fe1_EXAMPLE"
	command    = "sudo fulmar enrol " + joinWord
)

// office keeps all that the settings are about in memory.
type office struct {
	mu     sync.Mutex
	now    time.Time
	users  []rest.User
	tokens []rest.Token
	rules  []rest.AlertRule
	alerts []rest.Alert
	hooks  []rest.Webhook
	log    []rest.Delivery
	from   rest.Role
	did    []string
	err    error
}

func (o *office) note(format string, args ...any) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.did = append(o.did, fmt.Sprintf(format, args...))
	}
	return o.err
}

func (o *office) Users(context.Context, string) ([]rest.User, error) {
	return slices.Clone(o.users), o.err
}

func (o *office) AddUser(_ context.Context, by access.Caller, name string, role rest.Role) (string, error) {
	if name == "m.kern" {
		return "", errTaken
	}
	return oneTime, o.note("add %s %s by %s", name, role, by.Who)
}

func (o *office) SetRole(_ context.Context, _ access.Caller, name string, role rest.Role) error {
	return o.note("role %s %s", name, role)
}

func (o *office) Disable(_ context.Context, _ access.Caller, name string, out bool) error {
	return o.note("disable %s %v", name, out)
}

func (o *office) Reset(_ context.Context, _ access.Caller, name string) (string, error) {
	return oneTime, o.note("reset %s", name)
}

func (o *office) Remove(_ context.Context, _ access.Caller, name string) error {
	return o.note("remove %s", name)
}

func (o *office) DropTOTP(_ context.Context, _ access.Caller, name string) error {
	return o.note("unfactor %s", name)
}

func (o *office) RequireTOTP(_ context.Context, _ access.Caller, from rest.Role) error {
	o.from = from
	return o.note("require %q", from)
}

func (o *office) TOTPFrom(context.Context, string) (rest.Role, error) { return o.from, nil }

func (o *office) Tokens(context.Context, string) ([]rest.Token, error) {
	return slices.Clone(o.tokens), o.err
}

func (o *office) MakeToken(_ context.Context, by access.Caller, s rest.TokenSpec) (string, rest.Token, error) {
	return tokenWord, rest.Token{Name: s.Name, Rights: s.Rights, Expires: o.now.Add(time.Duration(s.Days) * 24 * time.Hour)}, o.note("token %s [%s] %q %d by %s", s.Name, s.Rights, s.Boards, s.Days, by.Who)
}

func (o *office) RevokeToken(_ context.Context, by access.Caller, id string) error {
	return o.note("revoke %s by %s", id, by.Who)
}

func (o *office) Logins(_ context.Context, user, here string) ([]rest.Login, error) {
	return []rest.Login{
		{ID: "s1", From: "192.0.2.7", With: "Firefox on Linux", Made: o.now.Add(-3 * time.Hour), Used: o.now, Here: here == "s1"},
		{ID: "s2", From: "198.51.100.4", With: "Chrome on Android", Made: o.now.Add(-50 * time.Hour), Used: o.now.Add(-20 * time.Hour)},
	}, o.err
}

func (o *office) EndLogin(_ context.Context, user, id string) error {
	return o.note("end %s of %s", id, user)
}

func (o *office) Rules(context.Context, string) ([]rest.AlertRule, error) {
	return slices.Clone(o.rules), o.err
}

func (o *office) PutRule(_ context.Context, by access.Caller, r rest.AlertRule) (rest.AlertRule, error) {
	if r.Version == 1 {
		return r, errStale
	}
	return r, o.note("rule %s %v q=%q promql=%q for=%s by=%v off=%v v=%d by %s", r.ID, r.Labels, r.Query, r.PromQL, r.For, r.By, r.Off, r.Version, by.Who)
}

func (o *office) RemoveRule(_ context.Context, _ access.Caller, id string) error {
	return o.note("remove rule %s", id)
}

func (o *office) Alerts(context.Context, string) []rest.Alert {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.alerts)
}

func (o *office) Hooks(context.Context, string) ([]rest.Webhook, error) {
	return slices.Clone(o.hooks), o.err
}

func (o *office) PutHook(_ context.Context, by access.Caller, h rest.Webhook) (rest.Webhook, error) {
	if h.ID == "" {
		h.Secret = hookSecret
	}
	return h, o.note("hook %q %s %s %v internal=%v off=%v v=%d by %s", h.ID, h.Name, h.URL, h.Events, h.Internal, h.Off, h.Version, by.Who)
}

func (o *office) RemoveHook(_ context.Context, _ access.Caller, id string) error {
	return o.note("remove hook %s", id)
}

func (o *office) Deliveries(context.Context, string, string, int64, int) ([]rest.Delivery, error) {
	return slices.Clone(o.log), o.err
}

func (o *office) Redeliver(_ context.Context, _ access.Caller, id int64) error {
	return o.note("again %d", id)
}

func (o *office) JoinTokens(context.Context, string) ([]rest.JoinToken, error) {
	return []rest.JoinToken{
		{ID: "j1", Boards: 12, Expires: o.now.Add(time.Hour)}, {ID: "j2", Board: "dock-0003", Boards: 1, Expires: o.now.Add(30 * time.Hour)},
	}, o.err
}

func (o *office) MakeJoinToken(_ context.Context, by access.Caller, s rest.JoinTokenSpec) (rest.MadeJoinToken, error) {
	return rest.MadeJoinToken{Token: joinWord}, o.note("join %q %d %v by %s", s.Board, s.Boards, time.Duration(s.Seconds)*time.Second, by.Who)
}

func (o *office) RevokeJoinToken(_ context.Context, by access.Caller, id string) error {
	return o.note("revoke join %s by %s", id, by.Who)
}

// newOffice fills it with what a small team has.
func newOffice(now time.Time) *office {
	ago := func(h int) time.Time { return now.Add(-time.Duration(h) * time.Hour) }
	some, _ := rest.RightsOf(rest.BoardsRead, rest.RolloutsWrite)
	lost, _ := rest.RightsOf(rest.RolloutsWrite)
	few, _ := rest.RightsOf(rest.BoardsRead)
	return &office{
		now: now, from: rest.Admin,
		users: []rest.User{
			{Name: "m.kern", Role: rest.Admin, SecondFactor: true, Made: ago(9000), LastLogin: ago(0), Sessions: 2, Tokens: 1},
			{Name: "a.wolff", Role: rest.Releaser, Made: ago(8000), LastLogin: ago(30), Sessions: 1, Tokens: 1},
			{Name: "j.ito", Role: rest.Operator, MustEnrol: true, MustChange: true, Made: ago(3)},
			{Name: "old.hand", Role: rest.Viewer, Disabled: true, Made: ago(20000), LastLogin: ago(7000)},
		},
		tokens: []rest.Token{
			{ID: "t1", Name: "line-4 dashboard", By: "m.kern", Rights: few, Boards: "site=hall-4", Made: ago(900), Expires: now.Add(1200 * time.Hour), Used: ago(0)},
			{ID: "t2", Name: "release robot", By: "a.wolff", Rights: some, Lost: lost, Made: ago(600), Expires: now.Add(300 * time.Hour), Used: ago(26)},
			{ID: "t3", Name: "old script", By: "a.wolff", Rights: few, Made: ago(3000), Expires: ago(20)},
		},
		rules: []rest.AlertRule{
			{ID: "fulmar.unreachable", Summary: "boards unreachable", Severity: rest.SeverityCritical, Query: "state=unreachable", For: "10m", By: []string{"site", "cause"}, BuiltIn: true, Version: 2},
			{ID: "hot", Summary: "boards hot", Severity: rest.SeverityWarning, PromQL: `fulmar_thermal_tj_celsius > 85`, For: "5m", Labels: map[string]string{"team": "cooling"}, Version: 3, Error: "the metrics could not be read for 12 s"},
			{ID: "disk", Summary: "disk nearly full", Severity: rest.SeverityWarning, Query: "mount.root.used_percent > 90", Off: true, Version: 1},
		},
		alerts: []rest.Alert{
			{ID: "a1", Rule: "fulmar.unreachable", State: rest.AlertFiring, Severity: rest.SeverityCritical, Summary: "hall-4: 11 boards unreachable: connection lost", Labels: map[string]string{"alertname": "fulmar.unreachable", "severity": "critical", "site": "hall-4", "cause": "connection lost"}, Boards: []string{"dock-0017", "dock-0018", "dock-0019"}, Count: 11, Since: ago(1)},
			{ID: "a2", Rule: "hot", State: rest.AlertPending, Severity: rest.SeverityWarning, Summary: "dock-0003 hot", Labels: map[string]string{"board": "dock-0003"}, Boards: []string{"dock-0003"}, Count: 1, Since: now.Add(-2 * time.Minute)},
			{ID: "a3", Rule: "hot", State: rest.AlertResolved, Severity: rest.SeverityWarning, Summary: "dock-0009 hot", Labels: map[string]string{"board": "dock-0009"}, Boards: []string{"dock-0009"}, Count: 1, Since: ago(5), Resolved: ago(4)},
		},
		hooks: []rest.Webhook{
			{ID: "h1", Name: "chat", URL: "https://chat.example/hooks/8s1k", Kind: rest.HookWebhook, Events: []string{"alert.firing", "rollout.*"}, Author: "m.kern", Version: 1, Secret: hookSecret},
			{ID: "h2", Name: "pager", URL: "https://pager.example/api/v2/alerts", Kind: rest.HookAlertmanager, Author: "m.kern", Version: 4, Waiting: 3, Error: "no answer in 10 s"},
			{ID: "h3", Name: "plant", URL: "http://10.0.0.7/hook", Kind: rest.HookWebhook, Internal: true, Off: true, Version: 2},
		},
		log: []rest.Delivery{
			{ID: 12, Hook: "h1", Message: "msg_12", Type: "alert.firing", Subject: "a1", Seq: 3, State: rest.DeliveryWaiting, Tries: 4, Made: ago(1), Next: now.Add(7 * time.Minute), Status: 503, Error: "the receiver is away"},
			{ID: 11, Hook: "h1", Message: "msg_11", Type: "rollout.halted", Subject: "r-31", Seq: 9, State: rest.DeliveryDelivered, Tries: 1, Made: ago(2), Status: 204},
			{ID: 9, Hook: "h1", Message: "msg_9", Type: "alert.firing", Subject: "a0", Seq: 2, State: rest.DeliveryFailed, Tries: 31, Made: ago(90), Error: "given up after 3 days"},
		},
	}
}
