// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package alert has the commands of fulmar about alerts, the rules behind them, and the
// webhooks that tell others of them.
package alert

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/remote"
	"fulmar/cmd/fulmar/show"
	"fulmar/internal/cli"
	"fulmar/schema/rest"
)

// Command is fulmar alert.
func Command() *cobra.Command {
	c := cli.Group(&cobra.Command{Use: "alert", Short: "what is wrong in the fleet, and the rules that say so", Long: remote.About})
	f := new(remote.Flags)
	f.Register(c)
	c.AddCommand(
		remote.Command(f, true, &cobra.Command{Use: "list", Short: "the alerts, firing ones first", Args: cli.Words(), Example: "  fulmar alert list"}, list),
		remote.Command(f, true, &cobra.Command{Use: "rules", Short: "the rules that alerts come from", Args: cli.Words(), Example: "  fulmar alert rules -o wide"}, rules),
		ruleCommand(f),
		remote.Command(f, false, &cobra.Command{Use: "remove RULE", Short: "remove a rule of yours", Args: cli.Words("a RULE"), Example: "  fulmar alert remove hot"}, func(ctx context.Context, k *remote.Call) error {
			if err := k.Remove(ctx, "/api/v1/alert-rules/"+url.PathEscape(k.Words[0])); err != nil {
				return err
			}
			fmt.Fprintf(k.Stderr, "%s is removed, and its alerts end\n", k.Words[0])
			return nil
		}),
		switchCommand(f, "on", "let a rule make alerts again", false),
		switchCommand(f, "off", "keep a rule, and make no alerts of it", true),
	)
	return c
}

func list(ctx context.Context, k *remote.Call) error {
	all, err := remote.Whole[rest.Alert](ctx, k.Client, "/api/v1/alerts", nil)
	if err != nil {
		return err
	}
	type col = show.Column[rest.Alert]
	now := time.Now()
	return show.Rows(k.Stdout, &k.Format, all,
		col{Name: "rule", Of: func(a rest.Alert) string { return a.Rule }},
		col{Name: "state", Of: func(a rest.Alert) string { return a.State }},
		col{Name: "severity", Of: func(a rest.Alert) string { return a.Severity }},
		col{Name: "for", Of: func(a rest.Alert) string { return show.Age(a.Since, now) }},
		col{Name: "boards", Wide: true, Of: func(a rest.Alert) string { return strings.Join(a.Boards, " ") }},
		col{Name: "what", Of: func(a rest.Alert) string { return a.Summary }},
	)
}

func rules(ctx context.Context, k *remote.Call) error {
	all, err := remote.Whole[rest.AlertRule](ctx, k.Client, "/api/v1/alert-rules", nil)
	if err != nil {
		return err
	}
	type col = show.Column[rest.AlertRule]
	return show.Rows(k.Stdout, &k.Format, all,
		col{Name: "rule", Of: func(r rest.AlertRule) string { return r.ID }},
		col{Name: "on", Of: func(r rest.AlertRule) string {
			if r.Off {
				return "off"
			}
			return "on"
		}},
		col{Name: "severity", Of: func(r rest.AlertRule) string { return r.Severity }},
		col{Name: "for", Of: func(r rest.AlertRule) string { return r.For }},
		col{Name: "by", Wide: true, Of: func(r rest.AlertRule) string { return strings.Join(r.By, " ") }},
		col{Name: "condition", Of: func(r rest.AlertRule) string {
			if r.PromQL != "" {
				return "promql: " + r.PromQL
			}
			return r.Query
		}},
		col{Name: "summary", Wide: true, Of: func(r rest.AlertRule) string { return r.Summary }},
		col{Name: "error", Wide: true, Of: func(r rest.AlertRule) string { return r.Error }},
	)
}

func ruleCommand(shared *remote.Flags) *cobra.Command {
	r := new(rest.AlertRule)
	c := remote.Command(shared, false, &cobra.Command{
		Use: "rule RULE", Short: "make or change a rule", Args: cli.Words("the name of the RULE"),
		Example: "  fulmar alert rule hot -q 'temp.tj > 90' --for 2m --summary 'a board runs hot' --severity critical --by site",
	}, func(ctx context.Context, k *remote.Call) error {
		r.ID = k.Words[0]
		if (r.Query == "") == (r.PromQL == "") {
			return fmt.Errorf("%w: a rule wants either -q QUERY or --promql EXPRESSION", cli.ErrUsage)
		}
		path := "/api/v1/alert-rules/" + url.PathEscape(r.ID)
		var old rest.AlertRule
		etag, err := k.Do(ctx, remote.Request{Path: path}, &old)
		if remote.StatusOf(err) == http.StatusNotFound {
			etag, err = "*", nil // there is none to be replaced
		}
		if err != nil {
			return err
		}
		if err := k.Replace(ctx, path, etag, r, nil); err != nil {
			return err
		}
		fmt.Fprintf(k.Stderr, "%s is in force; fulmar alert list shows what it finds\n", r.ID)
		return nil
	})
	fl := c.Flags()
	fl.StringVarP(&r.Query, "query", "q", "", "boards of which each is wrong")
	fl.StringVar(&r.PromQL, "promql", "", "an expression of which each sample is wrong")
	fl.StringVar(&r.For, "for", "", "how long it has to be so")
	fl.StringVar(&r.Summary, "summary", "", "what is wrong, for people")
	fl.StringVar(&r.Severity, "severity", rest.SeverityWarning, "warning or critical")
	fl.StringSliceVar(&r.By, "by", nil, "one alert for each value of these fields, not for each board")
	cli.Values(c, "severity", rest.SeverityWarning, rest.SeverityCritical)
	for flag, value := range map[string]string{"query": "QUERY", "promql": "EXPRESSION", "for": "TIME", "summary": "TEXT", "severity": "WORD", "by": "FIELDS"} {
		cli.Takes(c, flag, value)
	}
	return c
}

func switchCommand(shared *remote.Flags, word, short string, off bool) *cobra.Command {
	return remote.Command(shared, false, &cobra.Command{Use: word + " RULE", Short: short, Args: cli.Words("a RULE"), Example: "  fulmar alert " + word + " fulmar.board-unreachable"},
		func(ctx context.Context, k *remote.Call) error {
			path := "/api/v1/alert-rules/" + url.PathEscape(k.Words[0])
			var r rest.AlertRule
			etag, err := k.Do(ctx, remote.Request{Path: path}, &r)
			if err != nil {
				return err
			}
			r.Off = off
			if err := k.Replace(ctx, path, etag, r, nil); err != nil {
				return err
			}
			fmt.Fprintf(k.Stderr, "%s is %s\n", r.ID, word)
			return nil
		})
}

// HookCommand is fulmar webhook.
func HookCommand() *cobra.Command {
	c := cli.Group(&cobra.Command{
		Use: "webhook", Short: "tell other programs what happens in the fleet",
		Long: "Each event is a POST, signed as Standard Webhooks has it, and tried for three days.\ndocs/alerts.md shows how a receiver checks the signature.\n\n" + remote.About,
	})
	f := new(remote.Flags)
	f.Register(c)
	c.AddCommand(
		remote.Command(f, true, &cobra.Command{Use: "list", Short: "the webhooks, and whether they get through", Args: cli.Words(), Example: "  fulmar webhook list"}, hooks),
		addCommand(f),
		remote.Command(f, false, &cobra.Command{Use: "remove ID", Short: "remove a webhook", Args: cli.Words("an ID"), Example: "  fulmar webhook remove h-1"}, func(ctx context.Context, k *remote.Call) error {
			if err := k.Remove(ctx, "/api/v1/webhooks/"+url.PathEscape(k.Words[0])); err != nil {
				return err
			}
			fmt.Fprintf(k.Stderr, "%s is removed; what waited for it is not sent\n", k.Words[0])
			return nil
		}),
		remote.Command(f, true, &cobra.Command{Use: "deliveries ID", Short: "what was sent to a webhook, and what came of it", Args: cli.Words("an ID"), Example: "  fulmar webhook deliveries h-1"}, deliveries),
		remote.Command(f, false, &cobra.Command{Use: "again ID DELIVERY", Short: "send a delivery again", Args: cli.Words("an ID", "a DELIVERY"), Example: "  fulmar webhook again h-1 4711"}, func(ctx context.Context, k *remote.Call) error {
			path := "/api/v1/webhooks/" + url.PathEscape(k.Words[0]) + "/deliveries/" + url.PathEscape(k.Words[1]) + "/again"
			if err := k.Post(ctx, path, nil, nil); err != nil {
				return err
			}
			fmt.Fprintf(k.Stderr, "delivery %s is sent again now; fulmar webhook deliveries %s shows what comes of it\n", k.Words[1], k.Words[0])
			return nil
		}),
	)
	return c
}

func hooks(ctx context.Context, k *remote.Call) error {
	all, err := remote.Whole[rest.Webhook](ctx, k.Client, "/api/v1/webhooks", nil)
	if err != nil {
		return err
	}
	type col = show.Column[rest.Webhook]
	return show.Rows(k.Stdout, &k.Format, all,
		col{Name: "id", Of: func(h rest.Webhook) string { return h.ID }},
		col{Name: "name", Of: func(h rest.Webhook) string { return h.Name }},
		col{Name: "kind", Of: func(h rest.Webhook) string { return h.Kind }},
		col{Name: "waiting", Of: func(h rest.Webhook) string { return strconv.Itoa(h.Waiting) }},
		col{Name: "events", Wide: true, Of: func(h rest.Webhook) string { return strings.Join(h.Events, " ") }},
		col{Name: "url", Of: func(h rest.Webhook) string { return h.URL }},
		col{Name: "error", Of: func(h rest.Webhook) string { return h.Error }},
	)
}

func addCommand(shared *remote.Flags) *cobra.Command {
	h := new(rest.Webhook)
	c := remote.Command(shared, false, &cobra.Command{
		Use: "add NAME URL", Short: "make a webhook; its secret is printed once", Args: cli.Words("a NAME", "a URL"),
		Long:    "The secret goes to standard output, and is never shown again.",
		Example: "  fulmar webhook add pager https://pager.example/fulmar --event 'alert.*'\n  fulmar webhook add am https://am.example/api/v2/alerts --kind alertmanager",
	}, func(ctx context.Context, k *remote.Call) error {
		h.Name, h.URL = k.Words[0], k.Words[1]
		var made rest.Webhook
		if err := k.Post(ctx, "/api/v1/webhooks", h, &made); err != nil {
			return err
		}
		if made.Secret != "" {
			fmt.Fprintln(k.Stdout, made.Secret)
		}
		fmt.Fprintf(k.Stderr, "%s is made; fulmar webhook deliveries %s shows what is sent\n", made.ID, made.ID)
		return nil
	})
	c.Flags().StringVar(&h.Kind, "kind", rest.HookWebhook, "webhook or alertmanager")
	c.Flags().StringArrayVar(&h.Events, "event", nil, "only events of this type, as alert.firing, or alert.*")
	c.Flags().BoolVar(&h.Internal, "internal", false, "it lies at a private address; wants the right users:write")
	cli.Values(c, "kind", rest.HookWebhook, rest.HookAlertmanager)
	cli.Takes(c, "kind", "WORD")
	cli.Takes(c, "event", "TYPE")
	return c
}

func deliveries(ctx context.Context, k *remote.Call) error {
	all, err := remote.Whole[rest.Delivery](ctx, k.Client, "/api/v1/webhooks/"+url.PathEscape(k.Words[0])+"/deliveries", nil)
	if err != nil {
		return err
	}
	type col = show.Column[rest.Delivery]
	now := time.Now()
	return show.Rows(k.Stdout, &k.Format, all,
		col{Name: "delivery", Of: func(d rest.Delivery) string { return strconv.FormatInt(d.ID, 10) }},
		col{Name: "type", Of: func(d rest.Delivery) string { return d.Type }},
		col{Name: "subject", Of: func(d rest.Delivery) string { return d.Subject }},
		col{Name: "state", Of: func(d rest.Delivery) string { return d.State }},
		col{Name: "tries", Of: func(d rest.Delivery) string { return strconv.Itoa(d.Tries) }},
		col{Name: "made", Of: func(d rest.Delivery) string { return show.Age(d.Made, now) }},
		col{Name: "next", Of: func(d rest.Delivery) string { return show.Age(d.Next, now) }},
		col{Name: "error", Of: func(d rest.Delivery) string { return d.Error }},
	)
}
