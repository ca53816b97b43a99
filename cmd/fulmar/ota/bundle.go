// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/cmd/fulmar/here"
	"fulmar/cmd/fulmar/local/picture"
	"fulmar/cmd/fulmar/show"
	"fulmar/internal/cli"
	"fulmar/schema/onboard"
	wire "fulmar/schema/ota"
)

const (
	watchEvery = time.Second
	// maxAway is how long a board may give no answer while it is watched: fulmard starts anew
	// in seconds, a machine in minutes.
	maxAway = 10 * time.Minute
	// settle is how long nothing has to be in work before a watch ends: between two components
	// of a release there is a moment.
	settle = 3 * time.Second
)

func bundleCommand(socket *string) *cobra.Command {
	c := &cobra.Command{
		Use: "install-bundle FILE|-", Short: "install a release that was brought to the board in one file", Args: cli.Words("FILE|-"),
		Long: `The file is read by this command, as its user: from a stick, a home folder, standard
input. The board proves the signatures of the release before it keeps anything; the fleet's
director is not asked: whoever may do this at the board decides.`,
		Example: "  fulmar ota install-bundle /media/stick/1.9.0.fulmar --watch\n  ssh desk cat 1.9.0.fulmar | fulmar ota install-bundle -",
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
	}
	return build(socket, true, c, bundle)
}

func bundle(ctx context.Context, k *call) error {
	in, size := io.Reader(os.Stdin), int64(-1)
	if path := k.words[0]; path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return err
		}
		if !st.Mode().IsRegular() || st.Size() == 0 {
			return fmt.Errorf("%s is no file with anything in it", path)
		}
		in, size = f, st.Size()
	}
	p := &progress{r: in, size: size, k: k}
	var taken onboard.Taken
	err := k.board.Send(ctx, onboard.BundlePath, p, size, &taken)
	p.end()
	if err != nil {
		return err
	}
	for _, s := range taken.Skipped {
		k.say("left out: %s", show.Clean(s))
	}
	k.say("release %s is proven and taken in: %s", show.Clean(taken.Release), show.Clean(strings.Join(taken.Components, ", ")))
	if !k.watch {
		if k.json {
			return show.JSON(k.stdout, taken)
		}
		k.say("next: fulmar ota status --watch")
		return nil
	}
	return k.follow(ctx, &taken)
}

// progress tells how much of a bundle the board has read.
type progress struct {
	r          io.Reader
	size, have int64
	k          *call
	drawn      time.Time
	drew       bool
}

func (p *progress) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.have += int64(n)
	if now := time.Now(); !p.k.json && here.IsTerminal(p.k.stderr) && now.Sub(p.drawn) > 200*time.Millisecond {
		p.drawn, p.drew = now, true
		if p.size > 0 {
			fmt.Fprintf(p.k.stderr, "\rto the board %s", bar(int(100*p.have/p.size), maxBar))
		} else {
			fmt.Fprintf(p.k.stderr, "\rto the board %d MiB", p.have>>20)
		}
	}
	return n, err
}

func (p *progress) end() {
	if p.drew {
		fmt.Fprintln(p.k.stderr)
	}
}

// follow draws how updates go until none is in work, or those of a bundle are over.
func (k *call) follow(ctx context.Context, of *onboard.Taken) error {
	ctx, stop := context.WithTimeout(ctx, k.timeout)
	defer stop()
	d := &drawer{k: k}
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	var last onboard.Updates
	seen, quiet, known := time.Now(), time.Time{}, false
	for {
		u, err := k.state(ctx)
		switch {
		case ctx.Err() != nil:
		case err == nil:
			last, seen, known = u, time.Now(), true
			d.draw(&u, "")
			if u.Work != nil || len(u.Waiting) > 0 {
				quiet = time.Time{}
			} else if quiet.IsZero() {
				quiet = time.Now()
			}
			if !quiet.IsZero() && (time.Since(quiet) >= settle || of == nil) {
				return k.over(&u, of)
			}
		case !known || !fault.Is(err, fault.BoardAway) && !fault.Is(err, fault.NotReady) || time.Since(seen) > maxAway:
			return err
		default:
			d.draw(&last, fmt.Sprintf("no answer for %s: fulmard starts anew", picture.Span(int64(time.Since(seen)/time.Second))))
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.UpdateGoesOn, "not over yet; the board goes on by itself")
		case <-t.C:
		}
	}
}

// over tells what is true at the end, and whether the bundle came to be.
func (k *call) over(u *onboard.Updates, of *onboard.Taken) error {
	if k.json {
		if err := show.JSON(k.stdout, u); err != nil {
			return err
		}
	}
	var bad []string
	for _, c := range u.Components {
		if of == nil || !slices.Contains(of.Components, c.Name) {
			continue
		}
		if c.Word != wire.Committed {
			bad = append(bad, fmt.Sprintf("%s: %s%s", c.Name, c.Word, reason(c.Reason)))
		}
		k.say("%s runs %s", c.Name, show.Clean(c.Version))
	}
	if len(bad) > 0 {
		return fault.New(fault.UpdateFailed, "%s", show.Clean(strings.Join(bad, "; ")))
	}
	k.say("next: fulmar ota history")
	return nil
}

// drawer draws anew over what it drew on a terminal, and a line for each change elsewhere.
type drawer struct {
	k    *call
	high int
	said string
}

func (d *drawer) draw(u *onboard.Updates, note string) {
	if d.k.json {
		return
	}
	if !here.IsTerminal(d.k.stdout) {
		line := note
		if w := u.Work; note == "" && w != nil {
			line = what(w) + ": " + w.State + reason(w.Reason)
		}
		if line != "" && line != d.said && !strings.HasPrefix(line, "no answer") || note != "" && !strings.HasPrefix(d.said, "no answer") {
			fmt.Fprintln(d.k.stdout, show.Clean(line))
			d.said = line
		}
		return
	}
	lines := newView(*u, here.Width(d.k.stdout), here.Painter(d.k.stdout)).lines()
	if note != "" {
		lines = append(lines, note)
	}
	var b strings.Builder
	if d.high > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", d.high)
	}
	for _, l := range lines {
		b.WriteString("\r\x1b[K" + l + "\n")
	}
	b.WriteString("\x1b[J")
	d.high = len(lines)
	_, _ = io.WriteString(d.k.stdout, b.String())
}
