// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"strings"

	"fulmar/fleet/access"
	"fulmar/fleet/api/parts"
	"fulmar/fleet/web"
	"fulmar/schema/rest"
)

// partsOf are the parts of a town, but its rollouts.
type partsOf struct{ *town }

func (p partsOf) Get(_ context.Context, _, board string) (rest.Meta, error) {
	if board != "b1" {
		return rest.Meta{}, p.broken
	}
	return p.meta, p.broken
}

func (p partsOf) Set(_ context.Context, by access.Caller, board string, m rest.Meta, v int64) (rest.Meta, error) {
	if m.Site == "raced" {
		return rest.Meta{}, errStale
	}
	m.Version = 8
	return m, p.called("meta of %s by %s, v%d: %s", board, by.Who, v, m.Site)
}

func (p partsOf) Users(context.Context, string) ([]rest.User, error) {
	return []rest.User{{Name: "ann", Role: rest.Viewer}}, p.broken
}

func (p partsOf) AddUser(_ context.Context, by access.Caller, name string, role rest.Role) (string, error) {
	return "one-time-secret", p.called("add %s as %s by %s", name, role, by.Who)
}

func (p partsOf) SetRole(_ context.Context, by access.Caller, name string, role rest.Role) error {
	return p.called("role of %s by %s: %s", name, by.Who, role)
}

func (p partsOf) Reset(_ context.Context, by access.Caller, name string) (string, error) {
	return "one-time-secret", p.called("reset %s by %s", name, by.Who)
}

func (p partsOf) Disable(_ context.Context, by access.Caller, name string, out bool) error {
	return p.called("disable %s by %s: %v", name, by.Who, out)
}

func (p partsOf) JoinTokens(context.Context, string) ([]rest.JoinToken, error) {
	return []rest.JoinToken{{ID: "t1", Boards: 3, Expires: noon}}, p.broken
}

func (p partsOf) MakeJoinToken(_ context.Context, by access.Caller, s rest.JoinTokenSpec) (rest.MadeJoinToken, error) {
	t := rest.JoinToken{ID: "fedcba9876543210", Board: s.Board, Boards: s.Boards, Expires: noon}
	return rest.MadeJoinToken{JoinToken: t, Token: "fe1_secret"}, p.called("join token by %s for %q, %d boards, %d s", by.Who, s.Board, s.Boards, s.Seconds)
}

func (p partsOf) RevokeJoinToken(_ context.Context, by access.Caller, id string) error {
	return p.called("revoke join token %s by %s", id, by.Who)
}

func (p partsOf) Remove(_ context.Context, by access.Caller, name string) error {
	return p.called("remove %s by %s", name, by.Who)
}

func (p partsOf) DropTOTP(_ context.Context, by access.Caller, name string) error {
	return p.called("drop factor of %s by %s", name, by.Who)
}

func (p partsOf) Tokens(context.Context, string) ([]rest.Token, error) { return p.tokens, p.broken }

func (p partsOf) MakeToken(_ context.Context, by access.Caller, s rest.TokenSpec) (string, rest.Token, error) {
	t := rest.Token{ID: "t3", Name: s.Name, By: by.Author, Rights: s.Rights, Boards: s.Boards, Expires: noon}
	return "fk1_secret", t, p.called("token %s by %s, who sees %q, for %q", s.Name, by.Who, by.Boards, s.Boards)
}

func (p partsOf) RevokeToken(_ context.Context, by access.Caller, id string) error {
	return p.called("revoke token %s by %s", id, by.Who)
}

func (p partsOf) Entries(_ context.Context, tenant string, after int64, limit int, _ rest.AuditFilter) (out []rest.AuditEntry, _ error) {
	for n := after + 1; n <= 5 && len(out) < limit; n++ {
		out = append(out, rest.AuditEntry{Seq: n, At: noon, Who: "ann", Tenant: tenant, What: "log-in", Hash: "00"})
	}
	return out, p.broken
}

func (p partsOf) Head(context.Context) (rest.AuditHead, error) {
	return rest.AuditHead{Seq: 5, Hash: "00", At: noon}, p.broken
}

func (p partsOf) Rules(context.Context, string) ([]rest.AlertRule, error) {
	return []rest.AlertRule{p.rule}, p.broken
}

func (p partsOf) PutRule(_ context.Context, by access.Caller, r rest.AlertRule) (rest.AlertRule, error) {
	r.Version++
	return r, p.called("rule %s by %s, v%d", r.ID, by.Who, r.Version)
}

func (p partsOf) RemoveRule(_ context.Context, by access.Caller, id string) error {
	return p.called("remove rule %s by %s", id, by.Who)
}

func (p partsOf) Alerts(context.Context, string) []rest.Alert {
	return []rest.Alert{{ID: "a1", Rule: "hot", State: "firing", Severity: "warning", Summary: "b1 is too hot", Labels: map[string]string{}, Count: 1, Since: noon}}
}

func (p partsOf) Hooks(context.Context, string) ([]rest.Webhook, error) {
	return []rest.Webhook{p.hook}, p.broken
}

func (p partsOf) PutHook(_ context.Context, by access.Caller, h rest.Webhook) (rest.Webhook, error) {
	h.Version++
	if h.ID == "" {
		h.ID, h.Secret = "w2", "whsec_secret"
	}
	return h, p.called("hook %s by %s, v%d", h.ID, by.Who, h.Version)
}

func (p partsOf) RemoveHook(_ context.Context, by access.Caller, id string) error {
	return p.called("remove hook %s by %s", id, by.Who)
}

func (p partsOf) Deliveries(context.Context, string, string, int64, int) ([]rest.Delivery, error) {
	return []rest.Delivery{{ID: 9, Hook: "w1", Message: "m", Type: "alert.firing", State: "failed", Made: noon}}, p.broken
}

func (p partsOf) Redeliver(_ context.Context, by access.Caller, id int64) error {
	return p.called("again %d by %s", id, by.Who)
}

// twinsOf are the twins of a town: both boards have a key in conflict.
type twinsOf struct{ *town }

func (x twinsOf) Twin(_ context.Context, tenant, board string) (rest.Twin, error) {
	return rest.Twin{
		Board: board, Version: 4, Applied: 3, Seen: noon, Reported: map[string]json.RawMessage{"config.log.level": []byte(`"info"`)}, Conflicts: 1,
		Keys: []rest.TwinKey{{Key: "app.rate", Value: []byte("7"), From: "fleet", State: "pending", Fleet: &rest.TwinEdit{Value: []byte("7"), Author: "ann"}}},
	}, x.broken
}

func (x twinsOf) Patch(ctx context.Context, by access.Caller, board string, p rest.TwinPatch, v int64) (rest.Twin, error) {
	if p.Reason == "raced" {
		return rest.Twin{}, errStale
	}
	if p.Set["app.X"] != nil {
		return rest.Twin{}, errKey
	}
	if err := x.called("twin of %s by %s, v%d: %d keys", board, by.Who, v, len(p.Set)); err != nil {
		return rest.Twin{}, err
	}
	return x.Twin(ctx, by.Tenant, board)
}

func (x twinsOf) PatchMany(_ context.Context, by access.Caller, boards []string, p rest.TwinPatch, _ func(int)) ([]rest.TwinChanged, error) {
	var out []rest.TwinChanged
	for _, b := range boards {
		out = append(out, rest.TwinChanged{Board: b, Version: 5})
	}
	return out, x.called("twins of %s by %s: %d keys", strings.Join(boards, " "), by.Who, len(p.Set))
}

func (x twinsOf) Check(_ context.Context, _ access.Caller, board string, p rest.TwinPatch) (out []rest.TwinCheck, _ error) {
	for key := range p.Set {
		c := rest.TwinCheck{Board: board, Key: key, Does: "set"}
		if board == "new" {
			c.Does, c.Why = "doubtful", "it has none"
		}
		out = append(out, c)
	}
	return out, x.broken
}

func (x twinsOf) History(_ context.Context, _, board string, before int64, limit int) (out []rest.TwinEvent, _ error) {
	for n := int64(5); n > 0 && len(out) < limit; n-- {
		if before == 0 || n < before {
			out = append(out, rest.TwinEvent{Seq: n, At: noon, Board: board, Kind: "set", Key: "app.rate", Value: []byte("7"), Author: "ann"})
		}
	}
	return out, x.broken
}

func (x twinsOf) Conflicts(context.Context, string) (out []rest.TwinConflict, _ error) {
	for _, b := range []string{"b1", "new"} {
		out = append(out, rest.TwinConflict{Board: b, Key: "app.hold", Fleet: &rest.TwinEdit{Value: []byte("1")}, Edits: []rest.TwinEdit{{Value: []byte("2")}}, Since: noon})
	}
	return out, x.broken
}

func (x twinsOf) Conflict(_ context.Context, _, board, key string) (*rest.TwinConflict, error) {
	if key != "app.hold" {
		return nil, errSettled
	}
	return &rest.TwinConflict{Board: board, Key: key}, x.broken
}

func (x twinsOf) Decide(ctx context.Context, by access.Caller, d rest.TwinDecision) (rest.Twin, error) {
	if d.Key != "app.hold" {
		return rest.Twin{}, errSettled
	}
	if err := x.called("decide %s of %s by %s: %s", d.Key, d.Board, by.Who, d.Choose); err != nil {
		return rest.Twin{}, err
	}
	return x.Twin(ctx, by.Tenant, d.Board)
}

// rolls are the rollouts of a town: r-1 touches b1, r-2 both boards.
type rolls struct{ *town }

func (r rolls) List(context.Context, string) ([]rest.Rollout, error) {
	two := r.roll
	two.ID = "r-2"
	return []rest.Rollout{r.roll, two}, r.broken
}

func (r rolls) Get(_ context.Context, _, id string) (*rest.Rollout, error) {
	v := r.roll
	if v.ID = id; id != "r-1" && id != "r-2" {
		return nil, web.ErrNotFound
	}
	return &v, r.broken
}

func (r rolls) Forecast(context.Context, access.Caller, rest.RolloutSpec) (*rest.Forecast, error) {
	return &rest.Forecast{Waves: []rest.ForecastWave{}, Assumes: []string{}, Sentence: "Two boards, done by Thursday."}, r.broken
}

func (r rolls) Create(_ context.Context, by access.Caller, s rest.RolloutSpec) (*rest.Rollout, error) {
	if s.Name == "wrong" {
		return nil, errWrong
	}
	v := r.roll
	v.Spec = s
	return &v, r.called("plan %s by %s, who sees %q, for %q", s.Release, by.Who, by.Boards, s.Query)
}

func (r rolls) Act(_ context.Context, by access.Caller, id string, version int64, a rest.RolloutAction) (*rest.Rollout, error) {
	if a.Do == rest.RolloutApprove && by.Author == "releaser" {
		return nil, errSecond
	}
	v := r.roll
	v.Version++
	return &v, r.called("%s %s by %s, v%d", a.Do, id, by.Who, version)
}

func (r rolls) Boards(_ context.Context, _, id string) ([]rest.RolloutBoard, error) {
	out := []rest.RolloutBoard{{Board: "b1", State: "waiting", Since: noon}}
	if id == "r-2" {
		out = append([]rest.RolloutBoard{{Board: "new", State: "good", Since: noon}}, out...)
	}
	return out, r.broken
}

// orders are the commands of a town: c-1 is for b1, c-2 for both boards.
type orders struct{ *town }

func command(id string) rest.Command {
	return rest.Command{ID: id, Name: "snapshot", Actor: "operator", Given: noon, Expires: noon, Counts: map[string]int{"waiting-approval": 1}, Total: 1}
}

func (o orders) sees(id string, sees func(string) bool) bool {
	return sees == nil || sees("b1") && (id == "c-1" || sees("new"))
}

func (o orders) List(_ context.Context, _ string, f parts.CommandFilter) (out []rest.Command, _ string, _ error) {
	for _, id := range []string{"c-2", "c-1"} {
		if o.sees(id, f.Sees) {
			out = append(out, command(id))
		}
	}
	return out, "", o.broken
}

func (o orders) Get(_ context.Context, _, id string, rows bool, sees func(string) bool) (*rest.Command, error) {
	v := command(id)
	if id != "c-1" && id != "c-2" || !o.sees(id, sees) {
		return nil, web.ErrNotFound
	}
	if rows {
		v.Boards = []rest.CommandBoard{{ID: "00000000000000000000000000000001", Board: "b1", State: "waiting-approval", Events: []rest.CommandEvent{{State: "waiting-approval", At: noon}}}}
	}
	return &v, o.broken
}

func (o orders) OfBoard(context.Context, string, string, string, int) ([]rest.Command, string, error) {
	return []rest.Command{command("c-1")}, "c-1", o.broken
}

func (o orders) Kinds(context.Context, string, func(string) bool) ([]rest.CommandKind, error) {
	return []rest.CommandKind{{Name: "snapshot", Boards: 2, Approval: true}}, o.broken
}

func (o orders) Plan(_ context.Context, _ access.Caller, s rest.CommandSpec) (string, error) {
	return "2 boards would get " + s.Name + ".", o.broken
}

func (o orders) Give(_ context.Context, by access.Caller, s rest.CommandSpec) (*rest.Command, error) {
	switch s.Name {
	case "wrong":
		return nil, errForm
	case "flood":
		return nil, errOpen
	}
	v := command("c-3")
	return &v, o.called("give %s by %s, who sees %q, to %v%s", s.Name, by.Who, by.Boards, s.Boards, s.Query)
}

func (o orders) right(by access.Caller, a rest.CommandAction) error {
	if a.Action == "cancel" {
		return by.May(rest.CommandsSend)
	}
	if by.Who == "operator" {
		return errSameCommand
	}
	return by.May(rest.CommandsApprove)
}

func (o orders) Act(_ context.Context, by access.Caller, id string, a rest.CommandAction) (*rest.Command, error) {
	if err := o.right(by, a); err != nil {
		return nil, err
	}
	if id != "c-1" && (id != "c-2" || by.Boards != "") {
		return nil, web.ErrNotFound
	}
	v := command(id)
	return &v, o.called("%s %s by %s: %s", a.Action, id, by.Who, a.Reason)
}

func (o orders) Would(_ context.Context, by access.Caller, id string, a rest.CommandAction) (string, error) {
	if id != "c-1" {
		return "", web.ErrNotFound
	}
	return id + " would get: " + a.Action + ".", o.right(by, a)
}
