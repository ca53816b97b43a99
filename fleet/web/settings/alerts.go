// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"cmp"
	"context"
	"html/template"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"fulmar/fleet/access"
	"fulmar/fleet/web/form"
	"fulmar/fleet/web/live"
	"fulmar/fleet/web/words"
	"fulmar/schema/rest"
)

const (
	maxAlerts     = 100 // shown; the API has all
	maxDeliveries = 50
	maxRuleID     = 64
	maxURL        = 1 << 10
)

// alertRow is one alert.
type alertRow struct {
	rest.Alert
	Tone  string
	Since template.HTML
	Words string // its labels
	More  int    // boards not named
}

// ruleRow is one rule.
type ruleRow struct {
	rest.AlertRule
	What, When, Link string
	Firing           int
}

// alertsView is what is wrong now and what would be.
type alertsView struct {
	Headline string
	Alerts   []alertRow
	More     int
	Rules    []ruleRow
	Write    bool
	Form     *form.Form
	Edit     *rest.AlertRule // the rule in the form; nil: a new one
}

func (p *pages) alerts(ctx context.Context, s *live.Sheet, by access.Caller, q url.Values, f *form.Form) (*alertsView, error) {
	v := &alertsView{Write: by.May(rest.AlertsWrite) == nil, Form: f}
	list := p.cfg.Alerts.Alerts(ctx, by.Tenant)
	rules, err := p.cfg.Alerts.Rules(ctx, by.Tenant)
	if err != nil {
		return nil, err
	}
	rank := []string{rest.AlertFiring, rest.AlertPending, rest.AlertResolved}
	slices.SortStableFunc(list, func(a, b rest.Alert) int {
		return cmp.Or(cmp.Compare(slices.Index(rank, a.State), slices.Index(rank, b.State)), cmp.Compare(a.Severity, b.Severity), a.Since.Compare(b.Since))
	})
	firing, by1 := 0, map[string]int{}
	shape := []any{}
	for _, a := range list {
		if a.State == rest.AlertFiring {
			firing++
			by1[a.Rule]++
		}
		if len(v.Alerts) == maxAlerts {
			v.More++
			continue
		}
		r := alertRow{Alert: a, Tone: alertTone(&a), Since: s.Ago("a|"+a.ID, a.Since), Words: labels(a.Labels, a.Summary), More: a.Count - len(a.Boards)}
		if len(a.Boards) == 0 {
			r.More = 0
		}
		v.Alerts = append(v.Alerts, r)
		shape = append(shape, a.ID, a.State, a.Severity, a.Summary, a.Count, a.Boards)
	}
	v.Headline = map[bool]string{true: "No alert is firing", false: words.Plural(firing, "alert is firing", "alerts are firing")}[firing == 0]
	for _, r := range rules {
		row := ruleRow{AlertRule: r, What: r.Query, When: "at once", Firing: by1[r.ID], Link: "/settings/alerts?" + url.Values{"edit": {r.ID}}.Encode() + "#rule"}
		if r.PromQL != "" {
			row.What = r.PromQL
		}
		if r.For != "" {
			row.When = "after " + r.For
		}
		v.Rules = append(v.Rules, row)
		if r.ID == q.Get("edit") && f == nil && !r.BuiltIn {
			one := r
			v.Edit, v.Form = &one, ruleForm(&one)
		}
	}
	if v.Form == nil {
		v.Form = form.New("severity", rest.SeverityWarning, "for", "10m")
	}
	s.Shape("verdict", v.Headline)
	s.Shape("alerts", append(shape, v.More)...)
	return v, nil
}

func alertTone(a *rest.Alert) string {
	switch {
	case a.State == rest.AlertResolved:
		return "healthy"
	case a.State == rest.AlertPending:
		return "never"
	case a.Severity == rest.SeverityCritical:
		return "failing"
	}
	return "degraded"
}

// labels writes labels in order; what the row says already is left out.
func labels(m map[string]string, said string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if k != "alertname" && k != "severity" && !strings.Contains(said, m[k]) {
			out = append(out, k+"="+m[k])
		}
	}
	return strings.Join(out, ", ")
}

func ruleForm(r *rest.AlertRule) *form.Form {
	f := form.New("id", r.ID, "summary", r.Summary, "severity", r.Severity, "query", r.Query, "promql", r.PromQL, "for", r.For, "by", strings.Join(r.By, ", "), "version", strconv.FormatInt(r.Version, 10))
	if r.Off {
		f.Set("off", "1")
	}
	return f
}

// version reads the version that a form was made from; 0 for a new thing.
func version(f *form.Form) int64 { return int64(f.Whole("version", 0, 1<<52, 0)) }

func (p *pages) changeAlerts(ctx context.Context, by access.Caller, f *form.Form) error {
	id := f.Need("id", maxRuleID)
	switch f.Raw("do") {
	case "remove":
		if !f.OK() {
			return nil
		}
		return p.cfg.Alerts.RemoveRule(ctx, by, id)
	case "on", "off":
		rules, err := p.cfg.Alerts.Rules(ctx, by.Tenant)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(rules, func(r rest.AlertRule) bool { return r.ID == id })
		if i < 0 {
			return errGone
		}
		rules[i].Off, rules[i].Version = f.Raw("do") == "off", version(f)
		_, err = p.cfg.Alerts.PutRule(ctx, by, rules[i])
		return err
	case "put":
	default:
		return errNothing
	}
	r := rest.AlertRule{
		ID: id, Summary: f.Need("summary", 200), Severity: f.OneOf("severity", rest.SeverityWarning, rest.SeverityCritical),
		Query: f.Line("query", maxQuery), PromQL: f.Line("promql", maxQuery), For: f.Line("for", 16), By: f.List("by"), Off: f.Ticked("off"), Version: version(f),
	}
	if (r.Query == "") == (r.PromQL == "") {
		f.Wrong("query", "Either a query over boards or PromQL, one of the two.")
	}
	if !f.OK() {
		return nil
	}
	if r.Version > 0 { // what the form does not show stays
		rules, err := p.cfg.Alerts.Rules(ctx, by.Tenant)
		if err != nil {
			return err
		}
		for i := range rules {
			if rules[i].ID == r.ID {
				r.Labels = rules[i].Labels
			}
		}
	}
	_, err := p.cfg.Alerts.PutRule(ctx, by, r)
	return err
}

// hookRow is one webhook.
type hookRow struct {
	rest.Webhook
	Gets, Word, Tone, Link string
}

// deliveryRow is one delivery.
type deliveryRow struct {
	rest.Delivery
	Tone, At, Words string
	Again           bool
}

// hooksView is the webhooks, and the log of one.
type hooksView struct {
	Rows       []hookRow
	Form       *form.Form
	Internal   bool // this person may allow private addresses
	Log        *hookRow
	Deliveries []deliveryRow
}

func (p *pages) hooks(ctx context.Context, s *live.Sheet, by access.Caller, q url.Values, f *form.Form) (*hooksView, error) {
	list, err := p.cfg.Hooks.Hooks(ctx, by.Tenant)
	if err != nil {
		return nil, err
	}
	v := &hooksView{Form: f, Internal: by.May(rest.UsersWrite) == nil}
	if f == nil {
		v.Form = form.New("kind", rest.HookWebhook)
	}
	for _, h := range list {
		r := hookRow{Webhook: h, Gets: "all events", Word: "no failure", Tone: "healthy", Link: "/settings/webhooks?" + url.Values{"hook": {h.ID}}.Encode() + "#log"}
		if len(h.Events) > 0 {
			r.Gets = strings.Join(h.Events, ", ")
		}
		switch {
		case h.Off:
			r.Word, r.Tone = "off", "never"
		case h.Error != "":
			r.Word, r.Tone = "last try failed", "failing"
		case h.Waiting > 0:
			r.Word, r.Tone = words.Plural(h.Waiting, "delivery waits", "deliveries wait"), "degraded"
		}
		v.Rows = append(v.Rows, r)
		if h.ID == q.Get("hook") {
			v.Log = &v.Rows[len(v.Rows)-1]
		}
	}
	if v.Log == nil {
		return v, nil
	}
	log, err := p.cfg.Hooks.Deliveries(ctx, by.Tenant, v.Log.ID, 0, maxDeliveries)
	if err != nil {
		return nil, err
	}
	for _, d := range log[:min(len(log), maxDeliveries)] {
		r := deliveryRow{Delivery: d, Tone: "never", At: words.Stamp(d.Made.In(s.At.Location()), s.At), Again: d.State != rest.DeliveryWaiting}
		var say []string
		if d.Status != 0 {
			say = append(say, "status "+strconv.Itoa(d.Status))
		}
		if d.Error != "" {
			say = append(say, d.Error)
		}
		switch {
		case d.State == rest.DeliveryDelivered:
			r.Tone = "healthy"
		case d.State == rest.DeliveryFailed:
			r.Tone = "failing"
		case !d.Next.IsZero():
			say = append(say, "tried again at "+words.Stamp(d.Next.In(s.At.Location()), s.At))
		}
		r.Words = strings.Join(say, "; ")
		v.Deliveries = append(v.Deliveries, r)
	}
	return v, nil
}

func (p *pages) changeHooks(ctx context.Context, by access.Caller, f *form.Form) (*secret, error) {
	do := f.Raw("do")
	if do != "put" {
		id := f.Need("id", 128)
		if !f.OK() {
			return nil, nil
		}
		switch do {
		case "remove":
			return nil, p.cfg.Hooks.RemoveHook(ctx, by, id)
		case "again":
			n, err := strconv.ParseInt(f.Raw("delivery"), 10, 64)
			if err != nil {
				return nil, errGone
			}
			return nil, p.cfg.Hooks.Redeliver(ctx, by, n)
		case "on", "off":
			return nil, p.switchHook(ctx, by, id, do == "off", version(f))
		}
		return nil, errNothing
	}
	h := rest.Webhook{
		Name: f.Need("name", maxUserName), URL: f.Need("url", maxURL), Kind: f.OneOf("kind", rest.HookWebhook, rest.HookAlertmanager), Events: f.List("events"), Internal: f.Ticked("internal"),
	}
	if u, err := url.Parse(h.URL); h.URL != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil) {
		f.Wrong("url", "An address that begins with https:// or http://, without a password in it.")
	}
	if !f.OK() {
		return nil, nil
	}
	made, err := p.cfg.Hooks.PutHook(ctx, by, h)
	if err != nil || made.Secret == "" {
		return nil, err
	}
	return &secret{Title: "The secret of " + made.Name, Text: made.Secret, Note: "The receiver checks the signature of each event with it (Standard Webhooks)."}, nil
}

func (p *pages) switchHook(ctx context.Context, by access.Caller, id string, off bool, ifVersion int64) error {
	list, err := p.cfg.Hooks.Hooks(ctx, by.Tenant)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(h rest.Webhook) bool { return h.ID == id })
	if i < 0 {
		return errGone
	}
	list[i].Off, list[i].Version = off, ifVersion
	_, err = p.cfg.Hooks.PutHook(ctx, by, list[i])
	return err
}
