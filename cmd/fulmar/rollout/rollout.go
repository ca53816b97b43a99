// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package rollout has the commands of fulmar about rollouts: what a plan would do, what
// one does, and the decisions that people take.
package rollout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/remote"
	"fulmar/cmd/fulmar/show"
	"fulmar/internal/cli"
	"fulmar/schema/rest"
)

// maxPlan bounds a plan file, in bytes: an envelope of 32 KiB and the rest.
const maxPlan = 96 << 10

// options are those of one command.
type options struct {
	format         show.Format
	spec           rest.RolloutSpec
	file           string
	waves          []string
	watch          bool
	why, without   string
	only, scope    string
	timeout        time.Duration
	boards         bool
	id             string
	changed        func(flag string) bool
	stdout, stderr io.Writer
}

// Command is fulmar rollout.
func Command() *cobra.Command {
	c := cli.Group(&cobra.Command{
		Use: "rollout", Short: "bring a release to boards in waves, watched by gates",
		Long: `A rollout is planned, started, and from then on the fleet's own affair: it goes on
without whoever watches it. Exit codes: 20 it is halted, 21 it waits for a second
person, 124 --timeout passed first.

` + remote.About,
	})
	f := new(remote.Flags)
	f.Register(c)
	c.AddCommand(planCommand(f), createCommand(f), listCommand(f), showCommand(f), watchCommand(f))
	for _, a := range actions() {
		c.AddCommand(a.build(f))
	}
	return c
}

// build makes a command of it.
func build(shared *remote.Flags, rows bool, c *cobra.Command, o *options, do func(context.Context, *remote.Client, *options) error) *cobra.Command {
	return remote.Command(shared, rows, c, func(ctx context.Context, k *remote.Call) error {
		if len(k.Words) > 0 {
			o.id = k.Words[0]
		}
		o.format, o.changed, o.stdout, o.stderr = k.Format, k.Changed, k.Stdout, k.Stderr
		return do(ctx, k.Client, o)
	})
}

const aboutPlan = `What is not given has its default, which the plan shows. A plan in YAML (--file)
may hold all that the API takes: guards, windows, hooks, limits; options win over it.
docs/rollouts.md explains waves and gates.`

// planFlags are the options of which a plan is made.
func planFlags(c *cobra.Command, o *options) {
	s := &o.spec
	fl := c.Flags()
	fl.StringVar(&o.file, "file", "", "a plan in YAML")
	fl.StringVar(&s.Release, "release", "", "what the boards shall run")
	fl.StringVar(&s.Component, "component", "", "agent, worker, config, rootfs or model/NAME")
	fl.StringVarP(&s.Query, "query", "q", "", "which boards, as fulmar board list -q")
	fl.StringVar(&s.Name, "name", "", "as people call it; else the release")
	fl.StringArrayVar(&o.waves, "wave", nil, "boards or per cent, and how long they run it: 20/10m or 2%/1h; once for each wave")
	fl.Float64Var(&s.Gate.Gate, "gate", 0, "share of good boards that a wave has to show: 0.995")
	fl.StringVar(&s.Gate.Policy, "policy", "", "interval or point")
	fl.IntVar(&s.PerSite, "per-site", 0, "so many boards of one site at the same time")
	fl.BoolVar(&s.Approval, "approval", false, "a second person has to agree")
	fl.StringArrayVar(&s.After, "after", nil, "a rollout that has to be done first")
	cli.File(c, "file", "yaml", "yml")
	for flag, value := range map[string]string{
		"release": "NAME", "component": "PART", "query": "QUERY", "wave": "SIZE/SOAK", "gate": "SHARE", "policy": "WORD", "per-site": "N", "after": "ID", "name": "NAME",
	} {
		cli.Takes(c, flag, value)
	}
}

// plan reads the file and lays the options over it.
func (o *options) plan() (rest.RolloutSpec, error) {
	given := o.spec
	var s rest.RolloutSpec
	if o.file != "" {
		b, err := readBounded(o.file)
		if err != nil {
			return s, err
		}
		if err := yaml.UnmarshalWithOptions(b, &s, yaml.Strict(), yaml.UseJSONUnmarshaler()); err != nil {
			return s, fmt.Errorf("%w: plan %s: %w", cli.ErrUsage, o.file, err)
		}
	}
	for flag, lay := range map[string]func(){
		"release": func() { s.Release = given.Release }, "component": func() { s.Component = given.Component },
		"query": func() { s.Query = given.Query }, "name": func() { s.Name = given.Name },
		"gate": func() { s.Gate.Gate = given.Gate.Gate }, "policy": func() { s.Gate.Policy = given.Gate.Policy },
		"per-site": func() { s.PerSite = given.PerSite }, "approval": func() { s.Approval = given.Approval }, "after": func() { s.After = given.After },
	} {
		if o.changed(flag) {
			lay()
		}
	}
	if len(o.waves) > 0 {
		s.Waves = nil
	}
	for _, text := range o.waves {
		w, err := parseWave(text)
		if err != nil {
			return s, err
		}
		s.Waves = append(s.Waves, w)
	}
	if s.Release == "" || s.Component == "" {
		return s, fmt.Errorf("%w: a plan wants at least --release and --component, or a --file with them", cli.ErrUsage)
	}
	return s, nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read plan: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(f, maxPlan+1))
	if err == nil && len(b) > maxPlan {
		err = fmt.Errorf("%s is over %d bytes", path, maxPlan)
	}
	if err != nil {
		return nil, fmt.Errorf("read plan: %w", err)
	}
	return b, nil
}

// parseWave reads "20/10m" or "2%/1h"; the time may be left out.
func parseWave(text string) (w rest.WaveSpec, err error) {
	bad := func() (rest.WaveSpec, error) {
		return w, fmt.Errorf("%w: --wave %q is not a number of boards or per cent with a time, as 20/10m or 2%%/1h", cli.ErrUsage, text)
	}
	size, soak, timed := strings.Cut(text, "/")
	if share, ok := strings.CutSuffix(size, "%"); ok {
		if w.Percent, err = strconv.ParseFloat(share, 64); err != nil || w.Percent <= 0 || w.Percent > 100 {
			return bad()
		}
	} else if w.Count, err = strconv.Atoi(size); err != nil || w.Count < 1 {
		return bad()
	}
	if timed {
		d, err := time.ParseDuration(soak)
		if err != nil || d < time.Second || d > 30*24*time.Hour {
			return bad()
		}
		w.SoakS = int64(d / time.Second)
	}
	return w, nil
}

func planCommand(shared *remote.Flags) *cobra.Command {
	o := new(options)
	c := &cobra.Command{
		Use: "plan", Short: "what a rollout would do; nothing is changed", Long: aboutPlan, Args: cli.Words(),
		Example: "  fulmar rollout plan --component model/forklift --release v7 -q 'site=hall-4 and not state=unreachable'",
	}
	planFlags(c, o)
	return build(shared, true, c, o, func(ctx context.Context, fl *remote.Client, o *options) error {
		s, err := o.plan()
		if err != nil {
			return err
		}
		var f rest.Forecast
		if err := fl.Post(ctx, "/api/v1/forecast", s, &f); err != nil {
			return err
		}
		if o.format.Quiet() {
			return show.JSON(o.stdout, f)
		}
		writeForecast(o.stdout, s, &f)
		fmt.Fprintln(o.stderr, "nothing has been changed; fulmar rollout create with the same options makes it, and starts nothing yet")
		return nil
	})
}

func createCommand(shared *remote.Flags) *cobra.Command {
	o := new(options)
	c := &cobra.Command{
		Use: "create", Short: "make a plan that can be started", Long: aboutPlan, Args: cli.Words(),
		Example: "  fulmar rollout create --file forklift-v7.yaml\n  fulmar rollout create --component agent --release 1.9.0 --wave 5/1h --wave 10%/1h",
	}
	planFlags(c, o)
	return build(shared, true, c, o, func(ctx context.Context, fl *remote.Client, o *options) error {
		s, err := o.plan()
		if err != nil {
			return err
		}
		var r rest.Rollout
		if err := fl.Post(ctx, "/api/v1/rollouts", s, &r); err != nil {
			return err
		}
		if o.format.Quiet() {
			return o.format.One(o.stdout, r.ID, r)
		}
		fmt.Fprintln(o.stdout, r.ID)
		fmt.Fprintf(o.stderr, "%s: %s\n%s\nnext: fulmar rollout start %s\n", r.ID, show.Clean(r.Sentence), fl.Page("/rollouts/"+url.PathEscape(r.ID)), r.ID)
		return nil
	})
}

func listCommand(shared *remote.Flags) *cobra.Command {
	o := new(options)
	c := &cobra.Command{Use: "list", Short: "the rollouts, newest first", Args: cli.Words(), Example: "  fulmar rollout list"}
	return build(shared, true, c, o, func(ctx context.Context, fl *remote.Client, o *options) error {
		all, err := remote.Whole[rest.Rollout](ctx, fl, "/api/v1/rollouts", nil)
		if err != nil {
			return err
		}
		type col = show.Column[rest.Rollout]
		now := time.Now()
		return show.Rows(o.stdout, &o.format, all,
			col{Name: "id", Of: func(r rest.Rollout) string { return r.ID }},
			col{Name: "release", Of: func(r rest.Rollout) string { return r.Spec.Component + " " + r.Spec.Release }},
			col{Name: "state", Of: func(r rest.Rollout) string { return r.State }},
			col{Name: "since", Of: func(r rest.Rollout) string { return show.Age(r.Since, now) }},
			col{Name: "wave", Of: func(r rest.Rollout) string { return fmt.Sprintf("%d of %d", r.Wave, len(r.Waves)) }},
			col{Name: "author", Wide: true, Of: func(r rest.Rollout) string { return r.Author }},
			col{Name: "where it stands", Of: func(r rest.Rollout) string { return r.Sentence }},
		)
	})
}

func path(id, more string) string { return "/api/v1/rollouts/" + url.PathEscape(id) + more }

func read(ctx context.Context, fl *remote.Client, id string) (r rest.Rollout, etag string, err error) {
	etag, err = fl.Do(ctx, remote.Request{Path: path(id, "")}, &r)
	return r, etag, err
}

func showCommand(shared *remote.Flags) *cobra.Command {
	o := new(options)
	c := &cobra.Command{
		Use: "show ID", Short: "where a rollout stands, and why", Args: cli.Words("an ID"),
		Example: "  fulmar rollout show r-31\n  fulmar rollout show r-31 --boards",
	}
	c.Flags().BoolVar(&o.boards, "boards", false, "each board of it")
	return build(shared, true, c, o, func(ctx context.Context, fl *remote.Client, o *options) error {
		if o.boards {
			return showBoards(ctx, fl, o)
		}
		r, _, err := read(ctx, fl, o.id)
		if err != nil {
			return err
		}
		if o.format.Quiet() {
			return o.format.One(o.stdout, r.ID, r)
		}
		write(o.stdout, &r, time.Now())
		return nil
	})
}

func showBoards(ctx context.Context, fl *remote.Client, o *options) error {
	all, err := remote.All[rest.RolloutBoard](ctx, fl, path(o.id, "/boards"), nil, 0)
	if err != nil {
		return err
	}
	type col = show.Column[rest.RolloutBoard]
	now := time.Now()
	return show.Rows(o.stdout, &o.format, all,
		col{Name: "board", Of: func(b rest.RolloutBoard) string { return b.Board }},
		col{Name: "site", Of: func(b rest.RolloutBoard) string { return b.Site }},
		col{Name: "wave", Of: func(b rest.RolloutBoard) string { return strconv.Itoa(b.Wave) }},
		col{Name: "state", Of: func(b rest.RolloutBoard) string { return b.State }},
		col{Name: "phase", Of: phaseOf},
		col{Name: "since", Of: func(b rest.RolloutBoard) string { return show.Age(b.Since, now) }},
		col{Name: "tries", Wide: true, Of: func(b rest.RolloutBoard) string { return strconv.Itoa(b.Tries) }},
		col{Name: "runs", Of: func(b rest.RolloutBoard) string { return b.Release }},
		col{Name: "level", Of: func(b rest.RolloutBoard) string { return b.Level }},
		col{Name: "reason", Of: func(b rest.RolloutBoard) string { return b.Reason }},
	)
}

func phaseOf(b rest.RolloutBoard) string {
	if b.Proving {
		return "proves what it runs"
	}
	if b.Phase == "" || b.Progress == 0 {
		return b.Phase
	}
	return fmt.Sprintf("%s %d %%", b.Phase, b.Progress)
}

// action is a decision about a rollout.
type action struct {
	do, short, long, example, said string
	flags                          func(*cobra.Command, *options)
}

func actions() []action {
	return []action{
		{do: rest.RolloutStart, short: "begin with the first wave", said: "is begun", example: "  fulmar rollout start r-31 --watch"},
		{do: rest.RolloutApprove, short: "agree to what somebody else planned", said: "is approved", example: "  fulmar rollout approve r-31"},
		{do: rest.RolloutPause, short: "give it to no more boards for now", said: "pauses; boards that are at it end what they do", example: "  fulmar rollout pause r-31 --why 'visitors in hall 4'"},
		{do: rest.RolloutResume, short: "go on after a pause, or where it is held", said: "goes on", example: "  fulmar rollout resume r-31"},
		{do: rest.RolloutAbort, short: "end it; boards keep what they have", said: "is aborted", example: "  fulmar rollout abort r-31 --why 'wrong model'"},
		{
			do: rest.RolloutRetry, short: "try again after a halt", said: "is tried again", example: "  fulmar rollout retry r-31 --without 'fact.dla=on'",
			flags: func(c *cobra.Command, o *options) {
				c.Flags().StringVar(&o.without, "without", "", "boards to leave out, as a query")
				c.Flags().StringVar(&o.only, "only", "", "boards to try alone, as a query")
				cli.Takes(c, "without", "QUERY")
				cli.Takes(c, "only", "QUERY")
			},
		},
		{
			do: rest.RolloutRollback, short: "take it back from the boards that have it", said: "is taken back", example: "  fulmar rollout rollback r-31 --scope wave",
			flags: func(c *cobra.Command, o *options) {
				c.Flags().StringVar(&o.scope, "scope", "all", "wave or all")
				cli.Values(c, "scope", "wave", "all")
				cli.Takes(c, "scope", "WORD")
			},
		},
	}
}

func (a action) build(shared *remote.Flags) *cobra.Command {
	o := new(options)
	c := &cobra.Command{Use: a.do + " ID", Short: a.short, Long: a.long, Example: a.example, Args: cli.Words("an ID")}
	c.Flags().StringVar(&o.why, "why", "", "the reason, for the audit log")
	cli.Takes(c, "why", "TEXT")
	if a.flags != nil {
		a.flags(c, o)
	}
	if a.do == rest.RolloutStart || a.do == rest.RolloutResume || a.do == rest.RolloutRetry {
		c.Flags().BoolVar(&o.watch, "watch", false, "tell what happens until it is decided")
	}
	return build(shared, false, c, o, func(ctx context.Context, fl *remote.Client, o *options) error {
		r, etag, err := read(ctx, fl, o.id)
		if err != nil {
			return err
		}
		_, err = fl.Do(ctx, remote.Request{
			Method: http.MethodPost, Path: path(o.id, "/"+a.do), IfMatch: etag,
			Body: rest.RolloutAction{Why: o.why, Without: o.without, Only: o.only, Scope: o.scope},
		}, &r)
		if err != nil {
			return remote.Unsure(err)
		}
		fmt.Fprintf(o.stderr, "%s %s: %s\n%s\n", r.ID, a.said, show.Clean(r.Sentence), fl.Page("/rollouts/"+url.PathEscape(r.ID)))
		if o.watch {
			return watch(ctx, fl, o)
		}
		if r.Do != "" {
			fmt.Fprintf(o.stderr, "next: %s\n", show.Clean(r.Do))
		}
		return nil
	})
}

// errStopped: whoever watched had enough; the rollout goes on.
var errStopped = errors.New("no longer watched; the rollout goes on")
