// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package parts

import (
	"context"
	"math"
	"net/http"
	"slices"
	"strconv"

	"fulmar/fleet/access"
	"fulmar/fleet/api/door"
	"fulmar/fleet/api/look"
	"fulmar/fleet/api/parts/route"
	"fulmar/fleet/web"
	"fulmar/schema/rest"
)

// alerts are the routes of alerts and their rules. They tell of all boards.
type alerts struct {
	a     Alerts
	looks *look.Looks
}

func (a *alerts) mount(d *door.Door) {
	d.Optional(rest.AlertRule{}, "id", "version")
	g := route.Group{Tag: "alerts", Read: rest.BoardsRead, Edit: rest.AlertsWrite}
	door.Handle(d, route.Whole(g.Route("list-alerts", http.MethodGet, "alerts", "What is wrong now, and what was in the last day")), a.list)
	door.Handle(d, route.Whole(g.Route("list-alert-rules", http.MethodGet, "alert-rules", "The rules by which alerts are found")), a.rules)
	door.Handle(d, route.Whole(g.Route("get-alert-rule", http.MethodGet, "alert-rules/{id}", "One rule")), a.rule)
	door.Handle(d, route.Whole(g.Route("put-alert-rule", http.MethodPut, "alert-rules/{id}", "Add or change a rule; version in the body is that of If-Match")), a.put)
	door.Handle(d, route.Whole(g.Route("remove-alert-rule", http.MethodDelete, "alert-rules/{id}", "Remove a rule")), a.remove)
}

func (a *alerts) list(ctx context.Context, by access.Caller, _ *route.Nothing) (*route.ListOut[rest.Alert], error) {
	return route.ListOf(a.a.Alerts(ctx, by.Tenant), nil)
}

func (a *alerts) rules(ctx context.Context, by access.Caller, _ *route.Nothing) (*route.ListOut[rest.AlertRule], error) {
	return route.ListOf(a.a.Rules(ctx, by.Tenant))
}

type ruleOut struct {
	Tag  string `header:"ETag"`
	Body rest.AlertRule
}

// find gives a rule, false where there is none.
func (a *alerts) find(ctx context.Context, by access.Caller, id string) (r rest.AlertRule, ok bool, err error) {
	all, err := a.a.Rules(ctx, by.Tenant)
	i := slices.IndexFunc(all, func(r rest.AlertRule) bool { return r.ID == id })
	if err != nil || i < 0 {
		return r, false, err
	}
	return all[i], true, nil
}

func (a *alerts) rule(ctx context.Context, by access.Caller, in *readIn) (*ruleOut, error) {
	r, ok, err := a.find(ctx, by, in.ID)
	if err == nil && !ok {
		err = web.ErrNotFound
	}
	return &ruleOut{door.Tag(r.Version), r}, err
}

type readIn struct {
	ID string `path:"id" maxLength:"64" doc:"Its id"`
}

type putRuleIn struct {
	ID    string `path:"id" maxLength:"64" doc:"Its id"`
	Match string `header:"If-Match" doc:"The ETag of the rule that is changed; * is whatever there is, also none"`
	Dry   bool   `query:"dry_run" doc:"Check all and change nothing"`
	Body  rest.AlertRule
}

// matches checks an If-Match against what there is now, and gives the version that is
// replaced.
func matches(match string, now int64, there bool) (int64, error) {
	version, err := door.Version(match)
	switch {
	case err != nil:
		return 0, err
	case version < 0:
		return now, nil
	case !there || version != now:
		return 0, door.Stale(now)
	}
	return version, nil
}

func (a *alerts) put(ctx context.Context, by access.Caller, in *putRuleIn) (*ruleOut, error) {
	now, ok, err := a.find(ctx, by, in.ID)
	if err != nil {
		return nil, err
	}
	if in.Body.Version, err = matches(in.Match, now.Version, ok); err != nil {
		return nil, err
	}
	if in.Body.ID = in.ID; in.Body.Query != "" { // its errors point at a column
		if _, err := a.looks.See(ctx, by, in.Body.Query); err != nil {
			return nil, err
		}
	}
	if in.Dry {
		return nil, door.Would("The rule would be kept.")
	}
	r, err := a.a.PutRule(ctx, by, in.Body)
	return &ruleOut{door.Tag(r.Version), r}, err
}

func (a *alerts) remove(ctx context.Context, by access.Caller, in *route.IDIn) (*struct{}, error) {
	_, ok, err := a.find(ctx, by, in.ID)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, web.ErrNotFound
	case in.Dry:
		return nil, door.Would("The rule would be removed.")
	}
	return nil, a.a.RemoveRule(ctx, by, in.ID)
}

// hooks are the routes of webhooks.
type hooks struct{ h Hooks }

func (h *hooks) mount(d *door.Door) {
	d.Optional(rest.Webhook{}, "id", "version", "waiting")
	g := route.Group{Tag: "webhooks", Read: rest.AlertsWrite, Edit: rest.AlertsWrite}
	door.Handle(d, route.Whole(g.Route("list-webhooks", http.MethodGet, "webhooks", "Where the server tells others what happens")), h.list)
	door.Handle(d, route.Whole(route.Makes(route.Secret(g.Route("add-webhook", http.MethodPost, "webhooks", "Add a webhook; the answer has its secret")))), h.add)
	door.Handle(d, route.Whole(g.Route("get-webhook", http.MethodGet, "webhooks/{id}", "One webhook")), h.get)
	door.Handle(d, route.Whole(g.Route("put-webhook", http.MethodPut, "webhooks/{id}", "Change a webhook")), h.put)
	door.Handle(d, route.Whole(g.Route("remove-webhook", http.MethodDelete, "webhooks/{id}", "Remove a webhook")), h.remove)
	door.Handle(d, route.Whole(g.Route("list-deliveries", http.MethodGet, "webhooks/{id}/deliveries", "What was sent to it, and what is waiting")), h.deliveries)
	door.Handle(d, route.Whole(g.Route("redeliver", http.MethodPost, "webhooks/{id}/deliveries/{delivery}/again", "Send it again")), h.again)
}

func (h *hooks) list(ctx context.Context, by access.Caller, _ *route.Nothing) (*route.ListOut[rest.Webhook], error) {
	return route.ListOf(h.h.Hooks(ctx, by.Tenant))
}

type hookOut struct {
	Tag  string `header:"ETag"`
	Body rest.Webhook
}

func (h *hooks) find(ctx context.Context, by access.Caller, id string) (rest.Webhook, error) {
	all, err := h.h.Hooks(ctx, by.Tenant)
	i := slices.IndexFunc(all, func(w rest.Webhook) bool { return w.ID == id })
	switch {
	case err != nil:
		return rest.Webhook{}, err
	case i < 0:
		return rest.Webhook{}, web.ErrNotFound
	}
	return all[i], nil
}

func (h *hooks) get(ctx context.Context, by access.Caller, in *readIn) (*hookOut, error) {
	w, err := h.find(ctx, by, in.ID)
	return &hookOut{door.Tag(w.Version), w}, err
}

type addHookIn struct {
	Dry  bool `query:"dry_run" doc:"Check all and change nothing"`
	Body rest.Webhook
}

func (h *hooks) add(ctx context.Context, by access.Caller, in *addHookIn) (*hookOut, error) {
	in.Body.ID, in.Body.Version, in.Body.Secret = "", 0, ""
	if in.Dry {
		return nil, door.Would("The webhook would be added.")
	}
	w, err := h.h.PutHook(ctx, by, in.Body)
	return &hookOut{door.Tag(w.Version), w}, err
}

type putHookIn struct {
	ID    string `path:"id" maxLength:"64" doc:"Its id"`
	Match string `header:"If-Match" doc:"The ETag of the webhook that is changed; * is whatever there is"`
	Dry   bool   `query:"dry_run" doc:"Check all and change nothing"`
	Body  rest.Webhook
}

func (h *hooks) put(ctx context.Context, by access.Caller, in *putHookIn) (*hookOut, error) {
	now, err := h.find(ctx, by, in.ID)
	if err != nil {
		return nil, err
	}
	if in.Body.Version, err = matches(in.Match, now.Version, true); err != nil {
		return nil, err
	}
	if in.Body.ID, in.Body.Secret = in.ID, ""; in.Dry {
		return nil, door.Would("The webhook would be changed.")
	}
	w, err := h.h.PutHook(ctx, by, in.Body)
	return &hookOut{door.Tag(w.Version), w}, err
}

func (h *hooks) remove(ctx context.Context, by access.Caller, in *route.IDIn) (*struct{}, error) {
	if _, err := h.find(ctx, by, in.ID); err != nil {
		return nil, err
	}
	if in.Dry {
		return nil, door.Would("The webhook would be removed.")
	}
	return nil, h.h.RemoveHook(ctx, by, in.ID)
}

type deliveriesIn struct {
	ID        string `path:"id" maxLength:"64" doc:"Of the webhook"`
	PageSize  int    `query:"page_size" minimum:"1" maximum:"1000" default:"100" doc:"Deliveries of one page"`
	PageToken string `query:"page_token" maxLength:"20" doc:"next of the page before"`
}

func (h *hooks) deliveries(ctx context.Context, by access.Caller, in *deliveriesIn) (*route.ListOut[rest.Delivery], error) {
	before := int64(0)
	if in.PageToken != "" {
		var err error
		if before, err = strconv.ParseInt(in.PageToken, 10, 64); err != nil || before < 1 {
			return nil, door.Fail(rest.CodePageToken, "")
		}
	}
	if _, err := h.find(ctx, by, in.ID); err != nil {
		return nil, err
	}
	out, err := route.ListOf(h.h.Deliveries(ctx, by.Tenant, in.ID, before, in.PageSize))
	if n := len(out.Body.Items); err == nil && n == in.PageSize {
		out.Body.Next = strconv.FormatInt(out.Body.Items[n-1].ID, 10)
	}
	return out, err
}

type againIn struct {
	ID       string `path:"id" maxLength:"64" doc:"Of the webhook"`
	Delivery int64  `path:"delivery" doc:"Of the delivery"`
	Dry      bool   `query:"dry_run" doc:"Check all and change nothing"`
}

func (h *hooks) again(ctx context.Context, by access.Caller, in *againIn) (*struct{}, error) {
	if _, err := h.find(ctx, by, in.ID); err != nil {
		return nil, err
	}
	if in.Delivery < 1 || in.Delivery == math.MaxInt64 {
		return nil, web.ErrNotFound
	}
	one, err := h.h.Deliveries(ctx, by.Tenant, in.ID, in.Delivery+1, 1)
	switch {
	case err != nil:
		return nil, err
	case len(one) != 1 || one[0].ID != in.Delivery:
		return nil, web.ErrNotFound
	case in.Dry:
		return nil, door.Would("It would be sent again.")
	}
	return nil, h.h.Redeliver(ctx, by, in.Delivery)
}
