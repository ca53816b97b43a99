// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/here"
	"fulmar/cmd/fulmar/remote"
	"fulmar/cmd/fulmar/show"
	"fulmar/internal/cli"
	"fulmar/schema/rest"
)

const (
	// watchEvery is how often the fleet is asked: people read no faster.
	watchEvery = time.Second
	// watchTries is how often no answer is borne before the state is unknown.
	watchTries = 15
)

func watchCommand(shared *remote.Flags) *cobra.Command {
	o := new(options)
	c := &cobra.Command{
		Use: "watch ID", Short: "tell what happens until it is decided", Args: cli.Words("an ID"),
		Long:    "It ends as soon as the rollout is over, halted, or waits for a person. Ctrl-C ends\nthe watching, never the rollout.",
		Example: "  fulmar rollout watch r-31 --timeout 2h",
	}
	c.Flags().DurationVar(&o.timeout, "timeout", 0, "no longer than this; 0: as long as it takes")
	cli.Takes(c, "timeout", "TIME")
	return build(shared, false, c, o, watch)
}

// watch tells each step once and ends when nothing more happens by itself.
func watch(ctx context.Context, fl *remote.Client, o *options) error {
	var end <-chan time.Time
	if o.timeout > 0 {
		end = time.After(o.timeout)
	}
	var told time.Time
	line, silent := "", 0
	for {
		r, _, err := read(ctx, fl, o.id)
		switch {
		case ctx.Err() != nil:
			return fault.Mark(fault.Unsettled, errStopped)
		case fault.Is(err, fault.Unreachable) && silent < watchTries:
			silent++
		case err != nil:
			return err
		default:
			silent = 0
			told = steps(o, &r, told)
			line = progress(o, &r, line)
			if over, err := settled(o, &r); over {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fault.Mark(fault.Unsettled, errStopped)
		case <-end:
			return fault.New(fault.Unsettled, "%v passed; the rollout goes on: %s", o.timeout, show.Clean(r.Sentence))
		case <-time.After(watchEvery):
		}
	}
}

// steps writes what happened since, oldest first.
func steps(o *options, r *rest.Rollout, since time.Time) time.Time {
	for _, s := range slices.Backward(r.Steps) {
		if s.At.After(since) {
			if !since.IsZero() {
				fmt.Fprintf(o.stderr, "%s  %s  %s\n", s.At.Local().Format(time.TimeOnly), show.Clean(s.To), show.Clean(s.Say))
			}
			since = s.At
		}
	}
	if since.IsZero() {
		since = r.Since
	}
	return since
}

// progress writes the wave's bar where it changed: over the last one on a terminal.
func progress(o *options, r *rest.Rollout, last string) string {
	i := slices.IndexFunc(r.Waves, func(w rest.Wave) bool { return w.N == r.Wave })
	if i < 0 {
		return last
	}
	w := &r.Waves[i]
	line := fmt.Sprintf("%s  wave %d  %s", r.State, w.N, bar(w))
	if line == last {
		return last
	}
	if here.IsTerminal(o.stderr) {
		fmt.Fprintf(o.stderr, "\r\x1b[K%s\r", line)
	} else {
		fmt.Fprintf(o.stderr, "%s  %s\n", time.Now().Format(time.TimeOnly), line)
	}
	return line
}

// settled tells whether nothing more happens by itself, and as what that counts.
func settled(o *options, r *rest.Rollout) (bool, error) {
	say := show.Clean(r.Sentence)
	next := func() {
		if r.Do != "" {
			fmt.Fprintf(o.stderr, "next: %s\n", show.Clean(r.Do))
		}
	}
	switch r.State {
	case "done":
		fmt.Fprintf(o.stderr, "%s  done: %s\n", time.Now().Format(time.TimeOnly), say)
		return true, nil
	case "halted", "rolled-back":
		next()
		return true, fault.New(fault.Halted, "%s: %s", r.State, say)
	case "aborted":
		return true, fault.New(fault.Conflict, "aborted: %s", say)
	case "approval":
		next()
		return true, fault.New(fault.Approval, "%s", say)
	case "planned", "held", "paused":
		next()
		return true, fault.New(fault.Waits, "%s", say)
	}
	return false, nil
}
